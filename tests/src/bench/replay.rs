//! Runs recorded kills through `oomtrace replay`: lines per second, and system calls per line.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::syscalls::Syscalls;

/// Recorded kills of one build. Only that build can read them.
#[derive(Debug)]
pub struct Recording {
    file: PathBuf,
    count: usize,
}

impl Recording {
    /// A file for `run --record`.
    pub fn new(of: &str) -> Result<Self> {
        let name = format!("oomtrace-bench-{}-{of}.records", std::process::id());
        let file = std::env::temp_dir().join(name);
        // The file must be new, because everybody can write to this directory.
        File::create_new(&file).with_context(|| file.display().to_string())?;
        Ok(Self { file, count: 0 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Repeats the recorded kills until there are `count`, and drops other records.
    pub fn repeat(&mut self, count: usize) -> Result<()> {
        let recorded = fs::read(&self.file)?;
        let kills: Vec<&[u8]> =
            Records(&recorded).filter(|record| kind(record) == Some(KIND_OOM_KILL)).collect();
        ensure!(!kills.is_empty(), "no kill was recorded");
        let mut file = BufWriter::new(File::create(&self.file)?);
        for record in kills.iter().cycle().take(count) {
            file.write_all(record)?;
        }
        file.into_inner().context("write the records")?;
        self.count = count;
        Ok(())
    }

    fn replay(&self, oomtrace: &Path) -> Result<()> {
        let mut replay = Command::new(oomtrace);
        replay.args(["replay", "-o", "json"]).arg(&self.file).stdin(Stdio::null());
        let status = replay.stdout(Stdio::null()).status()?;
        ensure!(status.success(), "replay: {status}");
        Ok(())
    }

    /// Lines per second: from decode to write, including the start of the process.
    pub fn lines_per_second(&self, oomtrace: &Path) -> Result<f64> {
        let began = Instant::now();
        self.replay(oomtrace)?;
        Ok(self.lines() / began.elapsed().as_secs_f64())
    }

    /// System calls per line, including those of the start.
    pub fn syscalls_per_line(&self, oomtrace: &Path) -> Result<f64> {
        let syscalls = Syscalls::of_children()?;
        self.replay(oomtrace)?;
        #[expect(clippy::cast_precision_loss, reason = "a count, for people")]
        Ok(syscalls.count()? as f64 / self.lines())
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of lines, for people")]
    fn lines(&self) -> f64 {
        self.count as f64
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ignored = fs::remove_file(&self.file);
    }
}

/// The first word of a record of a kill (`oomtrace-common`).
const KIND_OOM_KILL: u32 = 1;

fn kind(record: &[u8]) -> Option<u32> {
    let (_length, record) = record.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*record.first_chunk()?))
}

/// Records as `run --record` writes them, each after its length.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u32::from_le_bytes(*self.0.first_chunk()?)).ok()?;
        let (record, rest) = self.0.split_at_checked(4 + length)?;
        self.0 = rest;
        Some(record)
    }
}

//! Where a tracer's lines go, and the faults of it: a file on a small disk, or a pipe.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::lines::{self, Line};
use crate::patience::until;

/// Bytes of the pipe: a dozen lines.
const PIPE_BYTES: libc::c_int = 16 << 10;

/// A file or a pipe.
#[derive(Debug)]
pub(super) enum Output {
    File(OnDisk),
    Pipe(Pipe),
}

impl Output {
    /// Makes a tracer write to it.
    pub(super) fn given_to(&self, command: &mut Command) -> Result<()> {
        match self {
            Self::File(file) => command.arg("--file").arg(&file.path).stdout(Stdio::null()),
            Self::Pipe(pipe) => command.stdout(Stdio::from(pipe.write.try_clone()?)),
        };
        Ok(())
    }

    /// All lines so far.
    pub(super) fn lines(&mut self) -> Result<Vec<Line>> {
        match self {
            Self::File(file) => {
                let mut lines = file.before.clone();
                let now = fs::read(&file.path).unwrap_or_default();
                // The tracer may be writing. Lines with an end are complete.
                let whole = now.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                lines.extend(lines::parse(now.get(..whole).unwrap_or_default())?);
                Ok(lines)
            }
            Self::Pipe(pipe) => pipe.lines(),
        }
    }
}

/// A file, and the content of earlier files that were rotated away.
#[derive(Debug)]
pub(super) struct OnDisk {
    path: PathBuf,
    before: Vec<Line>,
}

impl OnDisk {
    /// A file on this disk.
    pub(super) fn on(disk: &Path) -> Self {
        Self { path: disk.join("kills"), before: Vec::new() }
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Fills the disk.
    pub(super) fn fill_disk(&self) -> Result<()> {
        let mut filler = File::create(self.beside("filler"))?;
        let chunk = vec![0; 4096];
        while filler.write_all(&chunk).is_ok() {}
        Ok(())
    }

    /// Frees the disk.
    pub(super) fn free_disk(&self) -> Result<()> {
        fs::remove_file(self.beside("filler")).context("remove the filler")
    }

    /// Makes every write fail.
    pub(super) fn fail(&self) -> Result<()> {
        super::mount(Path::new("/dev/full"), &self.path, "", libc::MS_BIND, "")
    }

    /// Makes writes work again.
    pub(super) fn heal(&self) -> Result<()> {
        super::unmount(&self.path)
    }

    /// logrotate's `create`: renames the file and makes a new one, then calls `nudge`.
    pub(super) fn rotate(&mut self, nudge: impl FnOnce() -> Result<()>) -> Result<()> {
        let old = self.beside("kills.1");
        fs::rename(&self.path, &old)?;
        let mut reader = File::open(&old)?;
        // The tracer may have made it already.
        File::options().append(true).create(true).mode(0o600).open(&self.path)?;
        nudge()?;
        self.moved_on()?;
        self.take(&mut reader)?;
        fs::remove_file(old).context("remove the old file")
    }

    /// Removes the file.
    pub(super) fn remove(&mut self) -> Result<()> {
        let mut reader = File::open(&self.path)?;
        fs::remove_file(&self.path)?;
        self.moved_on()?;
        self.take(&mut reader)
    }

    /// logrotate's `copytruncate`. The tracer is stopped, so that nothing is written in between.
    pub(super) fn copy_and_truncate(&mut self) -> Result<()> {
        let mut file = File::options().read(true).write(true).open(&self.path)?;
        self.take(&mut file)?;
        file.set_len(0).context("truncate")
    }

    /// Waits until the tracer writes to the new file. After that it does not write to the old one.
    fn moved_on(&self) -> Result<()> {
        until("a line in the new file", || Ok((self.size() > 0).then_some(())))
    }

    fn take(&mut self, file: &mut File) -> Result<()> {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut text)?;
        self.before.extend(lines::parse(&text)?);
        Ok(())
    }
}

/// A pipe and its reader. The next tracer uses the same pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    write: OwnedFd,
    paused: Arc<AtomicBool>,
    read: Arc<Mutex<Vec<u8>>>,
    parsed: Vec<Line>,
    _reader: JoinHandle<()>,
}

impl Pipe {
    pub(super) fn make() -> Result<Self> {
        let (mut reader, writer) = std::io::pipe()?;
        let write = OwnedFd::from(writer);
        // SAFETY: a descriptor of ours, and a number.
        let set = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        ensure!(set >= PIPE_BYTES, "size of a pipe: {}", std::io::Error::last_os_error());
        let (paused, read) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (theirs, to) = (Arc::clone(&paused), Arc::clone(&read));
        let reader = std::thread::Builder::new().name("reader".into()).spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                while theirs.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                match reader.read(&mut chunk) {
                    Ok(count) if count > 0 => {
                        let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                        to.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    }
                    _ => return,
                }
            }
        })?;
        Ok(Self { write, paused, read, parsed: Vec::new(), _reader: reader })
    }

    /// Stops reading, or starts again.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn lines(&mut self) -> Result<Vec<Line>> {
        let mut text = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let whole: Vec<u8> = text.drain(..whole).collect();
        drop(text);
        self.parsed.extend(lines::parse(&whole)?);
        Ok(self.parsed.clone())
    }
}

//! Boots one guest that measures, and returns the table that its program prints: `cargo xtask bench --guest`
//! and `cargo xtask soak --guest`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use tempfile::NamedTempFile;

use super::{
    initramfs,
    kernels::{Arch, Store},
    programs::Programs,
    qemu::{Budget, End, Machine},
    tools::output,
};
use crate::workspace;

/// The kernel, unless another is named: it has function hooks, and most machines have it.
pub const KERNEL: &str = "6.12";

/// The table's lines on the console.
const LINE: &str = "@@ table ";

/// A program that measures, and what it needs.
pub struct Measuring<'a> {
    /// Its name, which is also that of the console's file.
    pub program: &'static str,
    /// Its words.
    pub words: String,
    /// The guest's kernel.
    pub kernel: &'a str,
    /// Another build of oomtrace, which is `/bin/before` in the guest.
    pub before: Option<&'a Path>,
    /// Programs of this machine that it starts, by their paths here.
    pub others: &'a [(&'static str, &'a str)],
    /// Files of this machine that it needs at their paths, besides the libraries of these programs.
    pub files: &'a [&'a str],
    /// The guest's memory in MiB.
    pub memory: u32,
    /// How long it may take.
    pub total: Duration,
}

impl Measuring<'_> {
    /// Builds, boots, waits for the end.
    ///
    /// # Errors
    /// If something cannot be built or fetched, or the program fails. Its messages were shown.
    pub fn table(&self) -> Result<String> {
        let store = Store::open(Arch::X86_64)?;
        let (kernel, qemu) = (store.kernel(self.kernel)?, store.qemu()?);
        let built = Programs::build(&store)?;
        let mut programs = vec![("busybox", store.busybox()?), ("oomtrace", built.oomtrace)];
        programs.push((self.program, built.scenarios.with_file_name(self.program)));
        programs.extend(self.before.map(|before| ("before", before.to_owned())));
        let mut libraries: Vec<PathBuf> = self.files.iter().map(PathBuf::from).collect();
        for (name, path) in self.others {
            programs.push((*name, PathBuf::from(path)));
            libraries.extend(libraries_of(path)?);
        }
        libraries.sort();
        libraries.dedup();

        let directory = workspace::target_dir().join("vm");
        fs::create_dir_all(&directory)?;
        let file = NamedTempFile::new_in(&directory)?;
        fs::write(&file, initramfs::pack(&programs, &libraries, &self.job())?)?;
        let machine = Machine {
            arch: Arch::X86_64,
            qemu: &qemu,
            kernel: &kernel,
            initramfs: file.path(),
            memory: self.memory,
            numa: false,
            swap: None,
            command_line: "",
        };
        let log = directory.join(format!("{}.log", self.program));
        eprintln!("vm: {} on {}, at most {} s", self.program, self.kernel, self.total.as_secs());
        let mut table = String::new();
        let budget = Budget { total: self.total, silence: self.total };
        let console = machine.boot(&log, &budget, |line| match line.strip_prefix(LINE.trim_end()) {
            Some(line) => table.push_str(&format!("{}\n", line.strip_prefix(' ').unwrap_or_default())),
            None => eprintln!("vm:   {line}"),
        })?;
        if console.end != End::Exit(0) {
            // It may say why.
            eprint!("{table}");
        }
        ensure!(
            console.end == End::Exit(0),
            "the guest: {:?}; its console is in {}",
            console.end,
            log.display()
        );
        Ok(table)
    }

    /// The file that init.sh reads.
    fn job(&self) -> String {
        let Self { program, words, .. } = self;
        format!(
            "CGROUP=v2\njob() {{\n{program} {words} >/tmp/table\ncode=$?\nsed 's/^/{LINE}/' /tmp/table\nreturn $code\n}}\n"
        )
    }
}

/// The shared libraries of a program, and what loads them.
fn libraries_of(program: &str) -> Result<Vec<PathBuf>> {
    let listed = output(Command::new("ldd").arg(program))?;
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

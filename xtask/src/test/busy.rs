//! Other load on this host while tests run, made by the program of the scenarios below its own cgroup.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{build, workspace};

/// Other load on this host, until it is ended.
pub struct Busy(Child);

impl Busy {
    /// Builds the program, starts it, and waits until everything is there.
    ///
    /// # Errors
    /// If it cannot be built, or makes nothing.
    pub fn start() -> Result<Self> {
        let built = build::scenarios()?;
        // A copy, because the tests build the program again, and this one must be able to start itself again.
        let directory = workspace::target_dir().join("busy");
        fs::create_dir_all(&directory)?;
        let program = directory.join("oomtrace-scenarios");
        fs::copy(&built, &program).with_context(|| program.display().to_string())?;
        let mut command = workspace::as_root(&program);
        command.arg("busy").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let stdout = child.stdout.take().context("it has an output")?;
        let busy = Self(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "{} made no cgroups", program.display());
        Ok(busy)
    }

    /// Ends it and removes its cgroups.
    ///
    /// # Errors
    /// If it did not work until now.
    pub fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It ends when its stdin ends. It must be gone before others count cgroups.
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

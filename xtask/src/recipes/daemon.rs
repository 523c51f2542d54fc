//! A program that a test starts and ends. Its Debian packages are unpacked, not installed, because rsyslog
//! and syslog-ng cannot be installed together.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{setup, stage::quietly};

/// How long a shipper may take for each step.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directory where these packages are unpacked.
pub fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let root = setup::tools_dir()?.join("recipes").join(name);
    if root.is_dir() {
        return Ok(root);
    }
    let scratch = tempfile::tempdir_in(setup::tools_dir()?)?;
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(scratch.path());
    quietly(&format!("apt: {}", packages.join(" ")), "some seconds", &mut apt)?;
    let tree = scratch.path().join("root");
    for entry in fs::read_dir(scratch.path())? {
        let package = entry?.path();
        if package.extension() == Some(OsStr::new("deb")) {
            let status = Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree).status()?;
            ensure!(status.success(), "dpkg-deb -x {}: {status}", package.display());
        }
    }
    fs::create_dir_all(root.parent().context("no parent")?)?;
    fs::rename(&tree, &root).with_context(|| root.display().to_string())?;
    Ok(root)
}

/// A running program. Dropping it ends it.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program of an unpacked tree with the libraries of that tree. Its output goes to `log`.
    pub fn start(root: &Path, command: &mut Command, log: &Path) -> Result<Self> {
        let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
        let places =
            [format!("usr/lib/{machine}"), format!("lib/{machine}"), String::from("usr/lib/syslog-ng")];
        let places: Vec<String> = places.iter().map(|place| root.join(place).display().to_string()).collect();
        let words = File::options().create(true).append(true).open(log)?;
        command.env("LD_LIBRARY_PATH", places.join(":")).stdout(words.try_clone()?).stderr(words);
        let child = command.spawn().with_context(|| command.get_program().display().to_string())?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until `done` is true.
    pub fn until(&mut self, what: &str, done: impl FnMut() -> bool) -> Result<()> {
        self.until_within(PATIENCE, what, done)
    }

    /// The same, for at most `patience`.
    pub fn until_within(
        &mut self,
        patience: Duration,
        what: &str,
        mut done: impl FnMut() -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        while !done() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) before {what}: {}", self.words());
            }
            ensure!(
                began.elapsed() < patience,
                "not within {} s: {what}: {}",
                patience.as_secs(),
                self.words()
            );
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends it with SIGTERM.
    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "it does not end: {}", self.words());
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

//! A daemon that a test starts, and later ends by its pid.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use oomtrace_tests::patience::until;
use oomtrace_tests::process::send_signal;

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with its output in `DIR/NAME.log`, and waits until it is `ready`.
    pub(crate) fn start(
        name: &'static str,
        dir: &Path,
        command: &mut Command,
        ready: impl Fn() -> bool,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        // Its own process group, because Ctrl-C must only end the test, which then ends the daemon.
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        // It must end when the test is killed. SAFETY: one system call, which is all that is allowed between
        // fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let mut daemon = Self { child, name, log };
        let started = until(&format!("an answer of {name}"), || {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{name} ended: {status}");
            }
            Ok(ready().then_some(()))
        });
        started.with_context(|| daemon.last_words())?;
        Ok(daemon)
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!(
            "its log ends with: {}",
            lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join(" | ")
        )
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: libc::c_int) -> Result<()> {
        send_signal(self.child.id(), signal).with_context(|| self.name.to_string())
    }

    /// Kills it, as a crash would.
    pub(crate) fn crash(mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A stopped daemon must continue first. If it has ended, this does nothing.
        let _ended = self.signal(libc::SIGCONT).and_then(|()| self.signal(libc::SIGTERM));
        let _ignored = until("its end", || Ok(self.child.try_wait()?));
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

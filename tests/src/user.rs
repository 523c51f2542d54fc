//! An unprivileged user: a home, and cgroups that were handed over to that user, as systemd does it.
//!
//! No such user needs to be on the host: processes become the user by number, and a tracer sees the home in a
//! `/etc/passwd` of its own.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cgroup::{Cgroup, Hierarchy, UserCgroups};
use crate::hog::Hog;

/// A user.
#[derive(Debug)]
pub struct User {
    cgroups: UserCgroups,
    home: PathBuf,
    passwd: PathBuf,
    uid: u32,
}

impl User {
    /// Makes the home in `dir`, and the cgroups.
    pub fn make(dir: &Path) -> Result<Self> {
        let uid = 42_000 + std::process::id() % 10_000;
        let (home, passwd) = (dir.join("home"), dir.join("passwd"));
        fs::create_dir(&home)?;
        chown(&home, Some(uid), Some(uid)).context("give the home away")?;
        let line = format!("ann:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
        fs::write(&passwd, fs::read_to_string("/etc/passwd")? + &line)?;
        let cgroups = UserCgroups::make(&Hierarchy::find()?, uid)?;
        cgroups.service().hand_over(uid)?;
        Ok(Self { cgroups, home, passwd, uid })
    }

    /// The number of the user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Where the user's files are.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The cgroup that was handed over.
    pub fn service(&self) -> &Cgroup {
        self.cgroups.service()
    }

    /// A process of the user's, in a cgroup of the user's.
    pub fn process(&self, name: &str) -> Result<(Hog, Cgroup)> {
        let cgroup = self.service().child(name.as_bytes())?;
        cgroup.hand_over(self.uid)?;
        let mut hog = Hog::start()?;
        hog.join(&cgroup.procs())?;
        hog.ask(&format!("uid {}", self.uid))?;
        Ok((hog, cgroup))
    }

    /// Lets a program see the user in its `/etc/passwd`. No other process sees that file.
    pub fn shown_to(&self, command: &mut Command) -> Result<()> {
        let passwd = std::ffi::CString::new(self.passwd.as_os_str().as_bytes())?;
        // SAFETY: three system calls, with strings that live in the closure.
        unsafe {
            command.pre_exec(move || {
                let own = libc::MS_REC | libc::MS_PRIVATE;
                let none = std::ptr::null();
                let etc = c"/etc/passwd".as_ptr();
                let done = libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(none, c"/".as_ptr(), none, own, none.cast()) == 0
                    && libc::mount(passwd.as_ptr(), etc, none, libc::MS_BIND, none.cast()) == 0;
                if done { Ok(()) } else { Err(io::Error::last_os_error()) }
            });
        }
        Ok(())
    }
}

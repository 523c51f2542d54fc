//! An unprivileged user with a home and delegated cgroups, as systemd sets them up.
//!
//! The host needs no such user: processes take the user's number, and a tracer gets an `/etc/passwd` of its
//! own with the home.

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

/// An unprivileged user.
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
        Self::make_several(dir, 1)?.pop().context("a user")
    }

    /// Makes users with homes in `dir`, who are all in the same `/etc/passwd`.
    pub fn make_several(dir: &Path, count: u32) -> Result<Vec<Self>> {
        let first = 42_000 + std::process::id() % 10_000;
        let passwd = dir.join("passwd");
        let mut lines = fs::read_to_string("/etc/passwd")?;
        let mut users = Vec::new();
        for uid in first..first + count {
            let home = dir.join(format!("home-{uid}"));
            fs::create_dir(&home)?;
            chown(&home, Some(uid), Some(uid)).context("give the home to the user")?;
            lines += &format!("user{uid}:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
            let cgroups = UserCgroups::make(&Hierarchy::find()?, uid)?;
            cgroups.service().hand_over(uid)?;
            users.push(Self { cgroups, home, passwd: passwd.clone(), uid });
        }
        fs::write(&passwd, lines)?;
        Ok(users)
    }

    /// The user's number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The user's home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The delegated cgroup.
    pub fn service(&self) -> &Cgroup {
        self.cgroups.service()
    }

    /// A process of the user in a new cgroup of the user.
    pub fn process(&self, name: &str) -> Result<(Hog, Cgroup)> {
        let cgroup = self.service().child(name.as_bytes())?;
        cgroup.hand_over(self.uid)?;
        let mut hog = Hog::start()?;
        hog.join(&cgroup.procs())?;
        hog.ask(&format!("uid {}", self.uid))?;
        Ok((hog, cgroup))
    }

    /// Gives a command the `/etc/passwd` with this user. No other process sees that file.
    pub fn shown_to(&self, command: &mut Command) -> Result<()> {
        let passwd = std::ffi::CString::new(self.passwd.as_os_str().as_bytes())?;
        // SAFETY: three system calls, with strings that the closure owns.
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

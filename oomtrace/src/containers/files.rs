//! Reads the runtimes' files as untrusted input. The operator or the distribution chooses a directory. Below
//! it no symlink and no `..` is followed, and only regular files of a limited size are read, on file systems
//! that answer by themselves. Separate processes read the files of users
//! ([`readers`](crate::host::files::readers)).

use std::path::{Path, PathBuf};

pub use crate::host::files::{FileError, Stamp};
use crate::host::{
    files::{self, Dir, readers::Readers},
    root::Root,
};

/// The largest file that is read. A container's own files have a few tens of kB.
pub const FILE_MAX_BYTES: u64 = 1 << 20;
/// The largest list of containers that is read. Podman keeps one for all, about 600 bytes each.
pub const LIST_MAX_BYTES: u64 = 8 << 20;
/// The largest file that is read of a user, who can write anything: while one is read, no kill is reported. A list has about 200
/// containers then.
const USERS_FILE_MAX_BYTES: u64 = 128 << 10;

/// A directory of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    dir: Dir,
    readers: Option<Readers>,
}

impl StateDir {
    /// A directory that only root can write.
    pub fn system(dir: impl Into<PathBuf>) -> Self {
        let dir = Dir { base: dir.into(), below: PathBuf::new(), foreign: false };
        Self { dir, readers: None }
    }

    /// The directory `below` in a user's home.
    pub fn of_user(home: impl Into<PathBuf>, below: impl Into<PathBuf>) -> Self {
        let dir = Dir { base: home.into(), below: below.into(), foreign: true };
        Self { dir, readers: None }
    }

    /// The same directory. If it is a user's, `readers` read it.
    pub fn read_by(self, readers: Option<&Readers>) -> Self {
        Self { readers: readers.cloned(), ..self }
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        let Dir { base, below, .. } = &self.dir;
        if below.as_os_str().is_empty() { base.clone() } else { base.join(below) }
    }

    /// Whether `name` exists. An empty `name` is this directory itself.
    pub fn holds(&self, name: &Path) -> bool {
        self.find(name).is_ok()
    }

    /// Finds out if `name` exists.
    ///
    /// # Errors
    /// [`FileError::Absent`] if it does not; another one if that is not known.
    pub fn find(&self, name: &Path) -> Result<(), FileError> {
        match &self.readers {
            Some(readers) => readers.find(&self.dir, name),
            None => self.dir.find(name),
        }
    }

    /// Why an existing directory is not read: this process has no access to it, or its file system may never
    /// answer.
    pub fn closed(&self) -> Option<FileError> {
        let listed = match &self.readers {
            Some(readers) => readers.list(&self.dir, Path::new("."), 0),
            None => self.dir.list(Path::new("."), 0),
        };
        listed.err().filter(|why| match why {
            FileError::Io(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
            why => matches!(why, FileError::Served(_)),
        })
    }

    /// The largest file that is read here, if elsewhere it is `max`.
    fn most(&self, max: u64) -> u64 {
        if self.dir.foreign { max.min(USERS_FILE_MAX_BYTES) } else { max }
    }

    /// Whether somebody other than root can write there.
    pub fn is_foreign(&self) -> bool {
        self.dir.foreign
    }

    /// The version of the file `name`.
    pub fn stamp(&self, name: &Path) -> Result<Stamp, FileError> {
        match &self.readers {
            Some(readers) => readers.stamp(&self.dir, name),
            None => self.dir.stamp(name),
        }
    }

    /// When `name` was last written, in nanoseconds since 1970.
    pub fn modified_ns(&self, name: &Path) -> Option<i128> {
        Some(self.stamp(name).ok()?.written_ns)
    }

    /// The content of the regular file `name` below this directory, if it has at most `max` bytes; of a user's, if it has no more
    /// than is read of users.
    pub fn read(&self, name: &Path, max: u64) -> Result<Vec<u8>, FileError> {
        let max = self.most(max);
        match &self.readers {
            Some(readers) => readers.read(&self.dir, name, max),
            None => self.dir.read(name, max),
        }
    }

    /// The file `name` below this directory, as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &Path, max: u64) -> Result<T, FileError> {
        Ok(serde_json::from_slice(&self.read(name, max)?)?)
    }

    /// At most `max` names in the directory `name`.
    pub fn list(&self, name: &Path, max: usize) -> Vec<String> {
        let listed = match &self.readers {
            Some(readers) => readers.list(&self.dir, name, max),
            None => self.dir.list(name, max),
        };
        listed.unwrap_or_default()
    }
}

/// The content of the host's regular file `path`; `None` where it cannot be read. Links are followed.
pub fn host_file(path: &Path) -> Option<Vec<u8>> {
    files::file(path, FILE_MAX_BYTES).ok()
}

/// The first bytes of the file `name` of the process `pid`; `None` if there is no such file. Takes no lock of
/// that process.
pub fn process_file(root: &Root, pid: &str, name: &str) -> Option<Vec<u8>> {
    files::of_process(&root.path(Path::new("/proc").join(pid)), name.as_ref(), FILE_MAX_BYTES).ok()
}

/// The command line of the process `pid`. That process can make its reader wait.
pub fn command_line(root: &Root, pid: &str) -> Option<Vec<u8>> {
    let process = root.path(Path::new("/proc").join(pid));
    match root.readers() {
        Some(readers) => readers.of_process(&process, "cmdline".as_ref(), FILE_MAX_BYTES).ok(),
        None => files::of_process(&process, "cmdline".as_ref(), FILE_MAX_BYTES).ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_cannot_be_opened_is_told_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let state = StateDir::system(dir.path());
        let read = |name: &str| state.read(Path::new(name), 10).unwrap_err();
        assert!(matches!(read("socket"), FileError::NotRegular));
        assert!(matches!(read("none"), FileError::Absent));
        assert!(matches!(read(".."), FileError::Astray));
    }

    #[test]
    fn no_file_system_is_entered_that_may_not_answer() {
        let version = Path::new("version");
        // procfs stands for all file systems that are not known to answer.
        for dir in [StateDir::system("/proc"), StateDir::of_user("/proc", ""), StateDir::of_user("/", "proc")]
        {
            assert!(matches!(dir.read(version, 4096), Err(FileError::Served(kind)) if kind == "proc"));
            assert!(matches!(dir.closed(), Some(FileError::Served(_))));
            assert!(!dir.holds(version));
        }
        assert!(host_file(Path::new("/proc/version")).is_none());
        assert!(!process_file(&Root::host(), "self", "comm").unwrap().is_empty());
        // The process itself chooses where this link leads.
        assert!(process_file(&Root::host(), "self", "exe").is_none());
    }

    /// `/dev` is a mount on each host.
    #[test]
    fn below_a_home_no_mount_is_crossed() {
        let null = Path::new("dev/null");
        assert!(matches!(StateDir::of_user("/", "").read(null, 4), Err(FileError::Astray)));
        assert!(matches!(StateDir::system("/").read(null, 4), Err(FileError::NotRegular)));
    }

    #[test]
    fn links_of_the_operator_are_followed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("real/below")).unwrap();
        std::fs::write(at("real/below/file"), "text").unwrap();
        std::os::unix::fs::symlink("real/../real/./below", at("link")).unwrap();
        std::os::unix::fs::symlink(at("link"), at("link to it")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        assert_eq!(StateDir::system(at("link to it")).read(Path::new("file"), 4).unwrap(), b"text");
        assert_eq!(host_file(&at("link to it/file")).unwrap(), b"text");
        assert!(matches!(StateDir::system(at("loop")).read(Path::new("x"), 4), Err(FileError::Astray)));
        let read = |name: &str| StateDir::system(dir.path()).read(Path::new(name), 4);
        assert!(matches!(read("link/file"), Err(FileError::Astray)));
        assert!(matches!(read("real/below"), Err(FileError::NotRegular)));
        assert_eq!(read("real/below/file").unwrap(), b"text");
    }
}

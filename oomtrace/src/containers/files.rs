//! The runtimes' files, read as what they are: input. A directory that the operator or the
//! distribution chose, and below it no symlink, no `..`, nothing but regular files of a
//! bounded size.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

/// Largest file that is read: a container's own files are a few ten kB.
pub const FILE_MAX_BYTES: u64 = 1 << 20;
/// Largest list of containers that is read (Podman keeps one for all: about 600 bytes each).
pub const LIST_MAX_BYTES: u64 = 8 << 20;
/// Largest list that is read of a user, who may write what he likes: some hundred containers.
const USERS_LIST_MAX_BYTES: u64 = 512 << 10;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("not there")]
    Absent,
    /// It, or a directory on the way, is a symlink or leads out of the runtime's directory.
    #[error("a link, or out of the runtime's directory")]
    Astray,
    /// A FIFO, a device, a directory.
    #[error("not a regular file")]
    NotRegular,
    /// More bytes than are read.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not what the runtime writes. serde's own words may quote all of a file that a user wrote.
    #[error("not what the runtime writes, at line {} column {}", .0.line(), .0.column())]
    Content(#[from] serde_json::Error),
}

/// A directory of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    /// Reached as the operator set it up: links are followed.
    base: PathBuf,
    /// What follows is below `base` and no link is followed.
    below: PathBuf,
    /// Somebody other than root may write there: mounts are not crossed either.
    foreign: bool,
}

impl StateDir {
    /// A directory that only root writes.
    pub fn system(dir: impl Into<PathBuf>) -> Self {
        Self { base: dir.into(), below: PathBuf::new(), foreign: false }
    }

    /// `below` in a user's home.
    pub fn of_user(home: impl Into<PathBuf>, below: impl Into<PathBuf>) -> Self {
        Self { base: home.into(), below: below.into(), foreign: true }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        if self.below.as_os_str().is_empty() { self.base.clone() } else { self.base.join(&self.below) }
    }

    /// `name` is there; an empty `name` is this directory itself.
    pub fn holds(&self, name: &Path) -> bool {
        self.open(&Path::new(".").join(name), OFlags::PATH).is_ok()
    }

    /// It is there, and this process may not look into it.
    pub fn is_closed(&self) -> bool {
        matches!(self.open(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY), Err(FileError::Io(error))
            if error.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// How much of a list of containers is read here.
    pub fn list_max_bytes(&self) -> u64 {
        if self.foreign { USERS_LIST_MAX_BYTES } else { LIST_MAX_BYTES }
    }

    /// When `name` was last written, in nanoseconds since 1970.
    pub fn modified_ns(&self, name: &Path) -> Option<i128> {
        let file = self.open(name, OFlags::PATH).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        Some(i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec))
    }

    fn open(&self, name: &Path, flags: OFlags) -> Result<OwnedFd, FileError> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::openat(CWD, &self.base, directory, Mode::empty()).map_err(refusal)?;
        let mount = kind_and_mount(&at)?.1;
        let path = self.below.join(name);
        let mut parts = path.components().filter(|part| *part != Component::CurDir).peekable();
        if parts.peek().is_none() {
            return rustix::fs::openat(at, c".", flags | OFlags::CLOEXEC, Mode::empty()).map_err(refusal);
        }
        // One name after the other: `openat2` could do it in one call, but systemd takes that away from a service
        // with `RestrictSUIDSGID=`.
        // What is on another mount is not even opened: a file system that its user serves may keep that waiting for ever.
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for part in parts {
            let Component::Normal(part) = part else { return Err(FileError::Astray) };
            at = rustix::fs::openat(at, part, look, Mode::empty()).map_err(refusal)?;
            let (kind, its_mount) = kind_and_mount(&at)?;
            if kind == FileType::Symlink || self.foreign && its_mount != mount {
                return Err(FileError::Astray);
            }
        }
        if flags.contains(OFlags::PATH) {
            return Ok(at);
        }
        // The very one that was looked at, whatever has its name by now.
        let same = format!("/proc/self/fd/{}", at.as_raw_fd());
        rustix::fs::openat(CWD, same, flags | OFlags::CLOEXEC, Mode::empty()).map_err(refusal)
    }

    /// The bytes of the regular file `name` below this directory, if they are `max` or fewer.
    pub fn read(&self, name: &Path, max: u64) -> Result<Vec<u8>, FileError> {
        // A FIFO is refused by what it is, and must not block before that.
        let file = self.open(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&file).map_err(refusal)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(FileError::NotRegular);
        }
        let mut bytes = Vec::new();
        File::from(file).take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > max) {
            return Err(FileError::TooLarge(max));
        }
        Ok(bytes)
    }

    /// The file `name` below this directory, as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &Path, max: u64) -> Result<T, FileError> {
        Ok(serde_json::from_slice(&self.read(name, max)?)?)
    }

    /// At most `max` names in the directory `name`.
    pub fn list(&self, name: &Path, max: usize) -> Vec<String> {
        let Ok(dir) = self.open(name, OFlags::RDONLY | OFlags::DIRECTORY) else { return Vec::new() };
        let Ok(entries) = rustix::fs::Dir::new(dir) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| name != "." && name != "..")
            .take(max)
            .collect()
    }
}

/// What is open, and on which mount it is: as the kernel knows it, its file system is not asked.
fn kind_and_mount(file: &OwnedFd) -> Result<(FileType, u64), FileError> {
    let wanted = StatxFlags::TYPE | StatxFlags::MNT_ID;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(file, c"", flags, wanted).map_err(refusal)?;
    Ok((FileType::from_raw_mode(u32::from(stat.stx_mode)), stat.stx_mnt_id))
}

fn refusal(errno: Errno) -> FileError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => FileError::Absent,
        Errno::LOOP | Errno::XDEV => FileError::Astray,
        // What opening a socket, or a device without a driver, says.
        Errno::NXIO | Errno::NODEV => FileError::NotRegular,
        other => FileError::Io(other.into()),
    }
}

/// The first [`FILE_MAX_BYTES`] of a file of the host's own set-up, links followed; `None` where it cannot be read.
pub fn host_file(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    File::from(file).take(FILE_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn no_mount_is_crossed_in_a_users_directory() {
        let version = Path::new("version");
        assert!(
            StateDir::of_user("/", "proc")
                .read(version, 4096)
                .is_err_and(|why| matches!(why, FileError::Astray))
        );
        assert!(!StateDir::of_user("/", "proc").holds(version));
        assert!(!StateDir::of_user("/proc", "").read(version, 4096).unwrap().is_empty());
        assert!(!StateDir::system("/").read(Path::new("proc/version"), 4096).unwrap().is_empty());
    }

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
}

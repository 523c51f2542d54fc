//! Knows which file systems answer by themselves, from `/proc/self/mountinfo`. Refuses the others before a
//! request is made.
//!
//! A request to a file system that is served by another program or machine (FUSE, NFS, autofs) may wait for
//! ever, in a state that no signal ends. No call here makes such a request.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host::files::FileError;

/// File systems that need only this kernel and a disk.
const ANSWERING: [&str; 21] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "tmpfs", "devtmpfs", "ramfs", "rootfs", "zfs", "f2fs",
    "erofs", "squashfs", "bcachefs", "jfs", "nilfs2", "reiserfs", "vfat", "iso9660", "aufs",
];
/// The limit for a line: a path or two and some options. A longer line is not read, and its mount is refused.
const LINE_MAX: u64 = 64 << 10;
/// Changed mounts are read again after this at the earliest, and after this many times the duration of the
/// last read.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 20;
/// Types whose names are kept. For more types, the error does not name the type.
const TYPES_MAX: usize = 64;

thread_local! {
    /// One for each thread, so that no thread waits for another.
    static MOUNTS: RefCell<Option<Mounts>> = const { RefCell::new(None) };
}

/// Calls `what` with the current mounts.
pub(super) fn with<T>(what: impl FnOnce(&mut Mounts) -> Result<T, FileError>) -> Result<T, FileError> {
    MOUNTS.with_borrow_mut(|mounts| {
        let mounts = match mounts {
            Some(mounts) => {
                mounts.refresh()?;
                mounts
            }
            None => mounts.insert(Mounts::read()?),
        };
        what(mounts)
    })
}

/// The mounts of this process.
#[derive(Debug)]
pub(super) struct Mounts {
    info: File,
    /// The ids of mounts that answer.
    answering: HashSet<u64>,
    /// Mounts that may not answer: the hash of the mount point, and the index of the type's name.
    refused: HashMap<u64, usize>,
    types: Vec<Box<str>>,
    hasher: RandomState,
    changed: bool,
    not_before: Instant,
}

impl Mounts {
    fn read() -> Result<Self, FileError> {
        let mut mounts = Self {
            info: File::open("/proc/self/mountinfo")?,
            answering: HashSet::new(),
            refused: HashMap::new(),
            types: Vec::new(),
            hasher: RandomState::new(),
            changed: false,
            not_before: Instant::now(),
        };
        mounts.read_again()?;
        Ok(mounts)
    }

    /// Reads the mounts again if they have changed, but not more often than the pause allows.
    fn refresh(&mut self) -> Result<(), FileError> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.info, PollFlags::PRI)];
        self.changed |= poll(&mut polled, Some(&now)).is_ok_and(|changed| changed > 0);
        if self.changed && Instant::now() >= self.not_before { self.read_again() } else { Ok(()) }
    }

    fn read_again(&mut self) -> Result<(), FileError> {
        let began = Instant::now();
        self.changed = false;
        self.answering.clear();
        self.refused.clear();
        self.types.clear();
        let mut info = self.info.try_clone()?;
        info.seek(SeekFrom::Start(0))?;
        let mut info = BufReader::with_capacity(16 << 10, info);
        let mut line = Vec::new();
        loop {
            line.clear();
            if info.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if let Some(mount) = parse(&line) {
                self.add(&mount);
            }
        }
        let pause = PAUSE.max(began.elapsed().saturating_mul(PAUSE_FACTOR));
        self.not_before = Instant::now() + pause;
        Ok(())
    }

    fn add(&mut self, mount: &Mount<'_>) {
        // If the root file system does not answer, the whole host hangs.
        if mount.point == b"/" || ANSWERING.iter().any(|name| name.as_bytes() == mount.kind) {
            self.answering.insert(mount.id);
            return;
        }
        let name = String::from_utf8_lossy(mount.kind);
        let known = self.types.iter().position(|kind| **kind == *name);
        let at = known.unwrap_or(self.types.len());
        if known.is_none() && at < TYPES_MAX {
            self.types.push(name.into());
        }
        self.refused.insert(self.hasher.hash_one(&mount.point), at);
    }

    /// Checks that the file system mounted at `path` answers. All links in the path must be resolved.
    ///
    /// # Errors [`FileError::Served`].
    pub(super) fn at(&self, path: &[u8]) -> Result<(), FileError> {
        match self.refused.get(&self.hasher.hash_one(path)) {
            Some(at) => Err(FileError::Served(self.types.get(*at).map_or("another", |kind| kind).to_owned())),
            None => Ok(()),
        }
    }

    /// Checks that the mount with this id, which is open already, answers.
    ///
    /// # Errors [`FileError::Served`].
    pub(super) fn answers(&mut self, id: u64) -> Result<(), FileError> {
        if !self.answering.contains(&id) {
            // It may have been mounted since.
            self.read_again()?;
        }
        if self.answering.contains(&id) { Ok(()) } else { Err(FileError::Served("another".to_owned())) }
    }
}

/// A line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    id: u64,
    point: Vec<u8>,
    kind: &'a [u8],
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: id, parent, device, root, mount point,
/// options, any number of optional fields up to a hyphen, type.
fn parse(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.strip_suffix(b"\n")?.split(|byte| *byte == b' ');
    let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescaped(fields.nth(3)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { id, point, kind })
}

/// Blanks, newlines and backslashes in a path are written like `\040`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let byte = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = byte.and_then(|_| after.get(3..)).unwrap_or(after);
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_read_whatever_its_path_is_called() {
        let line =
            b"66 27 0:52 / /home/a\\040b\\134c rw,nosuid shared:7 master:2 - fuse.sshfs a:/ rw,user_id=0\n";
        assert_eq!(
            parse(line).unwrap(),
            Mount { id: 66, point: b"/home/a b\\c".to_vec(), kind: b"fuse.sshfs" }
        );
        let plain = parse(b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n").unwrap();
        assert_eq!((plain.id, plain.point.as_slice(), plain.kind), (27, &b"/"[..], &b"ext4"[..]));
        // The line is cut off, so its content is not certain.
        assert_eq!(parse(b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"), None);
        assert_eq!(parse(b"27 1 254:0 / /\n"), None);
    }

    #[test]
    fn this_hosts_own_are_told_apart() {
        let mounts = Mounts::read().unwrap();
        assert!(mounts.at(b"/").is_ok() && mounts.at(b"/etc").is_ok());
        assert!(matches!(mounts.at(b"/proc"), Err(FileError::Served(kind)) if kind == "proc"));
        assert!(matches!(Mounts::read().unwrap().answers(u64::MAX), Err(FileError::Served(_))));
    }

    proptest! {
        #[test]
        fn any_line_is_safe(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}

//! A switch of `/proc/sys`, read when its value is needed, through a descriptor that stays open: one system call.
//!
//! The value is not cached: the kernel reports no change, and a watch on the file misses changes through
//! another mount of `/proc`.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// A switch.
#[derive(Debug)]
pub struct Sysctl(File);

impl Sysctl {
    /// Opens the file of a switch.
    ///
    /// # Errors
    /// If this kernel has no such switch, or it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Whether its value is not 0 now; `None` if it cannot be read.
    pub fn is_set(&self) -> Option<bool> {
        let mut bytes = [0; 32];
        let len = self.0.read_at(&mut bytes, 0).ok()?;
        let text = bytes.get(..len)?.trim_ascii();
        (!text.is_empty()).then(|| text != b"0")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    #[test]
    fn it_is_as_it_is_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("switch");
        assert!(Sysctl::open(&path).is_err());
        fs::write(&path, "0\n").unwrap();
        let switch = Sysctl::open(&path).unwrap();
        assert_eq!(switch.is_set(), Some(false));
        fs::write(&path, "1\n").unwrap();
        assert_eq!(switch.is_set(), Some(true));
        fs::write(&path, "").unwrap();
        assert_eq!(switch.is_set(), None);
    }
}

//! How full the host is: `/proc/meminfo`, read when that is needed, through a descriptor that stays open.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// The file.
#[derive(Debug)]
pub struct MemInfo(File);

/// What it says, in bytes. Absent is what this kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFull {
    /// `MemTotal`.
    pub total: Option<u64>,
    /// `MemAvailable`.
    pub available: Option<u64>,
    /// `SwapTotal`.
    pub swap_total: Option<u64>,
    /// `SwapFree`.
    pub swap_free: Option<u64>,
}

impl MemInfo {
    /// Opens it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// What it says now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> io::Result<HostFull> {
        let mut bytes = [0; 4096];
        let len = self.0.read_at(&mut bytes, 0)?;
        let mut full = HostFull::default();
        for line in bytes.get(..len).unwrap_or_default().split(|byte| *byte == b'\n') {
            let Some((key, value)) = str::from_utf8(line).ok().and_then(|line| line.split_once(':')) else {
                continue;
            };
            let to = match key {
                "MemTotal" => &mut full.total,
                "MemAvailable" => &mut full.available,
                "SwapTotal" => &mut full.swap_total,
                "SwapFree" => &mut full.swap_free,
                _ => continue,
            };
            *to = kibibytes(value);
        }
        Ok(full)
    }
}

fn kibibytes(value: &str) -> Option<u64> {
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    #[test]
    fn what_the_file_says_now_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meminfo");
        assert!(MemInfo::open(&path).is_err());
        fs::write(&path, "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:  20 kB\nSwapTotal: 0 kB\n")
            .unwrap();
        let file = MemInfo::open(&path).unwrap();
        let (total, available) = (Some(1_024_000), Some(20_480));
        assert_eq!(file.read().unwrap(), HostFull { total, available, swap_total: Some(0), swap_free: None });
        // Neither a number that is none, nor one in other units.
        fs::write(&path, "MemTotal: 99999999999999999999 kB\nMemAvailable: 20\nSwapTotal\nSwapFree: -1 kB\n")
            .unwrap();
        assert_eq!(file.read().unwrap(), HostFull::default());
        let own = MemInfo::open(Path::new("/proc/meminfo")).unwrap().read().unwrap();
        assert!(own.available <= own.total && own.total > Some(0) && own.swap_free.is_some(), "{own:?}");
    }
}

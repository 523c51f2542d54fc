//! How full the host is: `/proc/meminfo`, read when that is needed, through a descriptor that stays open.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use crate::event::{HostEvidence, HostTotals, Lru};

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
        let said = self.said()?;
        Ok(HostFull {
            total: said.of("MemTotal"),
            available: said.of("MemAvailable"),
            swap_total: said.of("SwapTotal"),
            swap_free: said.of("SwapFree"),
        })
    }

    /// What the memory of the host is now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn totals(&self) -> io::Result<HostTotals> {
        let said = self.said()?;
        let of = |key: &str| said.of(key);
        let sum = |keys: &[&str]| keys.iter().try_fold(0u64, |sum, key| sum.checked_add(of(key)?));
        Ok(HostTotals {
            evidence: HostEvidence::Meminfo,
            total_bytes: of("MemTotal"),
            free_bytes: of("MemFree"),
            lru: Lru {
                anon_bytes: sum(&["Active(anon)", "Inactive(anon)"]),
                file_bytes: sum(&["Active(file)", "Inactive(file)"]),
                unevictable_bytes: of("Unevictable"),
            },
            file_bytes: sum(&["Buffers", "Cached", "SwapCached"]),
            shmem_bytes: of("Shmem"),
            slab_reclaimable_bytes: of("SReclaimable"),
            slab_unreclaimable_bytes: of("SUnreclaim"),
            pagetables_bytes: of("PageTables"),
            kernel_stack_bytes: of("KernelStack"),
            vmalloc_bytes: of("VmallocUsed"),
            percpu_bytes: of("Percpu"),
            hugetlb_bytes: of("Hugetlb"),
            swap_total_bytes: of("SwapTotal"),
            swap_free_bytes: of("SwapFree"),
            unexplained_bytes: None,
        })
    }

    fn said(&self) -> io::Result<Said> {
        let mut bytes = [0; 4096];
        let len = self.0.read_at(&mut bytes, 0)?;
        Ok(Said { bytes, len })
    }
}

/// The text of the file.
struct Said {
    bytes: [u8; 4096],
    len: usize,
}

impl Said {
    /// The value of a key, in bytes.
    fn of(&self, wanted: &str) -> Option<u64> {
        let lines = self.bytes.get(..self.len)?.split(|byte| *byte == b'\n');
        let mut pairs = lines.filter_map(|line| str::from_utf8(line).ok()?.split_once(':'));
        pairs.find(|(key, _)| *key == wanted).and_then(|(_, value)| kibibytes(value))
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

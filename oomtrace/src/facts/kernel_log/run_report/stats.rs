//! The keys of `memory.stat`, which the kernel's report has too: by the names of cgroup v2, or of v1.

use crate::event::{CgroupMemory, Lru, MemoryEvidence};

/// A key that is reported. Of v1 those that include the cgroups below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Anon,
    File,
    Shmem,
    Kernel,
    KernelStack,
    Pagetables,
    SlabReclaimable,
    SlabUnreclaimable,
    Sock,
    Percpu,
    Dirty,
    Writeback,
    InactiveAnon,
    ActiveAnon,
    InactiveFile,
    ActiveFile,
    Unevictable,
}

/// How many there are.
const NAMES: usize = Name::Unevictable as usize + 1;

/// The names of v2, which v1 also has before about 6.9.
const V2: [(&[u8], Name); NAMES] = [
    (b"anon", Name::Anon),
    (b"file", Name::File),
    (b"shmem", Name::Shmem),
    (b"kernel", Name::Kernel),
    (b"kernel_stack", Name::KernelStack),
    (b"pagetables", Name::Pagetables),
    (b"slab_reclaimable", Name::SlabReclaimable),
    (b"slab_unreclaimable", Name::SlabUnreclaimable),
    (b"sock", Name::Sock),
    (b"percpu", Name::Percpu),
    (b"file_dirty", Name::Dirty),
    (b"file_writeback", Name::Writeback),
    (b"inactive_anon", Name::InactiveAnon),
    (b"active_anon", Name::ActiveAnon),
    (b"inactive_file", Name::InactiveFile),
    (b"active_file", Name::ActiveFile),
    (b"unevictable", Name::Unevictable),
];

/// The names of v1. Without `total_`, a key of v1 does not count the cgroups below.
const V1: [(&[u8], Name); 10] = [
    (b"total_rss", Name::Anon),
    (b"total_cache", Name::File),
    (b"total_shmem", Name::Shmem),
    (b"total_dirty", Name::Dirty),
    (b"total_writeback", Name::Writeback),
    (b"total_inactive_anon", Name::InactiveAnon),
    (b"total_active_anon", Name::ActiveAnon),
    (b"total_inactive_file", Name::InactiveFile),
    (b"total_active_file", Name::ActiveFile),
    (b"total_unevictable", Name::Unevictable),
];

/// What the keys say.
#[derive(Debug, Default)]
pub(super) struct Values {
    v2: [Option<u64>; NAMES],
    v1: [Option<u64>; NAMES],
    /// A key of v1 alone was there, so those without `total_` do not count the cgroups below.
    is_v1: bool,
    /// A key came twice with different numbers.
    contradicts: bool,
}

/// A key of a line, and of which version it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    V1(Name),
    V2(Name),
    /// `cache` is the first line of v1.
    Cache,
}

/// `KEY NUMBER`, if it is a key that is reported.
pub(super) fn key(line: &[u8]) -> Option<(Key, u64)> {
    let blank = line.iter().position(|byte| *byte == b' ')?;
    let (name, number) = (line.get(..blank)?, line.get(blank + 1..)?);
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = str::from_utf8(number).ok()?.parse().ok()?;
    let of = |names: &[(&[u8], Name)]| names.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
    let key = match (of(&V2), of(&V1)) {
        (Some(key), _) => Key::V2(key),
        (None, Some(key)) => Key::V1(key),
        (None, None) if name == b"cache" => Key::Cache,
        (None, None) => return None,
    };
    Some((key, number))
}

impl Values {
    pub(super) fn set(&mut self, key: Key, number: u64) {
        let place = match key {
            Key::V2(name) => self.v2.get_mut(name as usize),
            Key::V1(name) => {
                self.is_v1 = true;
                self.v1.get_mut(name as usize)
            }
            Key::Cache => {
                self.is_v1 = true;
                None
            }
        };
        if let Some(place) = place {
            self.contradicts |= place.is_some_and(|known| known != number);
            *place = Some(number);
        }
    }

    /// The memory; `None` if not even its first keys are there, or they contradict each other. `kmem_bytes` is
    /// v1's counter of the kernel's own memory.
    pub(super) fn memory(&self, kmem_bytes: Option<u64>) -> Option<CgroupMemory> {
        let values = if self.is_v1 { &self.v1 } else { &self.v2 };
        let of = |name: Name| values.get(name as usize).copied().flatten();
        let sum =
            |one, other| of(one).zip(of(other)).map(|(one, other): (u64, u64)| one.saturating_add(other));
        if self.contradicts || of(Name::Anon).is_none() || of(Name::File).is_none() {
            return None;
        }
        Some(CgroupMemory {
            evidence: MemoryEvidence::KernelLog,
            anon_bytes: of(Name::Anon),
            file_bytes: of(Name::File),
            shmem_bytes: of(Name::Shmem),
            kernel_bytes: of(Name::Kernel).or(kmem_bytes),
            kernel_stack_bytes: of(Name::KernelStack),
            pagetables_bytes: of(Name::Pagetables),
            slab_reclaimable_bytes: of(Name::SlabReclaimable),
            slab_unreclaimable_bytes: of(Name::SlabUnreclaimable),
            sock_bytes: of(Name::Sock),
            percpu_bytes: of(Name::Percpu),
            file_dirty_bytes: of(Name::Dirty),
            file_writeback_bytes: of(Name::Writeback),
            lru: Lru {
                anon_bytes: sum(Name::InactiveAnon, Name::ActiveAnon),
                file_bytes: sum(Name::InactiveFile, Name::ActiveFile),
                unevictable_bytes: of(Name::Unevictable),
            },
        })
    }
}

/// The memory in the text of a cgroup's `memory.stat`. `kmem_bytes` as in the report.
pub fn stats(text: &[u8], kmem_bytes: Option<u64>) -> Option<CgroupMemory> {
    let mut values = Values::default();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some((key, number)) = key(line) {
            values.set(key, number);
        }
    }
    Some(CgroupMemory { evidence: MemoryEvidence::Cgroupfs, ..values.memory(kmem_bytes)? })
}

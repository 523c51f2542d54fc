//! The block `Mem-Info:` of the kernel's report, where no cgroup's limit fired: the memory of the whole host before the kill
//! (`show_free_areas`).

use crate::event::{HostEvidence, HostTotals, Lru};

/// What the lines say. Counts of the first lines are pages.
#[derive(Debug, Default)]
pub(super) struct MemInfo {
    pages: [Option<u64>; NAMES],
    pagecache_pages: Option<u64>,
    swap_free_bytes: Option<u64>,
    swap_total_bytes: Option<u64>,
    zones: Option<Zones>,
    /// A line of a zone is not whole, or a key came twice with different numbers.
    broken: bool,
}

/// The zones that the allocation could use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Free memory in them.
    pub free_bytes: u64,
    /// Together what the kernel keeps for itself: `min`.
    pub min_bytes: u64,
}

/// Keys of the first lines.
const KEYS: [&[u8]; NAMES] = [
    b"active_anon",
    b"inactive_anon",
    b"isolated_anon",
    b"active_file",
    b"inactive_file",
    b"isolated_file",
    b"unevictable",
    b"slab_reclaimable",
    b"slab_unreclaimable",
    b"shmem",
    b"pagetables",
    b"free",
    b"free_pcp",
];
const NAMES: usize = 13;

impl MemInfo {
    /// Takes a line of the block.
    pub(super) fn line(&mut self, text: &[u8]) {
        if let Some(rest) = text.strip_prefix(b"Node ") {
            self.zone(rest);
        } else if text.starts_with(b"active_anon:") {
            for (key, value) in words(text) {
                if let Some(place) = KEYS.iter().position(|name| *name == key)
                    && let Some(place) = self.pages.get_mut(place)
                {
                    let value = number(value);
                    self.broken |= value.is_none() || place.is_some();
                    *place = value;
                }
            }
        } else if let Some(count) = text.strip_suffix(b" total pagecache pages") {
            self.pagecache_pages = number(count);
        } else if let Some(size) = text.strip_prefix(b"Free swap  = ") {
            self.swap_free_bytes = kibibytes(size);
        } else if let Some(size) = text.strip_prefix(b"Total swap = ") {
            self.swap_total_bytes = kibibytes(size);
        }
    }

    /// `NODE ZONE free:NkB … min:NkB …`. Other lines of a node have no `min:`.
    fn zone(&mut self, text: &[u8]) {
        let value = |wanted: &[u8]| words(text).find(|(key, _)| *key == wanted).map(|(_, value)| value);
        // Its beginning alone: another writer came between.
        self.broken |= !text.trim_ascii_end().contains(&b' ');
        let Some(min) = value(b"min") else { return };
        match (value(b"free").and_then(kibibytes), kibibytes(min)) {
            (Some(free), Some(min)) => {
                let zones = self.zones.get_or_insert_default();
                zones.free_bytes = zones.free_bytes.saturating_add(free);
                zones.min_bytes = zones.min_bytes.saturating_add(min);
            }
            _ => self.broken = true,
        }
    }

    /// The memory of the host; `None` if its first lines are not there. What the block does not have is absent.
    pub(super) fn totals(&self, page_bytes: u64) -> Option<HostTotals> {
        let bytes = |pages: u64| pages.checked_mul(page_bytes);
        let of = |key: &[u8]| {
            let at = KEYS.iter().position(|name| *name == key)?;
            self.pages.get(at).copied().flatten().and_then(bytes)
        };
        let sum = |keys: [&[u8]; 3]| keys.into_iter().try_fold(0u64, |sum, key| sum.checked_add(of(key)?));
        if self.broken {
            return None;
        }
        let free = of(b"free")?;
        Some(HostTotals {
            evidence: HostEvidence::KernelLog,
            free_bytes: of(b"free_pcp").and_then(|pcp| free.checked_add(pcp)),
            lru: Lru {
                anon_bytes: sum([b"active_anon", b"inactive_anon", b"isolated_anon"]),
                file_bytes: sum([b"active_file", b"inactive_file", b"isolated_file"]),
                unevictable_bytes: of(b"unevictable"),
            },
            file_bytes: self.pagecache_pages.and_then(bytes),
            shmem_bytes: of(b"shmem"),
            slab_reclaimable_bytes: of(b"slab_reclaimable"),
            slab_unreclaimable_bytes: of(b"slab_unreclaimable"),
            pagetables_bytes: of(b"pagetables"),
            swap_total_bytes: self.swap_total_bytes,
            swap_free_bytes: self.swap_free_bytes,
            ..HostTotals::default()
        })
    }

    /// The zones, if all their lines were whole.
    pub(super) fn zones(&self) -> Option<Zones> {
        self.zones.filter(|_| !self.broken)
    }
}

/// `KEY:VALUE` between blanks and newlines.
fn words(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(u8::is_ascii_whitespace).filter_map(|word| {
        let colon = word.iter().position(|byte| *byte == b':')?;
        Some((word.get(..colon)?, word.get(colon + 1..)?))
    })
}

fn kibibytes(text: &[u8]) -> Option<u64> {
    number(text.strip_suffix(b"kB")?)?.checked_mul(1024)
}

fn number(text: &[u8]) -> Option<u64> {
    // Not what `parse` also takes: a sign.
    let digits = text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

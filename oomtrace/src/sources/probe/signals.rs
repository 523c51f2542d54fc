//! Signals that end processes: their ring, and the map in which the programs go on counting.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use oomtrace_common::record::{SignalGroup, SignalKey};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    facts::BootTime,
    sources::probe::{ProbeError, Ring, error::chain},
};

/// A key and a value as the map's bytes.
pub(super) type GroupMap = HashMap<MapData, [u64; KEY_WORDS], [u64; GROUP_WORDS]>;

const KEY_WORDS: usize = size_of::<SignalKey>() / 8;
const GROUP_WORDS: usize = size_of::<SignalGroup>() / 8;

/// The ring of signals, and how many there were.
pub struct Signals {
    /// Each record is the first signal of a group.
    pub ring: Ring,
    /// How many signals a group has.
    pub groups: SignalGroups,
}

impl Signals {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        const NAME: &str = "SIGNAL_GROUPS";
        let error = |reason: String, os| ProbeError::Ring { name: NAME, reason, os };
        let map = ebpf.take_map(NAME).ok_or_else(|| error("no such map".into(), None))?;
        let groups = GroupMap::try_from(map).map_err(|failed| {
            let (reason, os) = chain(&failed);
            error(reason, os)
        })?;
        Ok(Self { ring: Ring::take(ebpf, "SIGNALS")?, groups: SignalGroups(groups) })
    }

    /// Those that were pinned.
    pub(super) fn reopened(ring: Ring, groups: GroupMap) -> Self {
        Self { ring, groups: SignalGroups(groups) }
    }
}

/// Counts of signals that belong together.
pub struct SignalGroups(GroupMap);

impl SignalGroups {
    /// How many signals the group of this key has that began then; `None` if it has made room for others.
    pub fn count(&self, key: &SignalKey, began: BootTime) -> Option<u64> {
        let key = <[u64; KEY_WORDS]>::read_from_bytes(key.as_bytes()).ok()?;
        let words = self.0.get(&key, 0).ok()?;
        let group = SignalGroup::read_from_bytes(words.as_bytes()).ok()?;
        match began.0 {
            began if began == group.began_ns => Some(group.count),
            began if began == group.began_ns_before => Some(group.count_before),
            _ => None,
        }
    }
}

/// The sizes of a pinned map's key and value.
pub(super) const GROUP_SIZES: (u32, u32) = (24, 32);
const _: () = assert!(size_of::<SignalKey>() == 24 && size_of::<SignalGroup>() == 32);

//! The only parser of raw bytes: turns a record of a ring buffer into facts, in bytes and nanoseconds.
//!
//! It never fails because of a fact, only because of a record: a fact whose `present` bit is clear is `None`.
//! Any input is possible (a pinned ring of another build, a recording), and none ends the process.

mod counters;
pub mod kernel_log;
mod oom_control;
mod oom_without_kill;
mod own;
mod parts;
mod recording;
mod records;
mod ring_fill;
mod sample;
mod signal_kill;

use oomtrace_common::record::{
    self as wire, COMM_LEN, FLAG_COMMAND_LINE_CUT, FLAG_LEVELS_CUT, FLAG_PATH_CUT, FLAG_PID_ONLY,
    FLAG_SIGNALLED, FLAG_SIGNALS_FOLLOWED, level_fact, memory_fact, oc_fact, task_fact,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

pub use counters::Counters;
pub use oom_control::{Found, OomControlLayout, OomControlSearch, StackFacts};
pub use oom_without_kill::OomWithoutKill;
pub use recording::recording;
pub use records::{
    BootTime, CgroupChange, CgroupChangeKind, CgroupId, CommandLine, Limit, Lineage, LruFacts, MemcgFacts,
    MemcgOomFacts, MemoryFacts, OomControlFacts, OomKillFacts, Record, SharedMmKillFacts, TaskFacts,
    TasksFacts,
};
pub use ring_fill::RingFill;
pub use sample::{Removed, SampleFacts, removed};
pub use signal_kill::{SignalKillFacts, SigtermFacts};

use crate::event::{Evidence, MemoryEvents};

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too short for its kind.
    #[error("record of kind {kind} has {len} bytes, at least {needed} are needed")]
    Short {
        /// Its kind; 0 if even that is missing.
        kind: u32,
        /// Its length.
        len: usize,
        /// What it needs.
        needed: usize,
    },
    /// Not a kind this version knows.
    #[error("record of unknown kind {0}")]
    UnknownKind(u32),
    /// The length in its header is not its real length.
    #[error("record of kind {kind} says {says} bytes and has {len}")]
    Length {
        /// Its kind.
        kind: u32,
        /// The length in its header.
        says: u32,
        /// Its real length.
        len: usize,
    },
}

/// Reads records of a kernel with this page size.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    page_bytes: u64,
}

impl Decoder {
    /// A decoder for pages of `page_bytes`.
    pub fn new(page_bytes: u64) -> Self {
        Self { page_bytes }
    }

    /// Reads one record.
    pub fn record(&self, bytes: &[u8]) -> Result<Record, DecodeError> {
        let header = prefix::<wire::Header>(0, bytes)?;
        let kind = header.kind;
        // The ring rounds the size of a record up to 8 bytes. The header has the real size.
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let bytes =
            bytes.get(..len).ok_or(DecodeError::Length { kind, says: header.len, len: bytes.len() })?;
        match kind {
            wire::KIND_OOM_KILL => self.oom_kill(bytes).map(|facts| Record::OomKill(Box::new(facts))),
            wire::KIND_SHARED_MM_KILL => {
                let raw = prefix::<wire::SharedMmKill>(kind, bytes)?;
                Ok(Record::SharedMmKill(SharedMmKillFacts {
                    seq: raw.header.seq,
                    time: BootTime(raw.header.boot_time_ns),
                    of: raw.of,
                    task: task(&raw.task),
                }))
            }
            wire::KIND_MEMCG_OOM => self.memcg_oom(bytes).map(|facts| Record::MemcgOom(Box::new(facts))),
            wire::KIND_SIGNAL_KILL => {
                signal_kill::signal_kill(self, bytes).map(|facts| Record::SignalKill(Box::new(facts)))
            }
            wire::KIND_CGROUP_MKDIR => cgroup_change(bytes, CgroupChangeKind::Made),
            wire::KIND_CGROUP_RMDIR => cgroup_change(bytes, CgroupChangeKind::Removed),
            wire::KIND_CGROUP_RENAME => cgroup_change(bytes, CgroupChangeKind::Renamed),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }

    fn oom_kill(&self, bytes: &[u8]) -> Result<OomKillFacts, DecodeError> {
        let (mut raw, parts) = parts::of_kill(bytes)?;
        if raw.flags & FLAG_PID_ONLY != 0 {
            raw.victim.present &= task_fact::IDS;
            raw.tasks.present = 0;
            raw.lru.present = 0;
        }
        let mut victim = task(&raw.victim);
        if raw.flags & FLAG_PID_ONLY != 0 {
            // The old tracepoint passes only a thread, and its process was not found.
            victim.tgid = None;
        }
        // Without the victim's task it is not known which process got the SIGKILL.
        let followed = raw.flags & FLAG_SIGNALS_FOLLOWED != 0 && raw.flags & FLAG_PID_ONLY == 0;
        Ok(OomKillFacts {
            seq: raw.header.seq,
            time: BootTime(raw.header.boot_time_ns),
            run: (raw.run != 0).then_some(raw.run),
            victim,
            memory: self.memory(&raw.memory),
            tasks: own::tasks(&raw.tasks),
            lru: self.lru(&raw.lru),
            trigger: task(&raw.trigger),
            oom: self.oom_control(&raw.oom),
            command_line: (!parts.command_line.is_empty()).then(|| CommandLine {
                arguments: parts.command_line.to_vec(),
                cut: raw.flags & FLAG_COMMAND_LINE_CUT != 0,
            }),
            signalled: followed.then_some(raw.flags & FLAG_SIGNALLED != 0),
            stack: stack(&raw.stack, &parts),
            lineage: self.lineage(&raw.lineage, &parts.levels, parts.path),
        })
    }

    fn memcg_oom(&self, bytes: &[u8]) -> Result<MemcgOomFacts, DecodeError> {
        const LEVELS: usize = std::mem::offset_of!(wire::MemcgOom, levels);
        let raw = prefix_zero_filled::<wire::MemcgOom>(bytes, LEVELS)?;
        // A level counts only if its bytes were sent: the record ends with them.
        let sent = (bytes.len() - LEVELS) / size_of::<wire::MemcgLevel>();
        let count = usize::try_from(raw.lineage.level_count).unwrap_or(usize::MAX).min(sent);
        let levels = raw.levels.get(..count).unwrap_or(&raw.levels);
        Ok(MemcgOomFacts {
            seq: (raw.header.seq != 0).then_some(raw.header.seq),
            time: BootTime(raw.header.boot_time_ns),
            trigger: task(&raw.trigger),
            oom: self.oom_control(&raw.oom),
            outcome: raw.outcome,
            lineage: self.lineage(&raw.lineage, levels, first(&raw.path, raw.lineage.path_len)),
        })
    }

    fn pages(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_bytes)
    }

    /// Like the kernel's own `get_mm_counter`, this reads a negative per-CPU sum as 0.
    fn counter(&self, pages: i64) -> u64 {
        self.pages(u64::try_from(pages).unwrap_or(0))
    }

    fn memory(&self, raw: &wire::Memory) -> MemoryFacts {
        let has = |bit| raw.present & bit != 0;
        MemoryFacts {
            total_vm_bytes: has(memory_fact::TOTAL_VM).then(|| self.pages(raw.total_vm_pages)),
            anon_rss_bytes: has(memory_fact::ANON).then(|| self.counter(raw.anon_pages)),
            file_rss_bytes: has(memory_fact::FILE).then(|| self.counter(raw.file_pages)),
            shmem_rss_bytes: has(memory_fact::SHMEM).then(|| self.counter(raw.shmem_pages)),
            swap_bytes: has(memory_fact::SWAP).then(|| self.counter(raw.swap_entries)),
            pgtables_bytes: has(memory_fact::PGTABLES).then_some(raw.pgtables_bytes),
        }
    }

    /// The OOM killer's own state; `None` if nothing read it.
    pub fn oom_control(&self, raw: &wire::OomControl) -> Option<OomControlFacts> {
        let evidence = match raw.source {
            wire::SOURCE_FENTRY => Evidence::Fentry,
            wire::SOURCE_KPROBE => Evidence::Kprobe,
            wire::SOURCE_STACK => Evidence::Stack,
            _ => return None,
        };
        let has = |bit| raw.present & bit != 0;
        let memcg = if has(oc_fact::GLOBAL) {
            Some(None)
        } else {
            has(oc_fact::MEMCG).then_some(Some(CgroupId(raw.oom_memcg_id)))
        };
        let page_bytes = i64::try_from(self.page_bytes).unwrap_or(i64::MAX);
        Some(OomControlFacts {
            evidence,
            memcg,
            domain_bytes: has(oc_fact::TOTAL_PAGES).then(|| self.pages(raw.total_pages)),
            oom_score_bytes: has(oc_fact::CHOSEN_POINTS)
                .then(|| raw.chosen_points.saturating_mul(page_bytes)),
            gfp_mask: has(oc_fact::GFP_MASK).then_some(raw.gfp_mask),
            order: has(oc_fact::ORDER).then_some(raw.order),
            constraint: has(oc_fact::CONSTRAINT).then_some(raw.constraint),
            message: has(oc_fact::MESSAGE).then(|| until_nul(&raw.message)),
        })
    }

    fn lineage(&self, raw: &wire::Lineage, levels: &[wire::MemcgLevel], path: &[u8]) -> Lineage {
        if raw.level_count == 0 {
            // Even a task of the root has a level. Without any level nothing was read, and an empty path is
            // not the root's.
            return Lineage { path_cut: true, levels_cut: true, ..Lineage::default() };
        }
        Lineage {
            levels: levels.iter().map(|level| self.level(level)).collect(),
            path: whole_path(path),
            path_cut: raw.flags & FLAG_PATH_CUT != 0,
            levels_cut: raw.flags & FLAG_LEVELS_CUT != 0,
        }
    }

    fn level(&self, raw: &wire::MemcgLevel) -> MemcgFacts {
        let has = |bit| raw.present & bit != 0;
        let event = |index: usize| {
            let bit = level_fact::EVENTS << index;
            raw.events.get(index).copied().filter(|_| has(bit))
        };
        MemcgFacts {
            id: CgroupId(raw.cgroup_id),
            usage_bytes: has(level_fact::USAGE).then(|| self.pages(raw.usage_pages)),
            max: has(level_fact::MAX).then(|| self.limit(raw.max_pages)),
            watermark_bytes: has(level_fact::WATERMARK).then(|| self.pages(raw.watermark_pages)),
            swap_usage_bytes: has(level_fact::SWAP_USAGE).then(|| self.pages(raw.swap_usage_pages)),
            swap_max: has(level_fact::SWAP_MAX).then(|| self.limit(raw.swap_max_pages)),
            oom_group: has(level_fact::OOM_GROUP).then_some(raw.oom_group != 0),
            events: MemoryEvents {
                low: event(0),
                high: event(1),
                max: event(2),
                oom: event(3),
                oom_kill: event(4),
                oom_group_kill: event(5),
            },
        }
    }

    fn limit(&self, pages: u64) -> Limit {
        Limit::of_pages(pages, self.page_bytes)
    }
}

fn prefix<T: FromBytes + KnownLayout + Immutable>(kind: u32, bytes: &[u8]) -> Result<T, DecodeError> {
    match T::read_from_prefix(bytes) {
        Ok((value, _)) => Ok(value),
        Err(_) => Err(DecodeError::Short { kind, len: bytes.len(), needed: size_of::<T>() }),
    }
}

/// Reads a record whose tail may be missing, down to `needed` bytes. The missing part is 0.
fn prefix_zero_filled<T: FromBytes + zerocopy::IntoBytes + KnownLayout + Immutable>(
    bytes: &[u8],
    needed: usize,
) -> Result<T, DecodeError> {
    let mut value = T::new_zeroed();
    let room = value.as_mut_bytes();
    if bytes.len() < needed {
        let kind = wire::Header::read_from_prefix(bytes).map_or(0, |(header, _)| header.kind);
        return Err(DecodeError::Short { kind, len: bytes.len(), needed });
    }
    for (to, from) in room.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(value)
}

/// What was copied of the kernel stack.
fn stack(raw: &wire::Stack, parts: &parts::Parts<'_>) -> Option<StackFacts> {
    (!parts.stack.is_empty()).then(|| StackFacts {
        at: raw.at,
        current: raw.current,
        task: raw.task,
        leader: raw.leader,
        memcgs: parts.levels.iter().map(|level| level.address).collect(),
        bytes: parts.stack.to_vec(),
    })
}

/// The first `len` bytes, or all if there are fewer.
fn first(bytes: &[u8], len: u32) -> &[u8] {
    bytes.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(bytes)
}

fn task(raw: &wire::Task) -> TaskFacts {
    let has = |bit| raw.present & bit != 0;
    TaskFacts {
        tid: has(task_fact::IDS).then_some(raw.tid),
        tgid: has(task_fact::IDS).then_some(raw.tgid),
        namespace_tgid: has(task_fact::NAMESPACE_TGID).then_some(raw.namespace_tgid),
        parent_tgid: has(task_fact::PARENT).then_some(raw.parent_tgid),
        uid: has(task_fact::UID).then_some(raw.uid),
        oom_score_adj: has(task_fact::OOM_SCORE_ADJ).then_some(raw.oom_score_adj),
        start: has(task_fact::START).then_some(BootTime(raw.start_boot_ns)),
        memcg: has(task_fact::MEMCG).then_some(CgroupId(raw.memcg_id)),
        comm: has(task_fact::COMM).then(|| until_nul::<COMM_LEN>(&raw.comm)),
    }
}

fn until_nul<const N: usize>(bytes: &[u8; N]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// Turns names, leaf first, each ended by NUL, into a path from the root.
fn whole_path(names: &[u8]) -> Vec<u8> {
    let names = names.strip_suffix(&[0]).unwrap_or(names);
    let mut path = Vec::with_capacity(names.len() + 1);
    if names.is_empty() {
        return vec![b'/'];
    }
    for name in names.rsplit(|byte| *byte == 0) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

fn cgroup_change(bytes: &[u8], kind: CgroupChangeKind) -> Result<Record, DecodeError> {
    let raw =
        prefix_zero_filled::<wire::CgroupChange>(bytes, std::mem::offset_of!(wire::CgroupChange, path))?;
    let path = first(&raw.path, raw.path_len);
    Ok(Record::Cgroup(CgroupChange {
        time: BootTime(raw.header.boot_time_ns),
        id: CgroupId(raw.cgroup_id),
        kind,
        path: path.iter().copied().take_while(|byte| *byte != 0).collect(),
    }))
}

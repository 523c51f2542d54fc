//! Records as the kernel side writes them, made by hand: every fact is present, each with a different value.

use oomtrace_common::record::{Lineage as Head, OomKill as KillHead, *};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `page_counter.max` without a limit, on 4 KiB pages: `LONG_MAX / PAGE_SIZE`.
pub const NO_LIMIT: u64 = i64::MAX as u64 / 4096;

/// A kill record whose parts have room for all that there can be.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct OomKill {
    pub header: Header,
    pub run: u64,
    pub victim: Task,
    pub trigger: Task,
    pub memory: Memory,
    pub oom: OomControl,
    pub flags: u32,
    pub command_line_len: u32,
    pub command_line: [u8; COMMAND_LINE_LEN],
    pub stack: Stack,
    pub lineage: Lineage,
    pub tasks: Tasks,
    pub lru: Lru,
}

/// A lineage whose parts have room for all that there can be.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Lineage {
    pub flags: u32,
    pub path_len: u32,
    pub level_count: u32,
    pub reserved: u32,
    pub path: [u8; PATH_LEN],
    pub levels: [MemcgLevel; MAX_LEVELS],
}

fn text<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text);
    bytes
}

/// A task in the cgroup `memcg`.
pub fn task(tgid: u32, comm: &[u8], memcg: u64) -> Task {
    Task {
        present: 0xff,
        tid: tgid,
        tgid,
        namespace_tgid: 7,
        parent_tgid: 90,
        uid: 1000,
        oom_score_adj: -17,
        reserved: 0,
        start_boot_ns: 5_000_000_000,
        memcg_id: memcg,
        comm: text(comm),
    }
}

/// A cgroup whose usage is at its limit.
pub fn level(cgroup_id: u64) -> MemcgLevel {
    MemcgLevel {
        cgroup_id,
        usage_pages: 1000,
        max_pages: 1000,
        watermark_pages: 1001,
        swap_usage_pages: 11,
        swap_max_pages: 12,
        events: [1, 2, 3, 4, 5, 6],
        address: 0,
        oom_group: 0,
        present: 0x3f3f,
    }
}

/// A cgroup without any limit.
pub fn unlimited(cgroup_id: u64) -> MemcgLevel {
    MemcgLevel { max_pages: NO_LIMIT, swap_max_pages: NO_LIMIT, ..level(cgroup_id) }
}

/// What a fentry program reads: the limit of the cgroup `memcg`.
pub fn killer(memcg: u64) -> OomControl {
    OomControl {
        source: SOURCE_FENTRY,
        present: 0xff & !oc_fact::GLOBAL,
        oom_memcg_id: memcg,
        total_pages: 2000,
        chosen_points: 900,
        gfp_mask: 0xcc0,
        order: 0,
        constraint: 3,
        reserved: 0,
        message: text(b"Memory cgroup out of memory"),
    }
}

/// What is read where no function hook is attached.
pub fn no_killer() -> OomControl {
    OomControl::new_zeroed()
}

/// A kill in `/pod/leaf` (ids 30, 20; the root is 1) because `/pod` was full.
pub fn oom_kill(seq: u64) -> OomKill {
    let mut record = OomKill {
        header: Header { kind: KIND_OOM_KILL, len: 0, seq, boot_time_ns: 60_000_000_000 + seq },
        run: seq,
        victim: task(4000, b"victim", 30),
        trigger: task(4100, b"trigger", 30),
        memory: Memory {
            present: 0x3f,
            total_vm_pages: 5000,
            anon_pages: 800,
            file_pages: 40,
            shmem_pages: 2,
            swap_entries: 9,
            pgtables_bytes: 73_728,
        },
        oom: killer(20),
        flags: FLAG_SIGNALLED | FLAG_SIGNALS_FOLLOWED,
        command_line_len: 0,
        command_line: [0; COMMAND_LINE_LEN],
        stack: Stack::new_zeroed(),
        lineage: Lineage::new_zeroed(),
        tasks: Tasks { present: 0x7f, threads: 5, cgroup_id: 30, count: 14, limit: 512, peak: 17 },
        lru: Lru { present: 1, anon_pages: 700, file_pages: 90, unevictable_pages: 3 },
    };
    lineage(&mut record, b"leaf\0pod\0", &[unlimited(30), level(20), unlimited(1)]);
    record
}

/// Sets another cgroup for the victim.
pub fn lineage(record: &mut OomKill, names: &[u8], levels: &[MemcgLevel]) {
    record.lineage.path = text(names);
    record.lineage.path_len = u32::try_from(names.len()).unwrap();
    record.lineage.levels = [MemcgLevel::new_zeroed(); MAX_LEVELS];
    record.lineage.levels[..levels.len()].copy_from_slice(levels);
    record.lineage.level_count = u32::try_from(levels.len()).unwrap();
}

/// A victim of which only the pid from the old tracepoint is known.
pub fn pid_only(seq: u64) -> OomKill {
    let mut record = oom_kill(seq);
    record.run = 0;
    record.victim = Task { present: task_fact::IDS, tid: 4000, ..Task::new_zeroed() };
    record.memory = Memory::new_zeroed();
    record.tasks = Tasks::new_zeroed();
    record.lru = Lru::new_zeroed();
    record.oom = no_killer();
    record.flags = FLAG_PID_ONLY | FLAG_SIGNALS_FOLLOWED;
    lineage(&mut record, b"", &[]);
    record
}

/// A process that died with victim `of`.
pub fn shared_mm_kill(seq: u64, of: u64) -> SharedMmKill {
    SharedMmKill {
        header: Header { kind: KIND_SHARED_MM_KILL, len: 96, seq, boot_time_ns: 61_000_000_000 },
        of,
        task: task(4001, b"sharer", 30),
    }
}

/// `/pod` (id 20) ran out without a kill.
pub fn memcg_oom(seq: u64, outcome: u32) -> MemcgOom {
    let mut record = MemcgOom {
        header: Header { kind: KIND_MEMCG_OOM, len: 0, seq, boot_time_ns: 62_000_000_000 },
        trigger: task(4100, b"trigger", 20),
        oom: killer(20),
        outcome,
        reserved: 0,
        lineage: Head { path_len: 4, level_count: 2, ..Head::new_zeroed() },
        path: text(b"pod\0"),
        levels: [MemcgLevel::new_zeroed(); MAX_LEVELS],
    };
    record.levels[0] = level(20);
    record.levels[1] = unlimited(1);
    record
}

/// A cgroup was made, removed or renamed.
pub fn cgroup_change(kind: u32, cgroup_id: u64, path: &[u8]) -> CgroupChange {
    CgroupChange {
        header: Header { kind, len: 0, seq: 0, boot_time_ns: 59_000_000_000 },
        cgroup_id,
        path_len: u32::try_from(path.len()).unwrap(),
        reserved: 0,
        path: text(path),
    }
}

/// A record as it is sent: without its unused parts, and with its own length.
pub trait Sent {
    /// Bytes that are sent, without their length.
    fn parts(&self) -> Vec<u8>;

    /// As in the ring.
    fn sent(&self) -> Vec<u8> {
        let mut bytes = self.parts();
        let len = u32::try_from(bytes.len()).unwrap();
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes
    }
}

impl Sent for OomKill {
    fn parts(&self) -> Vec<u8> {
        let Lineage { flags, path_len, level_count, reserved, .. } = self.lineage;
        let head = KillHead {
            header: self.header,
            run: self.run,
            victim: self.victim,
            trigger: self.trigger,
            memory: self.memory,
            oom: self.oom,
            flags: self.flags,
            command_line_len: self.command_line_len,
            stack: self.stack,
            lineage: Head { flags, path_len, level_count, reserved },
            tasks: self.tasks,
            lru: self.lru,
        };
        let levels = &self.lineage.levels[..level_count as usize];
        let path = &self.lineage.path[..path_len as usize];
        let command_line = &self.command_line[..self.command_line_len as usize];
        [head.as_bytes(), levels.as_bytes(), path, command_line].concat()
    }
}

impl Sent for MemcgOom {
    fn parts(&self) -> Vec<u8> {
        let levels = self.lineage.level_count as usize * size_of::<MemcgLevel>();
        self.as_bytes()[..std::mem::offset_of!(Self, levels) + levels].to_vec()
    }
}

impl Sent for SharedMmKill {
    fn parts(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Sent for CgroupChange {
    fn parts(&self) -> Vec<u8> {
        self.as_bytes()[..std::mem::offset_of!(Self, path) + self.path_len as usize].to_vec()
    }
}

//! Stacks made by hand, of a kernel whose layout is known.

use std::{fs, path::PathBuf, sync::LazyLock};

use oomtrace::facts::{
    CgroupId, Decoder, OomControlLayout, OomControlSearch, OomKillFacts, Record, StackFacts,
};
use oomtrace::kernel::{btf::Btf, layout::resolve};
use oomtrace_common::{layout::KernelLayout, record::STACK_LEN};

use crate::records::{self, Sent};

/// Where the stack is.
pub const AT: u64 = 0xffff_c900_0123_7a10;
/// The task that runs the killer.
pub const CURRENT: u64 = 0xffff_8881_0400_0000;
/// The victim.
pub const TASK: u64 = 0xffff_8881_0500_0000;
/// Its process's first thread.
pub const LEADER: u64 = 0xffff_8881_0600_0000;
/// Somebody else.
pub const OTHER: u64 = 0xffff_8881_0700_0000;
/// The `mem_cgroup` of `/pod/leaf`, `/pod` and the root.
pub const MEMCGS: [u64; 3] = [0xffff_8881_1100_0000, 0xffff_8881_1200_0000, 0xffff_8881_1300_0000];
/// What the kernel passes for nodes.
pub const NODES: u64 = 0xffff_8881_2000_0008;
/// Words of a stack.
pub const WORDS: usize = STACK_LEN / 8;

/// Of 6.12.
pub fn layout() -> KernelLayout {
    static LAYOUT: LazyLock<KernelLayout> = LazyLock::new(read_layout);
    *LAYOUT
}

fn read_layout() -> KernelLayout {
    let fixture = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/btf/6.12.btf"));
    resolve(&Btf::parse(fs::read(fixture).unwrap()).unwrap(), Some(0)).unwrap().layout
}

pub fn search() -> OomControlSearch {
    OomControlSearch::new(OomControlLayout::of(&layout()))
}

/// A kill by another task, in `/pod/leaf`, with nothing on the stack.
pub fn kill() -> OomKillFacts {
    let record = records::oom_kill(3).sent();
    let Ok(Record::OomKill(facts)) = Decoder::new(4096).record(&record) else { panic!() };
    let stack = StackFacts {
        at: AT,
        current: CURRENT,
        task: TASK,
        leader: LEADER,
        memcgs: MEMCGS.to_vec(),
        bytes: vec![0; STACK_LEN],
    };
    OomKillFacts { run: None, oom: None, stack: Some(stack), ..*facts }
}

/// `struct oom_control`, and where something holds its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oc {
    pub word: usize,
    pub anchor: Option<usize>,
    pub zonelist: u64,
    pub nodemask: u64,
    pub memcg: u64,
    pub gfp_mask: u32,
    pub order: i32,
    pub totalpages: u64,
    pub chosen: u64,
    pub chosen_points: i64,
    pub constraint: u32,
}

/// As a cgroup's limit leaves it.
pub const IN_POD: Oc = Oc {
    word: 40,
    anchor: Some(12),
    zonelist: 0,
    nodemask: 0,
    memcg: MEMCGS[1],
    gfp_mask: 0xcc0,
    order: 0,
    totalpages: 2000,
    chosen: TASK,
    chosen_points: 900,
    constraint: 3,
};

/// As the machine leaves it.
pub const OF_HOST: Oc = Oc {
    zonelist: NODES,
    nodemask: NODES + 0x100,
    memcg: 0,
    gfp_mask: 0x140_cca,
    totalpages: 62_000,
    constraint: 0,
    ..IN_POD
};

impl Oc {
    /// Its address.
    pub fn address(&self) -> u64 {
        AT + self.word as u64 * 8
    }

    /// Puts it on the stack.
    pub fn put(&self, layout: &KernelLayout, bytes: &mut [u8]) {
        let at = self.word * 8;
        let mut put = |offset: u32, value: &[u8]| {
            let from = at + offset as usize;
            bytes[from..from + value.len()].copy_from_slice(value);
        };
        put(layout.oc_zonelist, &self.zonelist.to_ne_bytes());
        put(layout.oc_nodemask, &self.nodemask.to_ne_bytes());
        put(layout.oc_memcg, &self.memcg.to_ne_bytes());
        put(layout.oc_gfp_mask, &self.gfp_mask.to_ne_bytes());
        put(layout.oc_order, &self.order.to_ne_bytes());
        put(layout.oc_totalpages, &self.totalpages.to_ne_bytes());
        put(layout.oc_chosen, &self.chosen.to_ne_bytes());
        put(layout.oc_chosen_points, &self.chosen_points.to_ne_bytes());
        put(layout.oc_constraint, &self.constraint.to_ne_bytes());
        if let Some(anchor) = self.anchor {
            bytes[anchor * 8..anchor * 8 + 8].copy_from_slice(&self.address().to_ne_bytes());
        }
    }

    /// A kill with this alone on the stack.
    pub fn alone(&self) -> OomKillFacts {
        let mut facts = kill();
        self.put(&layout(), &mut facts.stack.as_mut().unwrap().bytes);
        facts
    }
}

/// What a search finds, as the rest of the program has it.
pub fn found(facts: &OomKillFacts) -> Option<oomtrace::facts::OomControlFacts> {
    search().find(facts).map(|found| Decoder::new(4096).oom_control(&found.oom).unwrap())
}

/// The id of the level whose `mem_cgroup` that is.
pub fn id_of(memcg: u64) -> Option<CgroupId> {
    let level = MEMCGS.iter().position(|address| *address == memcg)?;
    Some(CgroupId([30, 20, 1][level]))
}

//! Finds `struct oom_control` in a part of a kernel stack.
//!
//! Each caller of the OOM killer keeps the struct as a local variable and passes its address down. So it lies above the
//! arguments of the tracepoint. How far above depends on the kernel and on the way to the OOM killer, so it is recognized by
//! its content. The stack may still hold structs of earlier calls: a place is accepted only if every rule holds, and if two
//! accepted places differ, nothing is used.

use oomtrace_common::{
    layout::{ABSENT, KernelLayout},
    record::{OomControl, SOURCE_STACK, oc_fact},
};
use zerocopy::FromZeros;

use crate::facts::{CgroupId, OomKillFacts};

/// `CONSTRAINT_MEMCG`.
const MEMCG: u32 = 3;
/// Sysrq f asks for a kill without an allocation.
const SYSRQ: i32 = -1;
/// More than any kernel's `MAX_PAGE_ORDER`.
const ORDER_MAX: i32 = 13;
/// More bits than allocation flags have.
const GFP_BITS: u32 = 29;
/// No machine has 2^40 pages.
const PAGE_BITS: u32 = 40;
/// The tracepoint's arguments: the first bytes of what is copied.
const ARGUMENTS: usize = 16;

/// Where `struct oom_control` keeps its members, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomControlLayout {
    zonelist: usize,
    nodemask: usize,
    memcg: usize,
    gfp_mask: usize,
    order: usize,
    totalpages: usize,
    chosen: usize,
    chosen_points: usize,
    constraint: usize,
    size: usize,
}

impl OomControlLayout {
    /// The places of a kernel; `None` if a member is missing or at an impossible place.
    pub fn of(layout: &KernelLayout) -> Option<Self> {
        let size = usize::try_from(layout.oc_size).ok().filter(|size| *size <= 256)?;
        let member = |offset: u32, bytes: usize| {
            let at = usize::try_from(offset).ok().filter(|_| offset != ABSENT)?;
            (at.is_multiple_of(bytes) && at.checked_add(bytes)? <= size).then_some(at)
        };
        Some(Self {
            zonelist: member(layout.oc_zonelist, 8)?,
            nodemask: member(layout.oc_nodemask, 8)?,
            memcg: member(layout.oc_memcg, 8)?,
            gfp_mask: member(layout.oc_gfp_mask, 4)?,
            order: member(layout.oc_order, 4)?,
            totalpages: member(layout.oc_totalpages, 8)?,
            chosen: member(layout.oc_chosen, 8)?,
            chosen_points: member(layout.oc_chosen_points, 8)?,
            constraint: member(layout.oc_constraint, 4)?,
            size,
        })
    }
}

/// A part of the kernel stack of the task that ran the OOM killer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackFacts {
    /// The address of its first byte.
    pub at: u64,
    /// The `task_struct` of the task that ran the OOM killer.
    pub current: u64,
    /// The victim's; 0 if it is not known.
    pub task: u64,
    /// The victim's `group_leader`.
    pub leader: u64,
    /// The `mem_cgroup` of each level of the victim's lineage.
    pub memcgs: Vec<u64>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The state, as a function hook would have read it.
    pub oom: OomControl,
    /// `seq` of the first victim of this run of the OOM killer.
    pub run: u64,
}

/// A struct at a place of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    address: u64,
    memcg: u64,
    gfp_mask: u32,
    order: i32,
    totalpages: u64,
    chosen: u64,
    chosen_points: i64,
    constraint: u32,
}

/// The OOM killer's run to which the last victim belongs.
#[derive(Clone, Copy, Debug)]
struct Run {
    current: u64,
    first: u64,
    last: u64,
    oc: Candidate,
}

/// Searches the stacks of all kills in order. The later victims of a group are recognized by the state that was
/// found for the first.
#[derive(Clone, Debug)]
pub struct OomControlSearch {
    layout: Option<OomControlLayout>,
    run: Option<Run>,
}

impl OomControlSearch {
    /// A search for a kernel with this layout. With `None` it finds nothing.
    pub fn new(layout: Option<OomControlLayout>) -> Self {
        Self { layout, run: None }
    }

    /// The state of the OOM killer when it marked this victim.
    pub fn find(&mut self, facts: &OomKillFacts) -> Option<Found> {
        let before = self.run.take();
        let (layout, stack) = (self.layout?, facts.stack.as_ref()?);
        // If the task that runs the OOM killer is exiting, it is marked before anything is computed. Then the stack can only
        // have a struct of an earlier run.
        if facts.signalled != Some(true) && stack.task == stack.current {
            return None;
        }
        let own_process = facts.victim.tgid.is_some() && facts.victim.tgid == facts.trigger.tgid;
        let same_run = before.filter(|run| run.current == stack.current && run.last < facts.seq);
        let mut found: Option<(Candidate, bool)> = None;
        for at in (ARGUMENTS..=stack.bytes.len().checked_sub(layout.size)?).step_by(8) {
            let Some(oc) = candidate(&layout, stack, at) else { continue };
            let chosen = oc.chosen == stack.task
                || oc.chosen == stack.leader
                || (own_process && oc.chosen == stack.current);
            // The others of a group die because of the chosen one.
            if !chosen && same_run.is_none_or(|run| run.oc != oc) {
                continue;
            }
            match found {
                Some((other, _)) if Candidate { address: oc.address, ..other } != oc => return None,
                Some(_) => {}
                None => found = Some((oc, chosen)),
            }
        }
        let (oc, chosen) = found?;
        let first = same_run.filter(|run| run.oc == oc).map_or(facts.seq, |run| run.first);
        self.run = Some(Run { current: stack.current, first, last: facts.seq, oc });
        Some(Found { oom: oc.recorded(facts, stack, chosen)?, run: first })
    }
}

impl Candidate {
    /// As a function hook would have read it. The score is the chosen task's, not that of those killed with it.
    fn recorded(&self, facts: &OomKillFacts, stack: &StackFacts, chosen: bool) -> Option<OomControl> {
        let mut oom = OomControl {
            source: SOURCE_STACK,
            present: oc_fact::GFP_MASK | oc_fact::ORDER | oc_fact::TOTAL_PAGES | oc_fact::CONSTRAINT,
            total_pages: self.totalpages,
            chosen_points: self.chosen_points,
            gfp_mask: self.gfp_mask,
            order: self.order,
            constraint: self.constraint,
            ..OomControl::new_zeroed()
        };
        if chosen && self.chosen_points != i64::MIN {
            oom.present |= oc_fact::CHOSEN_POINTS;
        }
        if self.memcg == 0 {
            oom.present |= oc_fact::GLOBAL;
        } else {
            let level = stack.memcgs.iter().position(|memcg| *memcg == self.memcg)?;
            let CgroupId(id) = facts.lineage.levels.get(level)?.id;
            oom.oom_memcg_id = id;
            oom.present |= oc_fact::MEMCG;
        }
        Some(oom)
    }
}

/// The struct that starts `at` bytes into the stack, if it can be one.
fn candidate(layout: &OomControlLayout, stack: &StackFacts, at: usize) -> Option<Candidate> {
    let word = |member: usize| long(&stack.bytes, at.checked_add(member)?);
    let half = |member: usize| int(&stack.bytes, at.checked_add(member)?);
    let oc = Candidate {
        address: stack.at.checked_add(u64::try_from(at).ok()?)?,
        memcg: word(layout.memcg)?,
        gfp_mask: half(layout.gfp_mask)?,
        order: half(layout.order)?.cast_signed(),
        totalpages: word(layout.totalpages)?,
        chosen: word(layout.chosen)?,
        chosen_points: word(layout.chosen_points)?.cast_signed(),
        constraint: half(layout.constraint)?,
    };
    let nodes = [word(layout.zonelist)?, word(layout.nodemask)?];
    let possible = oc.is_possible()
        // A cgroup that runs out is not limited to nodes.
        && nodes.iter().all(|node| if oc.memcg == 0 { *node == 0 || is_kernel_address(*node) } else { *node == 0 })
        && (oc.memcg == 0 || stack.memcgs.contains(&oc.memcg));
    (possible && is_anchored(stack, at, oc.address)).then_some(oc)
}

impl Candidate {
    /// Whether each value is possible, also together with the others.
    fn is_possible(&self) -> bool {
        let points = self.chosen_points.unsigned_abs();
        // A process that has all memory scores `totalpages`, and an `oom_score_adj` of 1000 adds as much again.
        let scored = self.chosen_points == i64::MIN
            || points <= self.totalpages.saturating_mul(4).saturating_add(4096);
        (SYSRQ..=ORDER_MAX).contains(&self.order)
            && self.gfp_mask >> GFP_BITS == 0
            && self.constraint <= MEMCG
            && (self.constraint == MEMCG) == (self.memcg != 0)
            && (self.order != SYSRQ || self.memcg == 0)
            // Computed before a task is chosen.
            && self.totalpages != 0
            && self.totalpages >> PAGE_BITS == 0
            && self.chosen != 0
            && scored
    }
}

/// `out_of_memory` needs the struct after the kill, so a word below the struct holds its address. For a struct that an
/// earlier run left, no word does.
fn is_anchored(stack: &StackFacts, at: usize, address: u64) -> bool {
    (ARGUMENTS..at).step_by(8).any(|below| long(&stack.bytes, below) == Some(address))
}

/// In the kernel's part of the address space. With page tables of five levels only the first byte is all ones; arm64 may keep
/// a tag in its second half.
fn is_kernel_address(address: u64) -> bool {
    address >> 60 == 0xf && address & 7 == 0
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_ne_bytes)
}

fn int(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

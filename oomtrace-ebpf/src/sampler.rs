//! Walks the tree of memory cgroups, a bounded number of edges a call. Removed cgroups that still hold memory are in the tree too.
//!
//! A call runs under the RCU read lock (`bpf_prog_test_run_raw_tp`), so nothing that it can reach is freed meanwhile. Between two
//! calls the cgroup at which the walk stopped can be freed. The next call then finds that no list has it any more.
//!
//! What it counts is kept in the map, for the reason that [`memcg::walk`](crate::memcg::walk) names.

use core::{hint::black_box, ptr};

use aya_ebpf::helpers::generated::bpf_get_current_task;
use oomtrace_common::{
    layout::ABSENT,
    record::{
        MAX_LEVELS,
        sample::{
            Cursor, STEPS, Sample, WALK_DONE, WALK_GOES_ON, WALK_LOST, WALK_STARTS, Walked, sample_fact,
        },
    },
};

use crate::{
    lru::{self, Lists},
    maps, memcg,
    memory::{Reader, layout},
};

/// Walks on from where the last call stopped.
#[inline(always)]
pub fn goes_on() {
    let (Some(walked), Some(lists)) = (maps::WALKED.get_ptr_mut(0), maps::WALKED_LISTS.get_ptr_mut(0)) else {
        return;
    };
    if layout!(css_children) == ABSENT || layout!(css_sibling) == ABSENT {
        return;
    }
    // SAFETY: both point into map values, checked for NULL. User space makes one call at a time; if it made two, they would find
    // wrong samples, but would write nothing outside.
    unsafe {
        let cursor = &raw mut (*walked).cursor;
        ptr::write_volatile(&raw mut (*cursor).count, 0);
        match ptr::read_volatile(&raw const (*cursor).state) {
            WALK_STARTS => starts(cursor),
            WALK_GOES_ON if is_listed(cursor) => {}
            _ => return ptr::write_volatile(&raw mut (*cursor).state, WALK_LOST),
        }
        for _ in 0..STEPS {
            if ptr::read_volatile(&raw const (*cursor).state) != WALK_GOES_ON {
                break;
            }
            step(walked, lists);
        }
    }
}

/// Sets the cursor to the root, from the calling task's cgroup upwards.
///
/// # Safety
/// `cursor` must be writable.
#[inline(always)]
unsafe fn starts(cursor: *mut Cursor) {
    let mut reader = Reader::default();
    // SAFETY: the helper takes no argument; the cursor is writable by this function's contract.
    unsafe {
        let css_set = reader.pointer(bpf_get_current_task(), layout!(task_cgroups));
        ptr::write_volatile(&raw mut (*cursor).css, reader.pointer(css_set, layout!(css_set_memory)));
        ptr::write_volatile(&raw mut (*cursor).root, 0);
        for _ in 0..MAX_LEVELS {
            let css = ptr::read_volatile(&raw const (*cursor).css);
            let parent = reader.pointer(css, layout!(css_parent));
            if parent == 0 {
                ptr::write_volatile(&raw mut (*cursor).root, css);
                break;
            }
            ptr::write_volatile(&raw mut (*cursor).css, parent);
        }
        ptr::write_volatile(&raw mut (*cursor).up, 0);
        ptr::write_volatile(&raw mut (*cursor).failed, reader.failed());
        let root = ptr::read_volatile(&raw const (*cursor).root);
        let state = if root == 0 || reader.failed() != 0 { WALK_LOST } else { WALK_GOES_ON };
        ptr::write_volatile(&raw mut (*cursor).state, state);
    }
}

/// Whether the cursor's cgroup is still in its parent's list: the entry before it points to it. Of an entry that was taken out
/// (`list_del_rcu`), the pointer back is invalid, and memory that is used again does not have it. The root is in no list and is never
/// freed.
///
/// # Safety
/// `cursor` must be readable.
#[inline(always)]
unsafe fn is_listed(cursor: *const Cursor) -> bool {
    let mut reader = Reader::default();
    // SAFETY: by this function's contract.
    let (css, root) = unsafe {
        (ptr::read_volatile(&raw const (*cursor).css), ptr::read_volatile(&raw const (*cursor).root))
    };
    let sibling = css.wrapping_add(u64::from(layout!(css_sibling)));
    let before = reader.pointer(sibling, 8);
    let next = reader.pointer(before, 0);
    css == root || (next == sibling && reader.failed() == 0)
}

/// One edge: down to the first child, else to the next sibling, else up.
///
/// # Safety
/// Both must be writable.
#[inline(always)]
unsafe fn step(walked: *mut Walked, lists: *mut Lists) {
    let mut reader = Reader::default();
    // SAFETY: by this function's contract; the mask keeps the sample within the array.
    unsafe {
        let cursor = &raw mut (*walked).cursor;
        let css = ptr::read_volatile(&raw const (*cursor).css);
        let sibling = u64::from(layout!(css_sibling));
        let children = u64::from(layout!(css_children));
        let mut goes_aside = true;
        if ptr::read_volatile(&raw const (*cursor).up) == 0 {
            let count = ptr::read_volatile(&raw const (*cursor).count);
            let at = black_box(count as usize) & (STEPS - 1);
            sample(&mut reader, (&raw mut (*walked).samples).cast::<Sample>().add(at), lists, css);
            ptr::write_volatile(&raw mut (*cursor).count, count + 1);
            let child = reader.pointer(css, layout!(css_children));
            if child != css.wrapping_add(children) {
                ptr::write_volatile(&raw mut (*cursor).css, child.wrapping_sub(sibling));
                goes_aside = false;
            }
        }
        if goes_aside {
            if css == ptr::read_volatile(&raw const (*cursor).root) {
                ptr::write_volatile(&raw mut (*cursor).state, WALK_DONE);
            } else {
                let next = reader.pointer(css, layout!(css_sibling));
                let parent = reader.pointer(css, layout!(css_parent));
                let last = next == parent.wrapping_add(children);
                let to = if last { parent } else { next.wrapping_sub(sibling) };
                ptr::write_volatile(&raw mut (*cursor).css, to);
                ptr::write_volatile(&raw mut (*cursor).up, u64::from(last));
            }
        }
        // Where a pointer cannot be read the walk would go astray.
        if reader.failed() != 0 {
            let failed = ptr::read_volatile(&raw const (*cursor).failed);
            ptr::write_volatile(&raw mut (*cursor).failed, failed + reader.failed());
            ptr::write_volatile(&raw mut (*cursor).state, WALK_LOST);
        }
    }
}

/// Fills in `to` from the `mem_cgroup` whose css is at `css`.
///
/// # Safety
/// `to` and `lists` must be writable.
#[inline(always)]
unsafe fn sample(reader: &mut Reader, to: *mut Sample, lists: *mut Lists, css: u64) {
    let memcg = css.wrapping_sub(u64::from(layout!(mem_cgroup_css)));
    // SAFETY: `to` is writable by this function's contract, and so is each of its fields; all are integers.
    unsafe {
        (*to).cgroup_id = 0;
        memcg::id(reader, &raw mut (*to).cgroup_id, css);
        (*to).parent_id = 0;
        let parent = reader.pointer(css, layout!(css_parent));
        if parent != 0 {
            memcg::id(reader, &raw mut (*to).parent_id, parent);
        }
        let mut present = 0;
        let mut fact = |read: u32, bit: u32| present |= read * bit;
        (*to).flags = 0;
        fact(reader.copy(&raw mut (*to).flags, css, layout!(css_flags)), sample_fact::FLAGS);
        fact(reader.copy(&raw mut (*to).usage_pages, memcg, layout!(mem_cgroup_usage)), sample_fact::USAGE);
        fact(reader.copy(&raw mut (*to).max_pages, memcg, layout!(mem_cgroup_max)), sample_fact::MAX);
        fact(reader.copy(&raw mut (*to).peak_pages, memcg, layout!(mem_cgroup_watermark)), sample_fact::PEAK);
        fact(
            reader.copy(&raw mut (*to).swap_pages, memcg, layout!(mem_cgroup_swap_usage)),
            sample_fact::SWAP,
        );
        let events = layout!(mem_cgroup_events[2]);
        fact(reader.copy(&raw mut (*to).max_events, memcg, events), sample_fact::MAX_EVENTS);
        let kills = layout!(mem_cgroup_events[4]);
        fact(reader.copy(&raw mut (*to).oom_kills, memcg, kills), sample_fact::OOM_KILLS);
        (*to).present = present;
        lru::facts(reader, &raw mut (*to).lru, lists, css);
    }
}

//! The LRU lists of a memory cgroup. Their sizes are exact: the kernel changes them under the list's own lock, and not
//! through per-CPU statistics that it adds up later, as those of `memory.stat`.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use oomtrace_common::{
    layout::{ABSENT, LRU_GENERATIONS, LRU_LISTS, MAX_NODES, MAX_ZONES},
    record::Lru,
};

use crate::memory::{Reader, layout};

/// Sizes as the kernel has them. What this kernel has no zones for is never written, so it stays 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Lists {
    /// For each zone, each list.
    zones: [i64; MAX_ZONES * LRU_LISTS],
    /// Of the multi-gen LRU: for each generation and kind, each zone.
    generations: [[i64; MAX_ZONES]; 2 * LRU_GENERATIONS],
}

/// Fills in `to` from the `mem_cgroup` whose css is at `css`. Nothing is present on a host with more than [`MAX_NODES`] nodes.
///
/// # Safety
/// `to` and `lists` must be writable.
#[inline(always)]
pub unsafe fn facts(reader: &mut Reader, to: *mut Lru, lists: *mut Lists, css: u64) {
    let memcg = css.wrapping_sub(u64::from(layout!(mem_cgroup_css)));
    // SAFETY: both are writable by this function's contract; all in them are integers.
    unsafe {
        ptr::write_volatile(&raw mut (*to).present, 0);
        (*to).anon_pages = 0;
        (*to).file_pages = 0;
        (*to).unevictable_pages = 0;
        let nodes = layout!(nodes);
        if nodes == ABSENT || nodes > MAX_NODES as u32 {
            return;
        }
        // How many nodes were read is kept in the record, as what a walk counts: see `memcg::walk`.
        for index in 0..MAX_NODES as u32 {
            if index >= nodes {
                break;
            }
            let node = reader.pointer(memcg, layout!(mem_cgroup_nodeinfo) + index * 8);
            let whole = node_facts(reader, to, lists, node);
            ptr::write_volatile(&raw mut (*to).present, ptr::read_volatile(&raw const (*to).present) + whole);
        }
        let whole = ptr::read_volatile(&raw const (*to).present) ^ u64::from(nodes);
        // 1 if all of them, without a branch.
        ptr::write_volatile(&raw mut (*to).present, ((whole | whole.wrapping_neg()) >> 63) ^ 1);
    }
}

/// Adds the lists of the `mem_cgroup_per_node` at `node`. Returns 1 if all could be read.
///
/// # Safety
/// `to` and `lists` must be writable.
#[inline(always)]
unsafe fn node_facts(reader: &mut Reader, to: *mut Lru, lists: *mut Lists, node: u64) -> u64 {
    let zones = layout!(zones);
    if zones == 0 || zones > MAX_ZONES as u32 {
        return 0;
    }
    let mut whole = 1;
    // SAFETY: by this function's contract; no more zones are read than there is room for.
    unsafe {
        let sizes = (&raw mut (*lists).zones).cast::<i64>();
        whole &= read(reader, sizes, zones * LRU_LISTS as u32, node, layout!(lru_zone_size));
        let (mut anon, mut file, mut unevictable) = (0, 0, 0);
        for zone in 0..MAX_ZONES {
            let of = sizes.add(zone * LRU_LISTS);
            anon += *of + *of.add(1);
            file += *of.add(2) + *of.add(3);
            unevictable += *of.add(4);
        }
        if layout!(lru_gen_nr_pages) != ABSENT {
            let rows = (&raw mut (*lists).generations).cast::<i64>();
            for row in 0..2 * LRU_GENERATIONS {
                let sizes = rows.add(row * MAX_ZONES);
                let at = layout!(lru_gen_nr_pages) + row as u32 * zones * 8;
                whole &= read(reader, sizes, zones, node, at);
                let mut sum = 0;
                for zone in 0..MAX_ZONES {
                    sum += *sizes.add(zone);
                }
                // The kinds take turns: anon, file.
                if row % 2 == 0 { anon += sum } else { file += sum }
            }
        }
        (*to).anon_pages += anon;
        (*to).file_pages += file;
        (*to).unevictable_pages += unevictable;
    }
    whole
}

/// Copies `count` sizes. Returns 1 if they were read.
///
/// # Safety
/// There must be room for them at `to`.
#[inline(always)]
unsafe fn read(reader: &mut Reader, to: *mut i64, count: u32, node: u64, offset: u32) -> u64 {
    let from = node.wrapping_add(u64::from(offset)) as *const c_void;
    // SAFETY: by this function's contract; the helper checks `from` itself.
    let status = unsafe { bpf_probe_read_kernel(to.cast(), count * 8, from) };
    u64::from(reader.outcome(status))
}

//! Facts of memory cgroups: reads a cgroup and its ancestors up to the root, and the changes of the tree.

use core::{hint::black_box, mem::offset_of, ptr};

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, generated::bpf_ringbuf_output};
use oomtrace_common::{
    counter,
    record::{
        CGROUP_PATH_LEN, CgroupChange, FLAG_LEVELS_CUT, FLAG_PATH_CUT, Header, Lineage, MAX_LEVELS,
        MemcgLevel, NAME_LEN, PATH_FULL, level_fact,
    },
};

use crate::{
    maps,
    memory::{Reader, layout},
};

/// The css of the `mem_cgroup` at `memcg`.
#[inline(always)]
pub fn css(memcg: u64) -> u64 {
    memcg.wrapping_add(u64::from(layout!(mem_cgroup_css)))
}

/// Copies the id of the cgroup of `css`. Returns 1 if it was read.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
pub unsafe fn id(reader: &mut Reader, to: *mut u64, css: u64) -> u32 {
    let cgroup = reader.pointer(css, layout!(css_cgroup));
    let kn = reader.pointer(cgroup, layout!(cgroup_kn));
    // SAFETY: by this function's contract.
    unsafe { reader.copy(to, kn, layout!(kernfs_id)) }
}

/// The destination of a walk.
pub struct Walk {
    /// Facts of the lineage as a whole.
    pub to: *mut Lineage,
    /// Room for [`PATH_LEN`](oomtrace_common::record::PATH_LEN) bytes.
    pub path: *mut u8,
    /// Room for [`MAX_LEVELS`] levels.
    pub levels: *mut MemcgLevel,
}

/// Walks from the css of a memory cgroup to the root.
///
/// What it counts is kept in the record, not in registers: what is read back from there is any
/// number to the verifier, so that the ways out of the loop are one to it, and not each a
/// state to be followed to the program's end.
///
/// # Safety
/// What the pointers of `walk` point to must be writable.
#[inline(always)]
pub unsafe fn walk(reader: &mut Reader, walk: Walk, mut css: u64) {
    let Walk { to, path, levels } = walk;
    // SAFETY: `to` is writable by this function's contract, and so is each of its fields; all are integers.
    unsafe {
        (*to).reserved = 0;
        let flags = &raw mut (*to).flags;
        let path_len = &raw mut (*to).path_len;
        let level_count = &raw mut (*to).level_count;
        ptr::write_volatile(flags, 0);
        ptr::write_volatile(path_len, 0);
        ptr::write_volatile(level_count, 0);
        for level in 0..MAX_LEVELS {
            if css == 0 {
                break;
            }
            let cgroup = reader.pointer(css, layout!(css_cgroup));
            let kn = reader.pointer(cgroup, layout!(cgroup_kn));
            facts(reader, levels.add(level), css, kn);
            ptr::write_volatile(level_count, level as u32 + 1);
            css = reader.pointer(css, layout!(css_parent));
            // The root has no name.
            if css != 0 {
                let used = ptr::read_volatile(path_len) as usize;
                if used > PATH_FULL {
                    ptr::write_volatile(flags, FLAG_PATH_CUT);
                    continue;
                }
                let name = reader.pointer(kn, layout!(kernfs_name));
                // The comparison already limits it. The verifiers of 5.10 and 6.1 lose that limit, but they
                // follow a mask.
                let at = black_box(used) & PATH_FULL;
                let len = reader.string(path.add(at), NAME_LEN as u32, name);
                if len < 0 {
                    ptr::write_volatile(flags, FLAG_PATH_CUT);
                } else {
                    ptr::write_volatile(path_len, (at + (len as usize & (NAME_LEN * 2 - 1))) as u32);
                }
            }
        }
        if css != 0 {
            ptr::write_volatile(flags, FLAG_LEVELS_CUT | FLAG_PATH_CUT);
        }
    }
}

/// The bytes of the levels that a walk has filled in, at most as many as there is room for.
///
/// # Safety
/// `lineage` must be readable.
#[inline(always)]
pub unsafe fn levels_bytes(lineage: *const Lineage) -> Option<u64> {
    // SAFETY: by this function's contract.
    let levels = u64::from(unsafe { ptr::read_volatile(&raw const (*lineage).level_count) });
    // The walk never fills in more, but the verifier cannot know this.
    (levels <= MAX_LEVELS as u64).then_some(levels * size_of::<MemcgLevel>() as u64)
}

/// A level of which nothing was read.
pub const NO_LEVEL: MemcgLevel = MemcgLevel {
    cgroup_id: 0,
    usage_pages: 0,
    max_pages: 0,
    watermark_pages: 0,
    swap_usage_pages: 0,
    swap_max_pages: 0,
    events: [0; 6],
    address: 0,
    oom_group: 0,
    present: 0,
};

/// Fills in `to` from the `mem_cgroup` whose css is at `css`.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
pub unsafe fn facts(reader: &mut Reader, to: *mut MemcgLevel, css: u64, kn: u64) {
    let memcg = css.wrapping_sub(u64::from(layout!(mem_cgroup_css)));
    // SAFETY: `to` is writable by this function's contract, and so is each of its fields; all are integers.
    unsafe {
        (*to).address = memcg;
        (*to).cgroup_id = 0;
        reader.copy(&raw mut (*to).cgroup_id, kn, layout!(kernfs_id));
        let mut present = 0;
        let mut fact = |read: u32, bit: u32| present |= read * bit;
        fact(reader.copy(&raw mut (*to).usage_pages, memcg, layout!(mem_cgroup_usage)), level_fact::USAGE);
        fact(reader.copy(&raw mut (*to).max_pages, memcg, layout!(mem_cgroup_max)), level_fact::MAX);
        fact(
            reader.copy(&raw mut (*to).watermark_pages, memcg, layout!(mem_cgroup_watermark)),
            level_fact::WATERMARK,
        );
        fact(
            reader.copy(&raw mut (*to).swap_usage_pages, memcg, layout!(mem_cgroup_swap_usage)),
            level_fact::SWAP_USAGE,
        );
        fact(
            reader.copy(&raw mut (*to).swap_max_pages, memcg, layout!(mem_cgroup_swap_max)),
            level_fact::SWAP_MAX,
        );
        let mut oom_group = 0u8;
        fact(reader.copy(&raw mut oom_group, memcg, layout!(mem_cgroup_oom_group)), level_fact::OOM_GROUP);
        (*to).oom_group = u32::from(oom_group);
        let events = &raw mut (*to).events;
        fact(event(reader, events, memcg, 0, layout!(mem_cgroup_events[0])), level_fact::EVENTS);
        fact(event(reader, events, memcg, 1, layout!(mem_cgroup_events[1])), level_fact::EVENTS << 1);
        fact(event(reader, events, memcg, 2, layout!(mem_cgroup_events[2])), level_fact::EVENTS << 2);
        fact(event(reader, events, memcg, 3, layout!(mem_cgroup_events[3])), level_fact::EVENTS << 3);
        fact(event(reader, events, memcg, 4, layout!(mem_cgroup_events[4])), level_fact::EVENTS << 4);
        fact(event(reader, events, memcg, 5, layout!(mem_cgroup_events[5])), level_fact::EVENTS << 5);
        (*to).present = present;
    }
}

/// # Safety
/// `events` must be writable and `index` below 6.
#[inline(always)]
unsafe fn event(reader: &mut Reader, events: *mut [u64; 6], memcg: u64, index: usize, offset: u32) -> u32 {
    // SAFETY: by this function's contract.
    unsafe { reader.copy(events.cast::<u64>().add(index), memcg, offset) }
}

/// A cgroup was made, removed or renamed. `path` is the kernel's own text of its path. Runs under
/// `cgroup_mutex`.
#[inline(always)]
pub fn changed(kind: u32, cgroup: u64, path: u64) {
    let mut reader = Reader::default();
    let root = reader.pointer(cgroup, layout!(cgroup_root));
    let hierarchy = reader.u32(root, layout!(cgroup_root_hierarchy_id));
    // Only the memory hierarchy is reported: on v1 a container makes a cgroup in each of about ten
    // hierarchies.
    if hierarchy != layout!(memory_hierarchy_id) {
        return;
    }
    let Some(to) = maps::CGROUP_SCRATCH.get_ptr_mut(0) else {
        maps::count(counter::CGROUP_RING_FULL, 1);
        return;
    };
    let kn = reader.pointer(cgroup, layout!(cgroup_kn));
    // SAFETY: `to` points into a map value of this CPU, and `cgroup_mutex` serialises its writers.
    let status = unsafe {
        (*to).cgroup_id = 0;
        reader.copy(&raw mut (*to).cgroup_id, kn, layout!(kernfs_id));
        let len = reader.string(ptr::from_mut(&mut (*to).path).cast(), CGROUP_PATH_LEN as u32, path);
        // The length including its NUL is 1..=CGROUP_PATH_LEN. The verifier needs to see a limit.
        let len = if len <= 0 { 0 } else { (len as u64 - 1) & (CGROUP_PATH_LEN as u64 - 1) };
        let size = offset_of!(CgroupChange, path) as u64 + len;
        (*to).path_len = len as u32;
        (*to).reserved = 0;
        (*to).header = Header { kind, len: size as u32, seq: 0, boot_time_ns: bpf_ktime_get_boot_ns() };
        bpf_ringbuf_output((&raw const maps::CGROUPS).cast_mut().cast(), to.cast(), size, 0)
    };
    maps::count(counter::CGROUP_RING_FULL, u64::from(status < 0));
}

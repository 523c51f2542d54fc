//! Keeps this process working while memory is short: its memory stays resident, and it runs before other
//! processes. If the system refuses one of these, the run goes on and reports it.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall, munlockall};

/// The lowest real-time priority: before all ordinary tasks, after all other real-time ones.
const PRIORITY: libc::c_int = 1;

/// Asks for real-time scheduling, asks not to be a victim, turns core dumps off, and returns free memory to the kernel.
/// Returns what was refused.
pub fn hold(realtime: bool) -> Vec<String> {
    let mut refused = Vec::new();
    // Its memory is limited, so killing it would free little and hide the kill.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        let why = error.kind();
        refused.push(format!("oom_score_adj is not lowered ({why}; it needs CAP_SYS_RESOURCE, or OOMScoreAdjust=-1000 in its unit): this process may itself be killed"));
    }
    if realtime && let Err(error) = first_in_first_out() {
        let why = error.kind();
        refused.push(format!("no real-time scheduling ({why}; it needs CAP_SYS_NICE, or an RLIMIT_RTPRIO of 1): lines may be late while the host is busy"));
    }
    no_core_dumps();
    // What the programs were loaded with.
    release_heap();
    refused
}

/// Turns core dumps off, wherever this host would write them: memory holds other people's command lines.
pub fn no_core_dumps() {
    // SAFETY: takes numbers only. It fails only for an unknown number.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Locks the memory of this process. Returns what was refused.
pub fn lock_memory() -> Option<String> {
    // Pages are locked when they are first used, so memory that is only reserved stays free.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let why = std::io::Error::from(mlockall(flags).err()?).kind();
    Some(format!(
        "memory is not locked ({why}; it needs CAP_IPC_LOCK, or a higher RLIMIT_MEMLOCK): lines may be late while memory is short"
    ))
}

/// When the start is over: returns memory to the kernel that only the start needed, and locks the rest again. Returns
/// what was refused.
pub fn release_start() -> Option<String> {
    // The kernel drops no page that is locked. This fails for no process.
    let _unlocked = munlockall();
    release_heap();
    release_start_pages();
    lock_memory()
}

/// Returns free heap pages to the kernel. What is allocated later then takes only the pages that it writes.
pub fn release_heap() {
    // SAFETY: the function takes no pointer.
    unsafe { libc::malloc_trim(0) };
}

/// Releases the program's own pages. Most of them are needed only at the start. Other pages are read again
/// when they are used. Must be called before memory is locked.
fn release_start_pages() {
    // SAFETY: the callback's arguments live through the call, and `data` is not used.
    unsafe { libc::dl_iterate_phdr(Some(release_pages_of), std::ptr::null_mut()) };
}

/// The callback of `dl_iterate_phdr`. The program is the first object, and the return value ends the
/// iteration.
unsafe extern "C" fn release_pages_of(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the caller's struct and its headers are alive through the call.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    for header in headers {
        // Writable segments differ from the file by their relocations, so they are kept.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (base + header.p_vaddr).next_multiple_of(page);
        let end = (base + header.p_vaddr + header.p_memsz) / page * page;
        let (Ok(at), Ok(len)) = (usize::try_from(start), usize::try_from(end.saturating_sub(start))) else {
            continue;
        };
        // SAFETY: whole pages of a segment that is never written. If they are used later, they are read from
        // the file again.
        let _kept = unsafe {
            rustix::mm::madvise(
                std::ptr::with_exposed_provenance_mut(at),
                len,
                rustix::mm::Advice::LinuxDontNeed,
            )
        };
    }
    1
}

/// Applies to this thread, and to the threads that it starts later.
fn first_in_first_out() -> std::io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameter is a local that lives through the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Gives this thread normal scheduling: its work is not urgent.
///
/// An urgent thread should not wait for one of these, which may wait for a processor for milliseconds. So each thread keeps a
/// heap of its own, as is usual. With one heap, whose lock all threads shared, some kills were reported 8 ms late. A block that
/// another thread frees still takes the lock of its heap.
pub fn ordinary() {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is a local that lives through the call. Lowering one's own priority is always
    // allowed.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameter) };
}

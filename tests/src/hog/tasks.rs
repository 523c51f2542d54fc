//! What a hog changes about itself as a task: name, threads, processes that share its memory, a pid
//! namespace, a memory policy.

use std::io;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Names the calling thread; the kernel keeps 15 bytes.
pub(super) fn name(comm: &[u8]) -> io::Result<()> {
    let mut buffer = [0_u8; 16];
    for (to, from) in buffer.iter_mut().take(15).zip(comm) {
        *to = *from;
    }
    // SAFETY: 16 bytes ended by NUL, which is what the kernel reads.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, buffer.as_ptr()) })
}

/// The calling thread's id.
pub(super) fn thread_id() -> libc::pid_t {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::gettid() }
}

/// Ends only the calling thread, without the cleanup of its runtime.
pub(super) fn end_thread() -> ! {
    // SAFETY: the other threads use nothing of this one's stack.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    loop {
        std::thread::park();
    }
}

/// Puts all tasks of this process on one processor: while the allocating one is in the OOM killer, no other
/// can exit and change the figures between the mark and the log line.
pub(super) fn stay_on_one_processor() -> io::Result<()> {
    // SAFETY: takes nothing.
    let processor = unsafe { libc::sched_getcpu() };
    stay_on(usize::try_from(processor).unwrap_or(0))
}

/// Puts the calling thread on this processor.
pub(super) fn stay_on(processor: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit array, and all zero is the empty set; it is alive through the calls.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))
    }
}

/// Starts threads that sleep until the process ends.
pub(super) fn start_threads(count: usize) -> io::Result<()> {
    for _ in 0..count {
        std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            loop {
                std::thread::park();
            }
        })?;
    }
    Ok(())
}

/// Lets the calling thread run only if no other task on its processor wants to.
pub(super) fn run_last() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: a parameter that is alive through the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) })
}

/// Gives the calling thread real-time priority and a limit, so that the kernel kills it at the end of the
/// system call that runs at the next tick.
pub(super) fn end_by_its_own_limit() -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: both are alive through the calls, which only read them.
    unsafe {
        check(libc::setrlimit(libc::RLIMIT_RTTIME, &raw const limit))?;
        check(libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter))
    }
}

/// Starts a process (not a thread) with this one's memory, which sleeps until it is killed.
pub(super) fn share_memory() -> io::Result<libc::pid_t> {
    extern "C" fn sleep(_: *mut libc::c_void) -> libc::c_int {
        loop {
            // `ppoll` without files and time limit is `pause`, which arm64 does not have. SAFETY: no
            // pointers. Only this system call may be made here: memory is shared with a running process.
            unsafe { libc::syscall(libc::SYS_ppoll, 0_usize, 0_usize, 0_usize, 0_usize, 0_usize) };
        }
    }
    // Never freed: the other process uses it.
    let stack = Box::leak(Box::new([0_u128; 1024]));
    // SAFETY: a stack of its own that is never freed, and a function that neither returns nor allocates.
    let pid = unsafe {
        libc::clone(
            sleep,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::SIGCHLD,
            std::ptr::null_mut(),
        )
    };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// Children that start after this live in a new pid namespace.
pub(super) fn new_pid_namespace() -> io::Result<()> {
    // SAFETY: a flag.
    check(unsafe { libc::unshare(libc::CLONE_NEWPID) })
}

/// Becomes another user.
pub(super) fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: a number.
    check(unsafe { libc::setuid(uid) })
}

/// Memory from this node only.
pub(super) fn bind_to_node(node: u32) -> io::Result<()> {
    let mask: libc::c_ulong = 1 << node;
    // SAFETY: a mask of one word that is alive through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, &raw const mask, libc::c_ulong::BITS)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

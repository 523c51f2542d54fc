//! Runs a loaded program once, without the hook that it is for (`BPF_PROG_TEST_RUN`).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// The start of `union bpf_attr` for this command (include/uapi/linux/bpf.h), up to `batch_size`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data: [u64; 3],
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// Runs the program of a raw tracepoint with these arguments.
///
/// # Errors
/// The kernel's own.
pub(super) fn test_run(program: BorrowedFd<'_>, arguments: &[u64]) -> io::Result<()> {
    let mut attributes = TestRun {
        prog_fd: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        ctx_size_in: u32::try_from(size_of_val(arguments)).map_err(io::Error::other)?,
        ctx_in: if arguments.is_empty() { 0 } else { arguments.as_ptr() as u64 },
        ..TestRun::default()
    };
    let size = size_of::<TestRun>();
    // SAFETY: the attributes live through the call, which writes into them only, and so do the arguments, which it reads.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

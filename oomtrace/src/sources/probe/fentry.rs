//! Tests with the smallest possible program whether this kernel accepts fentry programs.
//!
//! A real one needs the types of `functions.rs`, which would be made in vain if it then fails.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use crate::kernel::btf::TypeId;

/// The start of `union bpf_attr` for `BPF_PROG_LOAD` (include/uapi/linux/bpf.h), up to `attach_btf_id`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_FENTRY: u32 = 24;
/// `r0 = 0; exit`.
const RETURN_0: [u64; 2] = [0xb7, 0x95];

/// Loads a program that does nothing for the entry of `function`, and drops it.
///
/// # Errors
/// The kernel's own.
pub(super) fn is_taken(function: TypeId) -> io::Result<()> {
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_TRACING,
        insn_cnt: 2,
        insns: RETURN_0.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: BPF_TRACE_FENTRY,
        attach_btf_id: function,
        ..ProgLoad::default()
    };
    let size = size_of::<ProgLoad>();
    // SAFETY: the attributes, the instructions and the licence live through the call, which only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size) };
    match i32::try_from(fd) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the kernel has just made this descriptor for this process, and nothing else uses it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

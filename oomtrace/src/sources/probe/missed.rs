//! Runs of a program that the kernel skipped because the program was already running on that CPU. This is
//! possible since Linux 6.1, and the kernel counts it.

use std::os::fd::{AsRawFd, OwnedFd};

/// `struct bpf_prog_info` (include/uapi/linux/bpf.h), up to `recursion_misses`.
#[repr(C)]
struct ProgInfo {
    before: [u64; 26],
    recursion_misses: u64,
}

/// The start of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

const _: () = assert!(size_of::<ProgInfo>() == 216);

/// A program, to read how often it was skipped.
#[derive(Debug)]
pub struct MissedRuns(OwnedFd);

impl MissedRuns {
    pub(super) fn of(program: OwnedFd) -> Self {
        Self(program)
    }

    /// Whether any run was skipped; false if the kernel does not count them.
    pub fn any(&self) -> bool {
        let mut info = ProgInfo { before: [0; 26], recursion_misses: 0 };
        let attributes = GetInfo {
            bpf_fd: self.0.as_raw_fd().cast_unsigned(),
            info_len: u32::try_from(size_of::<ProgInfo>()).unwrap_or_default(),
            info: (&raw mut info) as u64,
        };
        let size = size_of::<GetInfo>();
        // SAFETY: the kernel reads the attributes, and writes at most `info_len` bytes to `info`; both live through the call.
        let asked =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attributes, size) };
        asked == 0 && info.recursion_misses > 0
    }
}

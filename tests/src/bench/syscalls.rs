//! Counts the system calls of a child with the kernel's tracepoint, through `perf_event_open(2)`.

use std::io::{Error, Read};
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// Where tracefs may be. If it was at neither place, `host::own_tracefs` mounted it at the first.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Counts all system calls of this thread's children since their `exec`. A child is counted after it has
/// ended.
#[derive(Debug)]
pub struct Syscalls(OwnedFd);

/// `struct perf_event_attr`, first version (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    more: u64,
}

impl Syscalls {
    /// Begins to count.
    pub fn of_children() -> Result<Self> {
        const TRACEPOINT: u32 = 2;
        const CLOEXEC: libc::c_ulong = 1 << 3;
        // The bits of `flags`: disabled, inherit, enable_on_exec.
        const FLAGS: u64 = 1 | 1 << 1 | 1 << 12;
        let id = TRACEFS
            .iter()
            .find_map(|tracefs| {
                std::fs::read_to_string(format!("{tracefs}/events/raw_syscalls/sys_enter/id")).ok()
            })
            .context("this kernel has no tracepoint raw_syscalls:sys_enter")?;
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: size_of::<Attributes>().try_into()?,
            config: id.trim().parse()?,
            flags: FLAGS,
            ..Attributes::default()
        };
        // SAFETY: the attributes are alive through the call; this thread, any processor, no group.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, -1, CLOEXEC) };
        ensure!(fd >= 0, "perf_event_open: {}", Error::last_os_error());
        // SAFETY: a descriptor that the kernel has just made.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) }))
    }

    /// The number of system calls.
    pub fn count(self) -> Result<u64> {
        let mut bytes = [0; 8];
        std::fs::File::from(self.0).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

//! The minimal tracer of a machine: 16 bytes go from the kernel's mark through a ring to a line on stdout,
//! without any facts.
//!
//! Prints `ready`, then `NS PID` for each victim. It uses system calls directly, because a library would add
//! cost. The bench starts it as a separate process with a tracer's settings: locked memory, real-time
//! priority 1.

use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Result, ensure};
use oomtrace_tests::bpf::code::{ADD, CALL, EXIT, MOVE, SET, STORE, WIDE};
use oomtrace_tests::bpf::helper::{GET_CURRENT_PID_TGID, KTIME_GET_BOOT_NS, RINGBUF_OUTPUT};
use oomtrace_tests::bpf::{self, Attached, instruction};

/// First argument of the process that is this tracer.
pub const SUBCOMMAND: &str = "floor";

const RING_BYTES: usize = 1 << 16;
const PAGE: usize = 4096;

/// Bit of a record's length: it is still being written.
const BUSY: u32 = 1 << 31;
/// Bit of a record's length: it must be skipped.
const DISCARDED: u32 = 1 << 30;

/// Becomes this tracer, if the process was started for it.
pub fn serve_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|word| word == SUBCOMMAND) {
        let code = match serve() {
            Ok(()) => 0,
            Err(error) => {
                crate::progress(&format!("floor: {error:#}"));
                1
            }
        };
        std::process::exit(code);
    }
}

/// Writes time and process to the stack, and these 16 bytes to the ring.
fn program(ring: i32) -> [u64; 13] {
    [
        instruction(CALL, (0, 0), 0, KTIME_GET_BOOT_NS),
        instruction(STORE, (10, 0), -16, 0),
        instruction(CALL, (0, 0), 0, GET_CURRENT_PID_TGID),
        instruction(STORE, (10, 0), -8, 0),
        // Source 1 says that the constant is a map's descriptor.
        instruction(WIDE, (1, 1), 0, ring),
        0,
        instruction(MOVE, (2, 10), 0, 0),
        instruction(ADD, (2, 0), 0, -16),
        instruction(SET, (3, 0), 0, 16),
        instruction(SET, (4, 0), 0, 0),
        instruction(CALL, (0, 0), 0, RINGBUF_OUTPUT),
        instruction(SET, (0, 0), 0, 0),
        instruction(EXIT, (0, 0), 0, 0),
    ]
}

fn serve() -> Result<()> {
    let ring = bpf::ring(u32::try_from(RING_BYTES)?)?;
    let _attached = Attached::to(c"mark_victim", &program(ring.as_raw_fd()))?;
    let reader = Ring::map(&ring)?;
    // SAFETY: flags only.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
    ensure!(locked == 0, "lock memory: {}", Error::last_os_error());
    oomtrace_tests::process::first_in_first_out(1)?;
    let poll = epoll(&ring)?;
    // SAFETY: stdout is open as long as the process is. `ManuallyDrop` keeps it open.
    let mut stdout = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    stdout.write_all(b"ready\n")?;
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    loop {
        while let Some([ns, ids]) = reader.next() {
            stdout.write_all(format!("{ns} {}\n", ids >> 32).as_bytes())?;
        }
        // SAFETY: one event, alive through the call.
        unsafe { libc::epoll_wait(poll.as_raw_fd(), &raw mut event, 1, -1) };
    }
}

fn epoll(ring: &OwnedFd) -> Result<OwnedFd> {
    // SAFETY: no arguments that point anywhere.
    let poll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    ensure!(poll >= 0, "{}", Error::last_os_error());
    // SAFETY: a descriptor that the kernel has just made.
    let poll = unsafe { OwnedFd::from_raw_fd(poll) };
    let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
    // SAFETY: both descriptors are open, the event is alive through the call.
    let added =
        unsafe { libc::epoll_ctl(poll.as_raw_fd(), libc::EPOLL_CTL_ADD, ring.as_raw_fd(), &raw mut event) };
    ensure!(added == 0, "{}", Error::last_os_error());
    Ok(poll)
}

/// The reader's side of a ring.
struct Ring {
    consumed: *const AtomicU64,
    produced: *const AtomicU64,
    data: *const u8,
}

impl Ring {
    fn map(ring: &OwnedFd) -> Result<Self> {
        let map = |length, protection, offset| -> Result<*mut libc::c_void> {
            // SAFETY: a new mapping at an address that the kernel chooses.
            let address = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    protection,
                    libc::MAP_SHARED,
                    ring.as_raw_fd(),
                    offset,
                )
            };
            ensure!(address != libc::MAP_FAILED, "map the ring: {}", Error::last_os_error());
            Ok(address)
        };
        let consumed = map(PAGE, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        // The data is mapped twice, one copy after the other, so that no record wraps.
        let produced = map(PAGE + 2 * RING_BYTES, libc::PROT_READ, PAGE.try_into()?)?;
        Ok(Self {
            consumed: consumed.cast(),
            produced: produced.cast(),
            data: produced.cast::<u8>().wrapping_add(PAGE),
        })
    }

    /// The next record.
    fn next(&self) -> Option<[u64; 2]> {
        // SAFETY: all three point into mappings that live as long as the process. A record starts at a multiple of 8 and
        // lies whole in the doubled data; its header's first word is the length, which the kernel writes with release.
        unsafe {
            loop {
                let at = (*self.consumed).load(Ordering::Relaxed);
                if at >= (*self.produced).load(Ordering::Acquire) {
                    return None;
                }
                let header = self.data.wrapping_add(usize::try_from(at).ok()? & (RING_BYTES - 1));
                let length = (*header.cast::<AtomicU32>()).load(Ordering::Acquire);
                if length & BUSY != 0 {
                    continue;
                }
                let record = header.wrapping_add(8).cast::<[u64; 2]>().read();
                let whole = u64::from(length & !DISCARDED).next_multiple_of(8) + 8;
                (*self.consumed).store(at + whole, Ordering::Release);
                if length & DISCARDED == 0 {
                    return Some(record);
                }
            }
        }
    }
}

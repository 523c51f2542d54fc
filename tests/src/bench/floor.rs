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

use anyhow::{Context, Result, ensure};

/// First argument of the process that is this tracer.
pub const SUBCOMMAND: &str = "floor";

const RING_BYTES: usize = 1 << 16;
const PAGE: usize = 4096;

// include/uapi/linux/bpf.h
const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const MAP_TYPE_RINGBUF: u32 = 27;
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const KTIME_GET_BOOT_NS: i32 = 125;
const GET_CURRENT_PID_TGID: i32 = 14;
const RINGBUF_OUTPUT: i32 = 130;
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

/// The arguments of `bpf(2)`: as much of the union as these three commands read.
#[repr(C)]
#[derive(Default)]
struct Attributes([u64; 16]);

fn bpf(command: libc::c_long, attributes: &Attributes) -> Result<OwnedFd> {
    // SAFETY: the attributes are alive through the call, and so is all that they point to.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<Attributes>()) };
    ensure!(fd >= 0, "bpf command {command}: {}", Error::last_os_error());
    // SAFETY: a descriptor that the kernel has just made, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) })
}

/// Opens a program by the id that the kernel gave it.
pub fn program_by_id(id: u64) -> Result<OwnedFd> {
    let mut open = Attributes::default();
    open.0[0] = id;
    bpf(PROG_GET_FD_BY_ID, &open).with_context(|| format!("open the program {id}"))
}

/// One instruction: operation, destination and source register, offset, constant.
const fn instruction(code: u8, (to, from): (u8, u8), offset: i16, constant: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = constant.to_le_bytes();
    u64::from_le_bytes([code, from << 4 | to, low, high, a, b, c, d])
}

/// Writes time and process to the stack, and these 16 bytes to the ring.
fn program(ring: i32) -> [u64; 13] {
    const CALL: u8 = 0x85;
    const STORE: u8 = 0x7b;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const SET: u8 = 0xb7;
    [
        instruction(CALL, (0, 0), 0, KTIME_GET_BOOT_NS),
        instruction(STORE, (10, 0), -16, 0),
        instruction(CALL, (0, 0), 0, GET_CURRENT_PID_TGID),
        instruction(STORE, (10, 0), -8, 0),
        // The ring: source 1 says that the constant is a descriptor.
        instruction(0x18, (1, 1), 0, ring),
        0,
        instruction(MOVE, (2, 10), 0, 0),
        instruction(ADD, (2, 0), 0, -16),
        instruction(SET, (3, 0), 0, 16),
        instruction(SET, (4, 0), 0, 0),
        instruction(CALL, (0, 0), 0, RINGBUF_OUTPUT),
        instruction(SET, (0, 0), 0, 0),
        instruction(0x95, (0, 0), 0, 0),
    ]
}

fn serve() -> Result<()> {
    let word = |value: u32, above: u32| u64::from(value) | u64::from(above) << 32;
    let mut map = Attributes::default();
    map.0[0] = word(MAP_TYPE_RINGBUF, 0);
    map.0[1] = word(0, u32::try_from(RING_BYTES)?);
    let ring = bpf(MAP_CREATE, &map).context("a ring")?;
    let instructions = program(ring.as_raw_fd());
    let mut load = Attributes::default();
    load.0[0] = word(PROG_TYPE_RAW_TRACEPOINT, u32::try_from(instructions.len())?);
    load.0[1] = instructions.as_ptr().addr().try_into()?;
    load.0[2] = c"GPL".as_ptr().addr().try_into()?;
    let program = bpf(PROG_LOAD, &load).context("a program")?;
    let mut open = Attributes::default();
    open.0[0] = c"mark_victim".as_ptr().addr().try_into()?;
    open.0[1] = word(u32::try_from(program.as_raw_fd())?, 0);
    let _link = bpf(RAW_TRACEPOINT_OPEN, &open).context("attach to mark_victim")?;
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

//! Small programs in the kernel that belong to the tests: written as instructions, loaded and attached by
//! system calls. They end when their descriptors are closed, so also with the process.

use std::ffi::CStr;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

// include/uapi/linux/bpf.h
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const PROG_LOAD: libc::c_long = 5;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_RINGBUF: u32 = 27;
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// Operations of instructions. In those of 64 bits, a constant is extended with its sign.
pub mod code {
    /// Adds the constant.
    pub const ADD: u8 = 0x07;
    /// Calls the helper whose number the constant is.
    pub const CALL: u8 = 0x85;
    /// Ends the program.
    pub const EXIT: u8 = 0x95;
    /// Skips as many instructions as the offset says if both registers are equal.
    pub const IF_SAME: u8 = 0x1d;
    /// The same if the register has the constant.
    pub const IF_IS: u8 = 0x15;
    /// The same if it has another value.
    pub const IF_IS_NOT: u8 = 0x55;
    /// Reads 64 bits.
    pub const LOAD: u8 = 0x79;
    /// Copies the low 32 bits of a register; the high ones are 0.
    pub const LOW_HALF: u8 = 0xbc;
    /// Copies a register.
    pub const MOVE: u8 = 0xbf;
    /// Takes the constant.
    pub const SET: u8 = 0xb7;
    /// Writes 64 bits.
    pub const STORE: u8 = 0x7b;
    /// Writes 32 bits.
    pub const STORE_HALF: u8 = 0x63;
    /// Takes a constant that has two instructions.
    pub const WIDE: u8 = 0x18;
}

/// Numbers of helpers.
pub mod helper {
    /// `bpf_get_current_pid_tgid`.
    pub const GET_CURRENT_PID_TGID: i32 = 14;
    /// `bpf_get_current_task`.
    pub const GET_CURRENT_TASK: i32 = 35;
    /// `bpf_get_smp_processor_id`.
    pub const GET_SMP_PROCESSOR_ID: i32 = 8;
    /// `bpf_ktime_get_boot_ns`.
    pub const KTIME_GET_BOOT_NS: i32 = 125;
    /// `bpf_map_lookup_elem`.
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    /// `bpf_ringbuf_output`.
    pub const RINGBUF_OUTPUT: i32 = 130;
    /// `bpf_send_signal`.
    pub const SEND_SIGNAL: i32 = 109;
}

/// What mends an EPERM there.
const UNCHARGED: &str = "Linux before 5.11 needs `ulimit -l unlimited`";

/// The arguments of `bpf(2)`: as much of the union as these commands read.
#[repr(C)]
#[derive(Default)]
struct Attributes([u64; 16]);

fn call(command: libc::c_long, attributes: &Attributes) -> Result<libc::c_long> {
    // SAFETY: the attributes are alive through the call, and so is all that they point to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<Attributes>()) };
    ensure!(result >= 0, "bpf command {command}: {}", Error::last_os_error());
    Ok(result)
}

fn open(command: libc::c_long, attributes: &Attributes) -> Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: a descriptor that the kernel has just made, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) })
}

fn word(value: u32, above: u32) -> u64 {
    u64::from(value) | u64::from(above) << 32
}

/// Opens a program by the id that the kernel gave it.
pub fn program_by_id(id: u64) -> Result<OwnedFd> {
    let mut attributes = Attributes::default();
    attributes.0[0] = id;
    open(PROG_GET_FD_BY_ID, &attributes).with_context(|| format!("open the program {id}"))
}

/// One instruction: operation, destination and source register, offset, constant.
pub const fn instruction(code: u8, (to, from): (u8, u8), offset: i16, constant: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = constant.to_le_bytes();
    u64::from_le_bytes([code, from << 4 | to, low, high, a, b, c, d])
}

/// A ring of this size.
pub fn ring(bytes: u32) -> Result<OwnedFd> {
    let mut attributes = Attributes::default();
    attributes.0[0] = word(MAP_TYPE_RINGBUF, 0);
    attributes.0[1] = word(0, bytes);
    open(MAP_CREATE, &attributes).with_context(|| format!("make a ring ({UNCHARGED})"))
}

/// A program that runs at a tracepoint of the kernel. A drop ends it.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

impl Attached {
    /// Loads the program and attaches it.
    pub fn to(tracepoint: &CStr, instructions: &[u64]) -> Result<Self> {
        let mut load = Attributes::default();
        load.0[0] = word(PROG_TYPE_RAW_TRACEPOINT, u32::try_from(instructions.len())?);
        load.0[1] = instructions.as_ptr().addr().try_into()?;
        load.0[2] = c"GPL".as_ptr().addr().try_into()?;
        let program = open(PROG_LOAD, &load).with_context(|| format!("load a program for {tracepoint:?}"))?;
        let mut attach = Attributes::default();
        attach.0[0] = tracepoint.as_ptr().addr().try_into()?;
        attach.0[1] = word(u32::try_from(program.as_raw_fd())?, 0);
        // The link holds the program.
        let link = open(RAW_TRACEPOINT_OPEN, &attach).with_context(|| format!("attach to {tracepoint:?}"))?;
        Ok(Self { _link: link })
    }
}

/// Places of `WORDS` numbers each, which programs write.
#[derive(Debug)]
pub struct Places<const WORDS: usize>(OwnedFd);

impl<const WORDS: usize> Places<WORDS> {
    /// So many, all zero.
    pub fn make(count: u32) -> Result<Self> {
        let bytes = u32::try_from(size_of::<[u64; WORDS]>())?;
        let mut attributes = Attributes::default();
        attributes.0[0] = word(MAP_TYPE_ARRAY, u32::try_from(size_of::<u32>())?);
        attributes.0[1] = word(bytes, count);
        open(MAP_CREATE, &attributes).with_context(|| format!("make an array ({UNCHARGED})")).map(Self)
    }

    /// What an instruction takes.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// What is there now.
    pub fn read(&self, place: u32) -> Result<[u64; WORDS]> {
        let mut words = [0; WORDS];
        let mut attributes = Attributes::default();
        attributes.0[0] = word(u32::try_from(self.0.as_raw_fd())?, 0);
        attributes.0[1] = (&raw const place).addr().try_into()?;
        // The kernel writes there.
        attributes.0[2] = (&raw mut words).expose_provenance().try_into()?;
        call(MAP_LOOKUP_ELEM, &attributes).with_context(|| format!("read place {place}"))?;
        Ok(words)
    }
}

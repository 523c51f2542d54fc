//! The privileges of this process: its capabilities, and the kernel's lockdown.

use std::fs;

use crate::host::root::Root;

/// What a capability is for. Bits of include/uapi/linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its bit.
    bit: u32,
    /// Its name.
    pub name: &'static str,
    /// What is missing without it.
    pub without: &'static str,
    /// Whether nothing works without it.
    pub needed: bool,
}

/// The capabilities that oomtrace uses.
pub const CAPABILITIES: [Capability; 5] = [
    Capability { bit: 39, name: "CAP_BPF", without: "no eBPF program can be loaded", needed: true },
    Capability { bit: 38, name: "CAP_PERFMON", without: "no tracing program can be attached", needed: true },
    Capability {
        bit: 34,
        name: "CAP_SYSLOG",
        without: "the kernel log cannot be read: if no function hook attaches and the kernel stack does not have them, facts are missing",
        needed: false,
    },
    Capability {
        bit: 2,
        name: "CAP_DAC_READ_SEARCH",
        without: "the runtimes' files cannot be read: containers have no names",
        needed: false,
    },
    Capability {
        bit: 19,
        name: "CAP_SYS_PTRACE",
        without: "executables and command lines of other users' processes cannot be read",
        needed: false,
    },
];

const CAP_SYS_ADMIN: u32 = 21;

/// The capabilities that this process lacks. `None` if the kernel does not say.
pub fn missing(root: &Root) -> Option<Vec<Capability>> {
    let status = fs::read_to_string(root.path("/proc/self/status")).ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let has = |bit: u32| effective & (1 << bit) != 0;
    // CAP_SYS_ADMIN includes CAP_BPF, CAP_PERFMON and CAP_SYSLOG, which were once part of it.
    let included = |capability: &Capability| has(CAP_SYS_ADMIN) && [34, 38, 39].contains(&capability.bit);
    Some(
        CAPABILITIES.into_iter().filter(|capability| !has(capability.bit) && !included(capability)).collect(),
    )
}

/// The kernel's lockdown mode: `none`, `integrity`, `confidentiality`. `None` if it has none or does not say.
pub fn lockdown(root: &Root) -> Option<String> {
    let text = fs::read_to_string(root.path("/sys/kernel/security/lockdown")).ok()?;
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

//! The eBPF object: embedded in the binary, filled with the kernel's layout, and loaded.

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{MapData, PerCpuArray},
};
use oomtrace_common::layout::KernelLayout;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zerocopy::IntoBytes;

use crate::sources::probe::{Options, ProbeError, error::chain};

pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/oomtrace.bpf.o"));

/// Makes the maps. The programs are loaded later, one by one, because not every kernel accepts each.
pub(super) fn load(options: &Options, layout: &KernelLayout) -> Result<Ebpf, ProbeError> {
    // aya-log's levels start with error = 1. With 0 the programs contain no logging.
    let log_level: u8 = if options.debug { 4 } else { 0 };
    // Even an unused log has a ring, of at least a page.
    let log_bytes = if options.debug { 128 << 10 } else { page_bytes() };
    let mut loader = without_kernel_types(EbpfLoader::new);
    loader
        .override_global("LAYOUT", layout.as_bytes(), true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("KILLS", options.kill_ring_bytes)
        .map_max_entries("CGROUPS", options.cgroup_ring_bytes)
        .map_max_entries("WAKEUPS", page_bytes())
        .map_max_entries("AYA_LOGS", log_bytes);
    loader.load(OBJECT).map_err(|error| ProbeError::maps(&error))
}

pub(super) fn counters(ebpf: &mut Ebpf) -> Result<PerCpuArray<MapData, u64>, ProbeError> {
    let map = ebpf.take_map("COUNTERS").ok_or_else(|| ProbeError::Counters("no such map".into()))?;
    PerCpuArray::try_from(map).map_err(|error| ProbeError::Counters(chain(&error).0))
}

/// For each loader aya parses the kernel's types, which takes 19 ms and 20 MB, for relocations that these
/// programs do not have. It works without them if they cannot be opened, so for that moment no file can be
/// opened.
fn without_kernel_types<T>(make: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    let lowered = setrlimit(Resource::Nofile, none).is_ok();
    let made = make();
    if lowered {
        // Restoring the old limit is always allowed.
        let _allowed = setrlimit(Resource::Nofile, limit);
    }
    made
}

fn page_bytes() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(4096)
}

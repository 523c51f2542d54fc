//! The kernel side of oomtrace: the hooks, a few lines each.
//!
//! It copies facts. It does not format, does not decide what they mean, allocates nothing, and has no loop
//! without a limit. Every fact that may be missing has a bit that says so.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod early;
mod hang;
mod lru;
mod maps;
mod mark;
mod memcg;
mod memory;
mod run;
mod sampler;
mod signal;
mod signal_kill;
mod stack;
mod task;
mod unkilled;

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use oomtrace_common::{
    layout::MARK_VICTIM_PID,
    record::{KIND_CGROUP_MKDIR, KIND_CGROUP_RENAME, KIND_CGROUP_RMDIR, SOURCE_FENTRY, SOURCE_KPROBE},
};

use crate::{memory::layout, signal_kill::Generated};

/// `oom:mark_victim`: the base. It runs once for each victim, under `oom_lock`.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
    if layout!(mark_victim) == MARK_VICTIM_PID {
        mark::mark_victim_by_pid(&ctx, ctx.arg::<i32>(0) as u32);
    } else {
        mark::mark_victim(&ctx, ctx.arg::<u64>(0));
    }
    0
}

/// `signal:signal_generate`: on every kernel the only trace that shows whether the OOM killer really killed
/// the process that it marked, and which others it kills. It also shows who else ends processes.
///
/// It runs at each signal on the host. All signals but two end here at once.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_generate(ctx: RawTracePointContext) -> i32 {
    const SIGKILL: i32 = 9;
    const SIGTERM: i32 = 15;
    // The value that `do_send_sig_info` passes for a signal of the kernel itself.
    const SEND_SIG_PRIV: u64 = 1;
    let signal = ctx.arg::<i32>(0);
    if signal != SIGKILL && signal != SIGTERM {
        return 0;
    }
    let of = Generated {
        info: ctx.arg::<u64>(1),
        task: ctx.arg::<u64>(2),
        group: ctx.arg::<u32>(3),
        result: ctx.arg::<u32>(4),
    };
    if signal == SIGKILL && of.info == SEND_SIG_PRIV {
        signal::kernel_sent_sigkill(&ctx, of.task);
    }
    signal_kill::signal(signal as u32, of);
    0
}

/// `cgroup:cgroup_mkdir`.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    memcg::changed(KIND_CGROUP_MKDIR, ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    0
}

/// `cgroup:cgroup_rmdir`.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
    memcg::changed(KIND_CGROUP_RMDIR, ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    0
}

/// `cgroup:cgroup_rename`.
#[raw_tracepoint(tracepoint = "cgroup_rename")]
pub fn cgroup_rename(ctx: RawTracePointContext) -> i32 {
    memcg::changed(KIND_CGROUP_RENAME, ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    0
}

/// `out_of_memory(oc)`: a run of the OOM killer starts.
#[fentry(function = "out_of_memory")]
pub fn out_of_memory_fentry(ctx: FEntryContext) -> i32 {
    run::starts(&ctx, SOURCE_FENTRY, ctx.arg::<u64>(0));
    0
}

/// `oom_kill_process(oc, message)`: the OOM killer has chosen.
#[fentry(function = "oom_kill_process")]
pub fn oom_kill_process_fentry(ctx: FEntryContext) -> i32 {
    run::chooses(SOURCE_FENTRY, ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    0
}

/// As [`out_of_memory_fentry`].
#[kprobe]
pub fn out_of_memory_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(oc) = ctx.arg::<u64>(0) {
        run::starts(&ctx, SOURCE_KPROBE, oc);
    }
    0
}

/// As [`oom_kill_process_fentry`].
#[kprobe]
pub fn oom_kill_process_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(oc), Some(message)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) {
        run::chooses(SOURCE_KPROBE, oc, message);
    }
    0
}

/// `out_of_memory` returns: the run ends.
#[fexit(function = "out_of_memory")]
pub fn out_of_memory_fexit(_: FExitContext) -> i32 {
    run::ends();
    0
}

/// As [`out_of_memory_fexit`].
#[kretprobe]
pub fn out_of_memory_kretprobe(_: RetProbeContext) -> u32 {
    run::ends();
    0
}

/// `mem_cgroup_out_of_memory(memcg, gfp_mask, order)`: a cgroup has run out of memory.
#[fentry(function = "mem_cgroup_out_of_memory")]
pub fn mem_cgroup_out_of_memory_fentry(ctx: FEntryContext) -> i32 {
    unkilled::memcg_ran_out(ctx.arg::<u64>(0), ctx.arg::<u32>(1), ctx.arg::<i32>(2));
    0
}

/// As [`mem_cgroup_out_of_memory_fentry`].
#[kprobe]
pub fn mem_cgroup_out_of_memory_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(memcg), Some(gfp_mask), Some(order)) =
        (ctx.arg::<u64>(0), ctx.arg::<u32>(1), ctx.arg::<i32>(2))
    {
        unkilled::memcg_ran_out(memcg, gfp_mask, order);
    }
    0
}

/// `mem_cgroup_out_of_memory` returns. Its return value comes after its three arguments.
#[fexit(function = "mem_cgroup_out_of_memory")]
pub fn mem_cgroup_out_of_memory_fexit(ctx: FExitContext) -> i32 {
    unkilled::memcg_call_ends(SOURCE_FENTRY, ctx.arg::<u64>(3));
    0
}

/// As [`mem_cgroup_out_of_memory_fexit`].
#[kretprobe]
pub fn mem_cgroup_out_of_memory_kretprobe(ctx: RetProbeContext) -> u32 {
    unkilled::memcg_call_ends(SOURCE_KPROBE, ctx.ret::<u64>());
    0
}

/// `mem_cgroup_oom_synchronize(handle)`: a task whose page fault found no memory may have to wait.
#[fentry(function = "mem_cgroup_oom_synchronize")]
pub fn mem_cgroup_oom_synchronize_fentry(ctx: FEntryContext) -> i32 {
    hang::starts(SOURCE_FENTRY, ctx.arg::<u64>(0));
    0
}

/// As [`mem_cgroup_oom_synchronize_fentry`].
#[kprobe]
pub fn mem_cgroup_oom_synchronize_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(handle) = ctx.arg::<u64>(0) {
        hang::starts(SOURCE_KPROBE, handle);
    }
    0
}

/// `mem_cgroup_oom_synchronize` returns.
#[fexit(function = "mem_cgroup_oom_synchronize")]
pub fn mem_cgroup_oom_synchronize_fexit(_: FExitContext) -> i32 {
    hang::ends();
    0
}

/// As [`mem_cgroup_oom_synchronize_fexit`].
#[kretprobe]
pub fn mem_cgroup_oom_synchronize_kretprobe(_: RetProbeContext) -> u32 {
    hang::ends();
    0
}

/// Never attached: user space runs it with `BPF_PROG_TEST_RUN`. Each run walks a part of the tree of memory cgroups.
#[raw_tracepoint(tracepoint = "sample_cgroups")]
pub fn sample_cgroups(_: RawTracePointContext) -> i32 {
    sampler::goes_on();
    0
}

// Only GPL-compatible programs may use `bpf_probe_read_kernel`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

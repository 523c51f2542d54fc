//! Wakes the reader early, and sends a record without a second wakeup: see [`oomtrace_common::early`].
//!
//! Both run under the kernel's single `oom_lock`.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_get_smp_processor_id, bpf_ringbuf_output},
    },
};
use aya_log_ebpf::debug;
use oomtrace_common::{early::Wakeup, record::OomKill};

use crate::maps;

/// The OOM killer is entered again and again where it finds nobody to kill. Wakeups are at least this far apart, and a reader
/// that has had enough of them moves the next one further.
const PAUSE_NS: u64 = 1_000_000;

/// `out_of_memory` was entered: a victim may be marked soon.
#[inline(always)]
pub fn wake<C: EbpfContext>(ctx: &C) {
    let Some(watch) = maps::WATCH.get_ptr_mut(0) else { return };
    // SAFETY: a pointer into the map, checked for NULL; whole integers, which the reader writes too.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        // If the last wakeup was not taken yet, there is a reader that runs already, or none.
        if ptr::read_volatile(&raw const (*watch).awake) == 0
            && now >= ptr::read_volatile(&raw const (*watch).not_before_ns)
            && maps::WAKEUPS.query(BPF_RB_AVAIL_DATA.into()) == 0
        {
            ptr::write_volatile(&raw mut (*watch).not_before_ns, now + PAUSE_NS);
            send_wakeup(now);
            debug!(ctx, "out_of_memory: the reader is woken");
        }
    }
}

/// Sends the record of a victim, `size` bytes. Returns a negative number if the ring is full.
///
/// # Safety
/// `record` must have this size.
#[inline(always)]
pub unsafe fn send(record: *mut OomKill, size: u64) -> i64 {
    let was_awake = is_awake();
    // No branch: this flag is 1.
    let flags = was_awake * u64::from(BPF_RB_NO_WAKEUP);
    // SAFETY: by this function's contract. The helper's commit is a full barrier: the word is read again after it.
    let status =
        unsafe { bpf_ringbuf_output((&raw const maps::KILLS).cast_mut().cast(), record.cast(), size, flags) };
    if was_awake & !is_awake() != 0 {
        // Through the other ring, which has room whatever the ring of kills holds.
        send_wakeup(0);
    }
    status
}

/// 1 if the reader says that it looks at the ring, else 0.
#[inline(always)]
fn is_awake() -> u64 {
    let Some(watch) = maps::WATCH.get_ptr(0) else { return 0 };
    // SAFETY: a pointer into the map, checked for NULL; a whole integer, which the reader writes.
    unsafe { ptr::read_volatile(&raw const (*watch).awake) & 1 }
}

#[inline(always)]
fn send_wakeup(entered_ns: u64) {
    if let Some(mut entry) = maps::WAKEUPS.reserve::<Wakeup>(0) {
        // SAFETY: the helper takes no argument.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        entry.write(Wakeup { entered_ns, cpu: cpu.into() });
        entry.submit(BPF_RB_FORCE_WAKEUP.into());
    }
}

//! The kernel side.
#![no_std]
#![no_main]

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

/// A task was chosen to die.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(_context: RawTracePointContext) -> i32 {
    0
}

/// The kernel reads this section before it lets a program call GPL-only functions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

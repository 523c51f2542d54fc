//! A part of the kernel stack of the task that runs the OOM killer.
//!
//! If no function hook sees the OOM killer, its `oom_control` can still be read: it is a local variable of a function that has
//! not returned, above this program's arguments. User space finds it. The functions above do not run meanwhile, so it does not
//! matter when their part of the stack is read.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_get_current_task;
use oomtrace_common::{
    layout::ABSENT,
    record::{STACK_LEN, Stack},
};

use crate::memory::layout;

/// The least size and alignment of a kernel stack. Beyond its end may be a guard page.
const STACK_ALIGN: u64 = 0x4000;

/// Sets how many bytes are to be copied from `at` on: none if a function hook saw this run.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
pub unsafe fn begin(to: *mut Stack, at: u64, hooked: bool) {
    const MOST: u64 = STACK_LEN as u64;
    let left = STACK_ALIGN - (at & (STACK_ALIGN - 1));
    let wanted = if hooked || layout!(copy_stack) == ABSENT {
        0
    } else if left < MOST {
        left
    } else {
        MOST
    };
    // SAFETY: by this function's contract; all fields are integers.
    unsafe {
        (*to).at = at;
        (*to).current = bpf_get_current_task();
        (*to).reserved = 0;
        // Read back later, it is any number to the verifier: from then on it follows one path, not three.
        ptr::write_volatile(&raw mut (*to).len, wanted as u32);
    }
}

//! Signals as this program means them, whatever it was started with: a mask and what is ignored are inherited
//! from whoever starts it.

use std::{mem::MaybeUninit, ptr};

/// Signals that a run answers: whoever started it may have blocked them, for itself.
const ANSWERED: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Lets the signals through that a run answers, and takes a limit on file sizes as a full disk, not as a reason to die.
///
/// For the thread that calls it; those that it starts later inherit it.
pub fn set_up() {
    let mut answered = MaybeUninit::uninit();
    // SAFETY: the set is a local that is made empty before anything else is done with it, and lives through the
    // calls. No handler is installed: to ignore a signal runs no code of ours.
    unsafe {
        libc::sigemptyset(answered.as_mut_ptr());
        for signal in ANSWERED {
            libc::sigaddset(answered.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, answered.as_ptr(), ptr::null_mut());
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

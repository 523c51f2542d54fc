//! Sets up signals. A process inherits its signal mask and its ignored signals from its parent, so both are
//! set here.

use std::{mem::MaybeUninit, ptr};

/// Signals that end a run or reopen its output. The parent may have blocked them.
const ANSWERED: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Unblocks the signals that a run answers. Ignores SIGXFSZ: a limit on file sizes is then a write error, like a full disk. Ignores
/// SIGHUP until the session handles it: a log rotation must not end the start, and the output file is opened by name with its first
/// line anyway.
///
/// Applies to the calling thread, and to the threads that it starts later.
pub fn set_up() {
    let mut answered = MaybeUninit::uninit();
    // SAFETY: the set is a local that is emptied first and lives through the calls. No handler is installed:
    // an ignored signal runs no code of ours.
    unsafe {
        libc::sigemptyset(answered.as_mut_ptr());
        for signal in ANSWERED {
            libc::sigaddset(answered.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, answered.as_ptr(), ptr::null_mut());
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

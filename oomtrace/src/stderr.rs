//! Diagnostics while events are told: text in, standard error out, if it takes it now.
//!
//! Standard error may be the very pipe that nobody reads. A run that waited for it would tell nothing at all,
//! so what does not fit is dropped: whatever is lost for good is told in the output.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Writes `text` and a newline, or nothing.
pub fn say(text: &str) {
    let stderr = rustix::stdio::stderr();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)], Some(&now));
    if ready.is_ok_and(|ready| ready > 0) {
        // A pipe with room takes a page, which is more than any of these texts.
        let _dropped = rustix::io::write(stderr, format!("{text}\n").as_bytes());
    }
}

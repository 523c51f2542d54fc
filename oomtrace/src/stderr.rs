//! Prints messages to standard error while events are reported, without waiting.
//!
//! Standard error may be the pipe that is not read. A run that waited for it would report nothing, so a
//! message that does not fit is dropped. Real losses are also reported in the output.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Writes `text` and a newline, or nothing.
pub fn say(text: &str) {
    let stderr = rustix::stdio::stderr();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)], Some(&now));
    if ready.is_ok_and(|ready| ready > 0) {
        // A pipe with room takes a whole page, more than any of these texts.
        let _dropped = rustix::io::write(stderr, format!("{text}\n").as_bytes());
    }
}

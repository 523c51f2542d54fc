//! A saved kernel log: parses lines of `dmesg`, `journalctl` and log daemons into what the kernel wrote.
//!
//! ```text
//! line of a file ─► prefix (when, which host, which writer) ─► line of the OOM killer (as in /dev/kmsg)
//! ```
//!
//! A text log has less than `/dev/kmsg`: a newline in a name tears a line, the escapes of bytes that cannot
//! be printed cannot be decoded, and everybody who may write to the log can forge a line. Torn lines are
//! joined only if there is a single way to do it. The others are counted.

mod lines;
mod prefix;
mod time;

pub use lines::SavedLines;
pub use prefix::{Prefixes, SavedLine};

/// When a line was written, as far as a saved log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Nanoseconds since the host's boot, by the log's own clock.
    SinceBoot(u64),
    /// Nanoseconds since 1970-01-01T00:00:00Z, when a log daemon read the line.
    Utc(i128),
    /// Nanoseconds since 1970-01-01T00:00:00Z by the log's own clock.
    UtcOfLog(i128),
    /// Nanoseconds since 1970 in an unknown time zone, as if it were UTC.
    Local(i128),
}

/// The kernel's version, which the kernel writes once, at its start.
pub fn boot(text: &[u8]) -> Option<String> {
    const VERSION_BYTES: usize = 64;
    let version = text.strip_prefix(b"Linux version ")?.split(|byte| *byte == b' ').next()?;
    let version = str::from_utf8(version).ok()?;
    (!version.is_empty() && version.len() <= VERSION_BYTES).then(|| version.to_owned())
}

/// Whether `text` is what `journalctl` prints instead of a text that cannot be printed: `[123B blob data]`.
pub fn is_blob(text: &[u8]) -> bool {
    let size = text.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b" blob data]"));
    size.is_some_and(|size| size.first().is_some_and(u8::is_ascii_digit) && size.len() <= 16)
}

//! A saved kernel log: lines of `dmesg`, `journalctl` and log daemons go in, what the kernel wrote comes out.
//!
//! ```text
//! line of a file ─► prefix (when, which host, whose text) ─► line of the killer's (as of /dev/kmsg)
//! ```
//!
//! A text log has less than `/dev/kmsg`: a newline in a name tears a line, bytes that do not print are escaped in a way that
//! cannot be undone, and whoever may write to the log may forge a line. What is torn is put together where only one
//! reading is possible; the rest is counted.

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
    /// Nanoseconds since 1970-01-01T00:00:00Z, when a log daemon took the line.
    Utc(i128),
    /// The same by the log's own clock.
    UtcOfLog(i128),
    /// The same by a clock of which the time zone is not said: as if it were UTC.
    Local(i128),
}

/// What the kernel writes once, at its start: its version.
pub fn boot(text: &[u8]) -> Option<String> {
    const VERSION_BYTES: usize = 64;
    let version = text.strip_prefix(b"Linux version ")?.split(|byte| *byte == b' ').next()?;
    let version = str::from_utf8(version).ok()?;
    (!version.is_empty() && version.len() <= VERSION_BYTES).then(|| version.to_owned())
}

/// Whether it is what `journalctl` prints instead of a text with bytes that do not print: `[123B blob data]`.
pub fn is_blob(text: &[u8]) -> bool {
    let size = text.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b" blob data]"));
    size.is_some_and(|size| size.first().is_some_and(u8::is_ascii_digit) && size.len() <= 16)
}

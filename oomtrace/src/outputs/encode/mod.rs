//! Turns events into lines of bytes, including the newline. Pure: no I/O, no clock, no environment.
//!
//! Events contain text that a container chose (names, paths, labels, command lines). The result is always one
//! line.

pub mod ecs;
mod fit;
pub mod json;
pub mod text;

use crate::event::Event;

/// The most bytes of a line, including the newline. A `write(2)` of fewer than `PIPE_BUF` (4096) bytes to a
/// pipe is never mixed with another's.
pub const MAX_LINE_BYTES: usize = 4095;

/// How events are written.
#[derive(Clone, Copy, Debug)]
pub enum Render {
    /// The contract of `docs/EVENTS.md`, for programs.
    Json,
    /// Elastic Common Schema: `docs/EVENTS.md` has the mapping.
    Ecs,
    /// For people. It may change in any version.
    Text(text::Palette),
}

impl Render {
    /// Replaces the content of `out` by the line of `event`.
    ///
    /// # Errors
    /// None is known: the types of [`crate::event`] contain nothing that JSON cannot express.
    pub fn line(&self, event: &Event, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        match self {
            Self::Json => json::line(event, out),
            Self::Ecs => ecs::line(event, out),
            Self::Text(palette) => {
                text::line(event, palette, out);
                Ok(())
            }
        }
    }
}

/// Cuts `text` to at most `room` bytes, counted with `width`. A cut text ends with `…`. Returns whether it
/// was cut. `room` must hold at least the `…`.
fn cut(text: &mut String, room: usize, width: impl Fn(char) -> usize) -> bool {
    const MARK: char = '…';
    // Of most texts each byte is one character that takes one byte.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.len() <= room && text.bytes().all(is_plain) {
        return false;
    }
    let keep = room.saturating_sub(MARK.len_utf8());
    let (mut used, mut kept) = (0, 0);
    for (at, char) in text.char_indices() {
        if used <= keep {
            kept = at;
        }
        used += width(char);
        if used > room {
            text.truncate(kept);
            text.push(MARK);
            return true;
        }
    }
    false
}

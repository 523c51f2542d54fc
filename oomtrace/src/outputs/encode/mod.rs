//! Events to lines of bytes, newline included. Pure: no I/O, no clock, no environment.
//!
//! What comes in may hold text that a container chose (names, paths, labels, command
//! lines). What goes out is one line, whatever that text is.

pub mod ecs;
mod fit;
pub mod json;
pub mod text;

use crate::event::Event;

/// The most that a line may hold, newline included: a `write(2)` of fewer than `PIPE_BUF` (4096)
/// bytes to a pipe is never mixed with another's.
pub const MAX_LINE_BYTES: usize = 4095;

/// How events are written.
#[derive(Clone, Copy, Debug)]
pub enum Render {
    /// The contract of `docs/EVENTS.md`: for programs.
    Json,
    /// Elastic Common Schema: `docs/EVENTS.md` has the mapping.
    Ecs,
    /// For a person: may change in any version.
    Text(text::Palette),
}

impl Render {
    /// Replaces what is in `out` by the line of `event`.
    ///
    /// # Errors
    /// None is known: the types of [`crate::event`] hold nothing that JSON cannot.
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

/// Cuts `text` to at most `room` bytes as counted by `width`; what was cut ends with `…`.
/// Says whether it cut. `room` holds at least the mark.
fn cut(text: &mut String, room: usize, width: impl Fn(char) -> usize) -> bool {
    const MARK: char = '…';
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

//! Turns the texts of a saved log into lines of the OOM killer. A line can be torn by a newline in a name or
//! by a line of another processor: its parts are joined.

use crate::facts::kernel_log::{
    RecordMeta,
    line::{COMM_BYTES, OomLine, Print, STARTS, parse},
    pieces::{MAX_LINE_BYTES, MAYBE_CUT_BYTES},
    saved::{SavedLine, Stamp},
};

/// A byte that cannot be printed becomes `\x1b` or `#033`.
const ESCAPED_BYTES: usize = 4;

/// The starts of the pieces in which the kernel writes the `oom-kill:` line. Each path is a piece of its own.
const PIECES: [&[u8]; 7] =
    [b",cpuset=", b",mems_allowed=", b",oom_memcg=", b",global_oom", b",task_memcg=", b",task=", b"/"];

const KILLED: &[u8] = b": Killed process ";

/// Finds the OOM killer's lines of one host.
#[derive(Debug, Default)]
pub struct SavedLines {
    pending: Option<Pending>,
    /// `Killed process` lines without an end.
    pub torn_kills: u64,
    /// Lines that report a kill in an unknown format.
    pub unknown_kills: u64,
}

/// A line that is not complete yet.
#[derive(Debug)]
struct Pending {
    meta: RecordMeta,
    stamp: Stamp,
    text: Vec<u8>,
    maybe_cut: bool,
    is_kill: bool,
}

impl Pending {
    /// The text that joins this line with the next one, if that belongs to it.
    fn joint(&self, line: &SavedLine<'_>) -> Option<&'static [u8]> {
        if !self.is_kill && (line.continues || PIECES.iter().any(|piece| line.text.starts_with(piece))) {
            return Some(b"");
        }
        // Some logs give each line of a text the same time. Only a comm can contain a newline.
        let in_comm = self.is_kill || self.text.windows(6).any(|window| window == b",task=");
        (in_comm && self.stamp == line.stamp).then_some(b"\n")
    }

    fn add(&mut self, joint: &[u8], piece: &[u8]) -> Option<OomLine> {
        if self.text.len() + piece.len() > MAX_LINE_BYTES {
            return None;
        }
        self.text.extend_from_slice(joint);
        self.text.extend_from_slice(piece);
        self.maybe_cut |= piece.len() >= MAYBE_CUT_BYTES;
        parse(&self.text, print(self.maybe_cut))
    }
}

impl SavedLines {
    /// Takes the next line of the kernel. Returns the OOM killer's line that is complete with it. Number and
    /// time are those of the line's first piece.
    pub fn push(&mut self, meta: RecordMeta, line: &SavedLine<'_>) -> Option<(RecordMeta, Stamp, OomLine)> {
        let text = &*line.text;
        let maybe_cut = text.len() >= MAYBE_CUT_BYTES;
        if !line.continues
            && let Some(found) = parse(text, print(maybe_cut))
        {
            self.end();
            return Some((meta, line.stamp, found));
        }
        if let Some(joint) = self.pending.as_ref().and_then(|pending| pending.joint(line)) {
            return self.add(joint, text);
        }
        let is_kill =
            text.starts_with(b"Killed process ") || text.windows(KILLED.len()).any(|at| at == KILLED);
        let has_end = text.windows(9).any(|at| at == b"total-vm:");
        let is_start = STARTS.iter().any(|start| text.starts_with(start));
        if is_start || is_kill && !has_end {
            self.end();
            let (stamp, text) = (line.stamp, text.to_vec());
            self.pending = Some(Pending { meta, stamp, text, maybe_cut, is_kill: !is_start });
        } else if is_kill {
            self.unknown_kills += 1;
        }
        None
    }

    /// Takes a line without a prefix: the text after a newline in the line before.
    pub fn push_rest(&mut self, text: &[u8]) -> Option<(RecordMeta, Stamp, OomLine)> {
        self.add(b"\n", text.trim_ascii_start())
    }

    /// Drops an unfinished line, because no more of it comes.
    pub fn end(&mut self) {
        let pending = self.pending.take();
        self.torn_kills += u64::from(pending.is_some_and(|pending| pending.is_kill));
    }

    fn add(&mut self, joint: &[u8], piece: &[u8]) -> Option<(RecordMeta, Stamp, OomLine)> {
        let pending = self.pending.as_mut()?;
        let line = pending.add(joint, piece)?;
        let (meta, stamp) = (pending.meta, pending.stamp);
        self.pending = None;
        Some((meta, stamp, line))
    }
}

fn print(maybe_cut: bool) -> Print {
    Print { maybe_cut, comm_bytes: COMM_BYTES * ESCAPED_BYTES }
}

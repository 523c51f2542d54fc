//! Turns records into lines: joins what the kernel wrote in pieces.

use crate::facts::kernel_log::{
    line::{COMM_BYTES, OomLine, Print, STARTS, parse},
    record::{self, RecordMeta},
};

/// A piece of this length may have been cut by the kernel, which keeps a little under 1024 bytes of one
/// call's text (976 on the strictest configuration).
pub(super) const MAYBE_CUT_BYTES: usize = 900;

/// A line in pieces contains two paths and little else.
pub(super) const MAX_LINE_BYTES: usize = 3 * 4096;

/// Finds the OOM killer's lines among records, and joins lines that the kernel wrote in pieces.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Option<Pending>,
}

/// A line that is not complete yet.
#[derive(Debug)]
struct Pending {
    meta: RecordMeta,
    last_seq: u64,
    text: Vec<u8>,
    maybe_cut: bool,
}

impl Lines {
    /// Takes the next record. Returns the line that is complete with it. Number and time are those of the
    /// line's first piece.
    pub fn push(&mut self, raw: &[u8]) -> Option<(RecordMeta, OomLine)> {
        let (meta, text) = record::parse(raw)?;
        if !meta.is_kernel() {
            return None;
        }
        if meta.continues {
            return self.extend(meta, &text);
        }
        // A new line ends an unfinished one of the same writer. Without its id the writer cannot be
        // identified.
        self.pending.take_if(|pending| meta.caller.is_none() || pending.meta.caller == meta.caller);
        let maybe_cut = text.len() >= MAYBE_CUT_BYTES;
        if let Some(line) = parse(&text, print(maybe_cut)) {
            return Some((meta, line));
        }
        if STARTS.iter().any(|start| text.starts_with(start)) {
            self.pending = Some(Pending { meta, last_seq: meta.seq, text: text.into_owned(), maybe_cut });
        }
        None
    }

    /// Drops an unfinished line, because records were lost.
    pub fn reset(&mut self) {
        self.pending = None;
    }

    fn extend(&mut self, meta: RecordMeta, piece: &[u8]) -> Option<(RecordMeta, OomLine)> {
        let pending = self.pending.as_mut()?;
        // Without a caller's id only the next record certainly belongs to the same line.
        let same = match (pending.meta.caller, meta.caller) {
            (Some(before), Some(now)) => before == now,
            _ => pending.last_seq.checked_add(1) == Some(meta.seq),
        };
        if !same || pending.text.len() + piece.len() > MAX_LINE_BYTES {
            return None;
        }
        pending.text.extend_from_slice(piece);
        pending.last_seq = meta.seq;
        pending.maybe_cut |= piece.len() >= MAYBE_CUT_BYTES;
        let line = parse(&pending.text, print(pending.maybe_cut))?;
        let meta = pending.meta;
        self.pending = None;
        Some((meta, line))
    }
}

/// `/dev/kmsg` escapes what cannot be printed. The escapes are decoded, so a comm has its own bytes.
fn print(maybe_cut: bool) -> Print {
    Print { maybe_cut, comm_bytes: COMM_BYTES }
}

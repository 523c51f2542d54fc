//! The parts of a kill record that have no fixed length: each starts where the one before it ends.

use oomtrace_common::record::{self as wire, KIND_OOM_KILL, MemcgLevel};
use zerocopy::FromBytes;

use crate::facts::{DecodeError, prefix};

/// The parts after the head of a kill record.
pub(super) struct Parts<'a> {
    /// The memory cgroups.
    pub(super) levels: Vec<MemcgLevel>,
    /// Their names.
    pub(super) path: &'a [u8],
    /// The victim's arguments.
    pub(super) command_line: &'a [u8],
    /// A part of a kernel stack.
    pub(super) stack: &'a [u8],
}

/// The head of a kill record, and its parts. Together they must be as long as the record.
pub(super) fn of_kill(bytes: &[u8]) -> Result<(wire::OomKill, Parts<'_>), DecodeError> {
    let head = prefix::<wire::OomKill>(KIND_OOM_KILL, bytes)?;
    let lengths = [
        u64::from(head.lineage.level_count) * size_of::<MemcgLevel>() as u64,
        head.lineage.path_len.into(),
        head.command_line_len.into(),
        head.stack.len.into(),
    ];
    let needed = lengths.iter().fold(size_of::<wire::OomKill>() as u64, |sum, len| sum.saturating_add(*len));
    if needed != bytes.len() as u64 {
        let says = u32::try_from(needed).unwrap_or(u32::MAX);
        return Err(DecodeError::Length { kind: KIND_OOM_KILL, says, len: bytes.len() });
    }
    let mut rest = bytes.get(size_of::<wire::OomKill>()..).unwrap_or_default();
    let [levels, path, command_line, stack] = lengths.map(|len| {
        let (part, after) =
            rest.split_at_checked(usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or((rest, &[]));
        rest = after;
        part
    });
    let levels = levels.chunks_exact(size_of::<MemcgLevel>());
    let levels = levels.filter_map(|level| MemcgLevel::read_from_bytes(level).ok()).collect();
    Ok((head, Parts { levels, path, command_line, stack }))
}

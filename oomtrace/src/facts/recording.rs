//! Makes a record safe for a recording. The file may be given to others, so it must contain no kernel address and no
//! part of a kernel stack.

use std::{borrow::Cow, mem::offset_of};

use oomtrace_common::record::{self as wire, Header, KIND_MEMCG_OOM, KIND_OOM_KILL, MemcgLevel};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::facts::{Found, parts, prefix_zero_filled};

/// The record without its stack, but with the state that was found in it.
pub fn recording<'a>(record: &'a [u8], found: Option<&Found>) -> Cow<'a, [u8]> {
    let header = Header::read_from_prefix(record).ok().map(|(header, _)| header);
    let len = header.map_or(0, |header| usize::try_from(header.len).unwrap_or(usize::MAX));
    let sent = record.get(..len).unwrap_or(record);
    let kept = match header.map_or(0, |header| header.kind) {
        KIND_OOM_KILL => oom_kill(sent, found),
        KIND_MEMCG_OOM => memcg_oom(sent),
        _ => None,
    };
    // A record that cannot be read has no known stack.
    kept.map_or(Cow::Borrowed(record), Cow::Owned)
}

fn oom_kill(record: &[u8], found: Option<&Found>) -> Option<Vec<u8>> {
    let (mut head, mut parts) = parts::of_kill(record).ok()?;
    if let Some(Found { oom, run }) = found {
        (head.oom, head.run) = (*oom, *run);
    }
    head.stack = wire::Stack::new_zeroed();
    without_addresses(&mut parts.levels);
    let levels = parts.levels.as_bytes();
    let len = [levels.len(), parts.path.len(), parts.command_line.len()].iter().sum::<usize>();
    head.header.len = u32::try_from(size_of::<wire::OomKill>() + len).ok()?;
    Some([head.as_bytes(), levels, parts.path, parts.command_line].concat())
}

fn memcg_oom(record: &[u8]) -> Option<Vec<u8>> {
    let mut raw = prefix_zero_filled::<wire::MemcgOom>(record, offset_of!(wire::MemcgOom, levels)).ok()?;
    without_addresses(&mut raw.levels);
    raw.as_bytes().get(..record.len()).map(<[u8]>::to_vec)
}

fn without_addresses(levels: &mut [MemcgLevel]) {
    for level in levels {
        level.address = 0;
    }
}

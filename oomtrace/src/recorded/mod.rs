//! Lines that an earlier run wrote: files in, an event for each line out, or as much of one as is understood.

mod files;
mod order;
mod row;
mod service;
mod tally;
mod twice;

use std::borrow::Cow;

use serde::Deserialize;

use crate::event::{Event, SCHEMA};

pub use files::Files;
pub use row::Row;
pub use service::Service;
pub use tally::Tally;
pub use twice::Twice;

/// How each line begins.
pub const BEGINS: &[u8] = b"{\"schema\":";

/// What is read of a line; oomtrace's own have less than 4096 bytes. Whatever is kept of lines is bounded by this too.
const LINE_BYTES: usize = 8 << 10;

/// A line that is one of oomtrace's.
#[derive(Debug)]
pub struct Recorded<'a> {
    /// The line, without what stood before it.
    pub text: &'a str,
    /// What every line has.
    pub head: Head<'a>,
    /// Bytes stood before it that are no line: a line was torn, and this one follows it.
    pub follows_torn: bool,
}

/// What every line has, whatever its type is.
#[derive(Debug, Deserialize)]
pub struct Head<'a> {
    /// The version of the contract.
    pub schema: u64,
    /// The type.
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// When it happened.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// The event in words.
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    /// Where it is from.
    #[serde(borrow)]
    pub origin: Cow<'a, str>,
    /// Its number.
    pub seq: Option<u64>,
    /// Who counts.
    #[serde(borrow)]
    pub stream: Option<Cow<'a, str>>,
    /// Its name, if it has no number.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// Where it happened.
    #[serde(borrow, default)]
    pub host: HostName<'a>,
}

/// The name of a host.
#[derive(Debug, Default, Deserialize)]
pub struct HostName<'a> {
    /// `uname -n`.
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
}

impl<'a> Recorded<'a> {
    /// Reads a line; `None` if it is none of oomtrace's, or torn.
    pub fn of(line: &'a [u8]) -> Option<Self> {
        if let Some(whole) = Self::whole(line, false) {
            return Some(whole);
        }
        // What was written after a crash may follow a line that has no end, or a block of zeros.
        let last = line.windows(BEGINS.len()).rposition(|window| window == BEGINS).filter(|at| *at > 0)?;
        Self::whole(line.get(last..)?, true)
    }

    fn whole(line: &'a [u8], follows_torn: bool) -> Option<Self> {
        let text = str::from_utf8(line).ok()?;
        let head: Head<'_> = serde_json::from_str(text).ok()?;
        is_time(&head.time).then_some(Self { text, head, follows_torn })
    }

    /// The event; `None` if its type, its version or a word in it is not known here.
    pub fn event(&self) -> Option<Event> {
        if !self.is_of_this_version() {
            return None;
        }
        let text = self.text;
        Some(match &*self.head.r#type {
            "oom_kill" => Event::OomKill(serde_json::from_str(text).ok()?),
            "shared_mm_kill" => Event::SharedMmKill(serde_json::from_str(text).ok()?),
            "memcg_oom" => Event::MemcgOom(serde_json::from_str(text).ok()?),
            "signal_kill" => Event::SignalKill(serde_json::from_str(text).ok()?),
            "incident" => Event::Incident(serde_json::from_str(text).ok()?),
            "limit_near" => Event::LimitNear(serde_json::from_str(text).ok()?),
            "limit_far" => Event::LimitFar(serde_json::from_str(text).ok()?),
            "usage" => Event::Usage(serde_json::from_str(text).ok()?),
            "host_memory" => Event::HostMemory(serde_json::from_str(text).ok()?),
            "stuck" => Event::Stuck(serde_json::from_str(text).ok()?),
            "start" => Event::Start(serde_json::from_str(text).ok()?),
            "lost" => Event::Lost(serde_json::from_str(text).ok()?),
            "gap" => Event::Gap(serde_json::from_str(text).ok()?),
            "hooks" => Event::Hooks(serde_json::from_str(text).ok()?),
            "verdict" => Event::Verdict(serde_json::from_str(text).ok()?),
            "stop" => Event::Stop(serde_json::from_str(text).ok()?),
            _ => return None,
        })
    }

    /// Whether its keys have the meaning that they have here.
    pub fn is_of_this_version(&self) -> bool {
        self.head.schema == u64::from(SCHEMA)
    }

    /// Whether the time is one of the calendar. A kill of a saved kernel log may have only the time since boot.
    pub fn has_calendar_time(&self) -> bool {
        self.head.origin != "kmsg" || !self.head.time.starts_with("1970-")
    }
}

/// Whether it is RFC 3339 in UTC with nine digits: such texts sort as their times do.
fn is_time(text: &str) -> bool {
    const LIKE: &[u8; 30] = b"0000-00-00T00:00:00.000000000Z";
    text.len() == LIKE.len()
        && text.bytes().zip(LIKE).all(|(byte, like)| match like {
            b'0' => byte.is_ascii_digit(),
            like => byte == *like,
        })
}

//! Parses what a tracer printed in all its runs, for the account.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::victims::Victim;
use crate::tracer::at;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// `resumed`.
    Start(bool),
    Kill {
        seq: u64,
        /// False if the process was already exiting: the kernel counts no kill then.
        counted: bool,
        victim: Victim,
        time: String,
        /// Where the OOM killer's own state was found; empty if nowhere.
        evidence: String,
    },
    Lost {
        reason: String,
        count: u64,
        total: Option<u64>,
    },
    Gap(String),
    /// `events` and `lost` of the run.
    Stop,
    Other(String),
    /// Half a line, left by a process that was killed while it wrote.
    Cut(String),
}

/// All lines of a text whose last line is complete.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Line>> {
    let text = std::str::from_utf8(text).context("lines that are not UTF-8")?;
    ensure!(text.is_empty() || text.ends_with('\n'), "a torn end: {:?}", text.lines().last());
    text.lines().map(line).collect()
}

/// One line, without its end.
pub(super) fn line(text: &str) -> Result<Line> {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Ok(Line::Cut(text.to_owned())) };
    ensure!(text.len() < 4096, "a line of {} bytes: {text}", text.len());
    let word = |key: &str| at(&value, key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| at(&value, key).and_then(Value::as_u64);
    let kind = word("type");
    Ok(match kind.as_str() {
        "start" => Line::Start(value.get("resumed") == Some(&true.into())),
        "oom_kill" => Line::Kill {
            seq: number("seq").with_context(|| format!("a kill without a number: {text}"))?,
            counted: word("oom.kill") != "already_exiting",
            victim: Victim {
                cgroup: word("victim.cgroup.path"),
                pid: number("victim.pid").with_context(|| format!("a kill of nobody: {text}"))?,
            },
            time: word("time"),
            evidence: word("oom.evidence"),
        },
        "lost" => Line::Lost {
            reason: word("reason"),
            count: number("count").with_context(|| format!("no count: {text}"))?,
            total: number("total"),
        },
        "gap" => Line::Gap(text.to_owned()),
        "stop" => Line::Stop,
        _ => Line::Other(kind),
    })
}

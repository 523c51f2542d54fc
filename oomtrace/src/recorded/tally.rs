//! What was found in recorded files besides events: what was left out, and what was not understood.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    path::Path,
};

use crate::{recorded::Recorded, saved, stderr::say};

/// Streams whose latest line is remembered.
const STREAMS: usize = 1024;

/// What was found.
#[derive(Debug, Default)]
pub struct Tally {
    /// Lines that were there before.
    pub twice: u64,
    /// Kills without a time of the calendar.
    pub without_time: u64,
    /// Lines of a type, of a version or with a word that is not known here.
    pub other_version: u64,
    /// Some of what is not understood looks like a kernel's log.
    pub kernel_log: bool,
    /// How often a later event of a stream has an earlier time.
    steps: u64,
    unknown: u64,
    first_unknown: Option<String>,
    /// Number and time of the latest event of each stream.
    latest: HashMap<u64, (u64, String)>,
    hasher: RandomState,
}

impl Tally {
    /// Counts a line that is torn, too long, or none of oomtrace's.
    pub fn unknown(&mut self, file: &Path, number: u64) {
        self.unknown += 1;
        self.first_unknown.get_or_insert_with(|| format!("line {number} of {}", saved::name(file)));
    }

    /// Looks whether the clock was set back between two events.
    pub fn see(&mut self, line: &Recorded<'_>) {
        let head = &line.head;
        let (Some(stream), Some(seq)) = (&head.stream, head.seq) else { return };
        let stream = self.hasher.hash_one(stream);
        let Some((latest, time)) = self.latest.get_mut(&stream) else {
            if self.latest.len() < STREAMS {
                self.latest.insert(stream, (seq, head.time.clone().into_owned()));
            }
            return;
        };
        if seq > *latest {
            // To the second: the order within one is that of the events, not of the clock.
            self.steps += u64::from(head.time.get(..19) < time.get(..19));
            *latest = seq;
            time.clear();
            time.push_str(&head.time);
        }
    }

    /// Says what is no error.
    pub fn say(&self) {
        for (count, what) in [
            (self.twice, "lines were written twice, and are taken once"),
            (
                self.steps,
                "times the clock was set back between two events: lines are taken in the order in which they were written",
            ),
            (
                self.without_time,
                "kills have only the time since boot: they are taken in spite of --since and --until",
            ),
        ] {
            if count > 0 {
                say(&format!("oomtrace: {count} {what}"));
            }
        }
    }

    /// What was not understood, in words.
    pub fn not_understood(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(first) = &self.first_unknown {
            let lines = if self.unknown == 1 { "line is" } else { "lines are" };
            parts.push(format!("{} {lines} torn or not oomtrace's (the first is {first})", self.unknown));
        }
        if self.other_version > 0 {
            let count = self.other_version;
            parts.push(format!(
                "{count} lines are of another version (their types or words are not known here)"
            ));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

//! Reads the kills of a saved log one by one, in bounded memory, each with its time and its host.

mod reader;

use std::{
    collections::VecDeque,
    io::{self, BufRead},
};

pub use reader::Unread;
use reader::{Entry, Reader};

use crate::{
    event::Host,
    facts::kernel_log::{
        Kills, LoggedKill, OomLine, RecordMeta,
        saved::{self, SavedLine, SavedLines, Stamp},
    },
};

/// The most hosts and boots whose lines may be mixed. With more, the one with the oldest line is ended.
const HOSTS: usize = 64;

/// A kill of a saved log.
#[derive(Clone, Debug)]
pub struct SavedKill {
    /// What the log says about it.
    pub kill: LoggedKill,
    /// The time.
    pub stamp: Stamp,
    /// The host, as far as the log names it.
    pub host: Host,
}

/// What a log has besides kills, and what could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Reports that the kernel says it left out.
    pub suppressed: u64,
    /// Victims that were exiting already.
    pub exiting: u64,
    /// Runs of the OOM killer that found no process to kill.
    pub nobody: u64,
    /// Lines of kills that are not complete.
    pub torn: u64,
    /// Lines that report a kill in an unknown format.
    pub unknown_kills: u64,
    /// Texts that `journalctl` left out because they cannot be printed.
    pub blobs: u64,
    /// Lines that could not be read.
    pub unread: Unread,
}

impl Tally {
    /// Counts a line of the OOM killer.
    pub fn count(&mut self, line: &OomLine) {
        match line {
            OomLine::Suppressed(count) => self.suppressed = self.suppressed.saturating_add(*count),
            OomLine::AlreadyExiting(_) => self.exiting += 1,
            OomLine::NoneKillable => self.nobody += 1,
            _ => {}
        }
    }

    /// Whether a part of the log was not understood.
    pub fn is_incomplete(&self) -> bool {
        let Unread { unknown, long, .. } = self.unread;
        [self.torn, self.unknown_kills, self.blobs, unknown, long].iter().any(|count| *count > 0)
    }
}

/// Reads the kills of a log.
#[derive(Debug)]
pub struct SavedLog<R> {
    reader: Reader<R>,
    hosts: Hosts,
}

impl<R: BufRead> SavedLog<R> {
    /// Reads a log that was written before `now`, nanoseconds since 1970.
    pub fn new(input: R, now: i128) -> Self {
        Self { reader: Reader::new(input, now), hosts: Hosts::default() }
    }

    /// The counts so far.
    pub fn tally(&self) -> Tally {
        Tally { unread: self.reader.unread, ..self.hosts.tally }
    }
}

impl<R: BufRead> Iterator for SavedLog<R> {
    type Item = io::Result<SavedKill>;

    /// The next kill, or why the log cannot be read.
    fn next(&mut self) -> Option<Self::Item> {
        while self.hosts.found.is_empty() {
            match self.reader.next_entry() {
                Ok(Some(Entry::Line { line, boot_id })) => self.hosts.take(&line, boot_id),
                Ok(Some(Entry::Rest(text))) => self.hosts.take_rest(text),
                Ok(Some(Entry::Nothing)) => {}
                Ok(None) => {
                    self.hosts.end();
                    break;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.hosts.found.pop_front().map(Ok)
    }
}

/// The hosts and boots whose lines are mixed in one log.
#[derive(Debug, Default)]
struct Hosts {
    list: Vec<OneBoot>,
    found: VecDeque<SavedKill>,
    tally: Tally,
    lines: u64,
}

/// The lines of one host since one boot.
#[derive(Debug)]
struct OneBoot {
    host: Host,
    lines: SavedLines,
    kills: Kills<Stamp>,
    /// The number of its latest line.
    latest: u64,
}

impl Hosts {
    fn take(&mut self, line: &SavedLine<'_>, boot_id: Option<String>) {
        self.lines += 1;
        if !line.is_kernel {
            return;
        }
        self.tally.blobs += u64::from(saved::is_blob(&line.text));
        let number = self.lines;
        let same =
            |one: &OneBoot| one.host.name.as_deref() == line.host.as_deref() && one.host.boot_id == boot_id;
        let at = match self.list.iter().position(same) {
            Some(at) => at,
            None => {
                let name = line.host.as_deref().map(str::to_owned);
                self.add(Host { name, boot_id, kernel: None })
            }
        };
        let Some(boot) = self.list.get_mut(at) else { return };
        boot.latest = number;
        if let Some(version) = saved::boot(&line.text) {
            boot.end(&mut self.found, &mut self.tally);
            boot.host.kernel = Some(version);
            return;
        }
        let time_us = match line.stamp {
            Stamp::SinceBoot(ns) => ns / 1000,
            Stamp::Utc(_) | Stamp::UtcOfLog(_) | Stamp::Local(_) => 0,
        };
        let meta = RecordMeta { seq: number, time_us, facility: 0, level: 0, continues: false, caller: None };
        let found = boot.lines.push(meta, line);
        boot.take(found, &mut self.found, &mut self.tally);
    }

    /// A line without a prefix continues the line before it.
    fn take_rest(&mut self, text: &[u8]) {
        if let Some(boot) = self.list.iter_mut().max_by_key(|boot| boot.latest) {
            let found = boot.lines.push_rest(text);
            boot.take(found, &mut self.found, &mut self.tally);
        }
    }

    /// Adds a host and returns its index.
    fn add(&mut self, host: Host) -> usize {
        if self.list.len() >= HOSTS {
            let oldest = self.list.iter().enumerate().min_by_key(|(_, boot)| boot.latest).map(|(at, _)| at);
            let mut oldest = self.list.swap_remove(oldest.unwrap_or(0));
            oldest.end(&mut self.found, &mut self.tally);
        }
        self.list.push(OneBoot { host, lines: SavedLines::default(), kills: Kills::default(), latest: 0 });
        self.list.len() - 1
    }

    fn end(&mut self) {
        for mut boot in self.list.drain(..) {
            boot.end(&mut self.found, &mut self.tally);
        }
    }
}

impl OneBoot {
    fn take(
        &mut self,
        line: Option<(RecordMeta, Stamp, OomLine)>,
        found: &mut VecDeque<SavedKill>,
        tally: &mut Tally,
    ) {
        let Some((meta, stamp, line)) = line else { return };
        tally.count(&line);
        let complete = self.kills.push(meta, line, stamp);
        found.extend(complete.map(|kill| self.named(kill)));
    }

    /// Ends this boot: no more of its lines come.
    fn end(&mut self, found: &mut VecDeque<SavedKill>, tally: &mut Tally) {
        let last = self.kills.end();
        found.extend(last.map(|kill| self.named(kill)));
        self.lines.end();
        tally.torn += std::mem::take(&mut self.lines.torn_kills);
        tally.unknown_kills += std::mem::take(&mut self.lines.unknown_kills);
    }

    fn named(&self, (kill, stamp): (LoggedKill, Stamp)) -> SavedKill {
        SavedKill { kill, stamp, host: self.host.clone() }
    }
}

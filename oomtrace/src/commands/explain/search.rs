//! The kill that is asked for, the lines that belong to it, and the other kills of its service.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use crate::{
    event::{Event, OomKill},
    filter::Filter,
    recorded::{Recorded, Row, Service},
};

/// Lines that may belong to one kill.
const RELATED: usize = 32;
/// Services whose kills are remembered.
const SERVICES: usize = 16_384;
/// Latest kills of a service whose times are remembered.
const TIMES: usize = 16;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kill: Box<OomKill>,
    pub(super) service: Service,
    /// Lines about this kill.
    pub(super) related: Vec<Event>,
    /// How many more lines about it there were.
    pub(super) more_related: u64,
    /// Kills of its service; `None` if there are too many services.
    pub(super) history: Option<History>,
    /// How many kills in the files have the number that was asked for.
    pub(super) same_number: u64,
    /// `lost` and `gap` lines of its stream.
    pub(super) losses: u64,
}

/// The kills of a service.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) kills: u64,
    pub(super) first: String,
    /// The latest, in the order of the lines.
    pub(super) times: VecDeque<String>,
}

/// Looks at each line once.
#[derive(Debug)]
pub(super) struct Search {
    filter: Filter,
    seq: Option<u64>,
    found: Option<Found>,
    services: HashMap<Service, History>,
    /// `lost` and `gap` lines by stream.
    losses: HashMap<String, u64>,
}

impl Search {
    pub(super) fn new(filter: Filter, seq: Option<u64>) -> Self {
        Self { filter, seq, found: None, services: HashMap::new(), losses: HashMap::new() }
    }

    /// Looks at a line. Returns whether it was understood.
    pub(super) fn see(&mut self, line: &Recorded<'_>) -> bool {
        let Some(event) = line.event() else { return false };
        match event {
            Event::OomKill(kill) => self.kill(line, kill),
            Event::Lost(_) | Event::Gap(_) => {
                let stream = line.head.stream.as_deref().unwrap_or_default();
                if self.losses.len() < SERVICES || self.losses.contains_key(stream) {
                    *self.losses.entry(stream.to_owned()).or_default() += 1;
                }
            }
            event => self.related(event),
        }
        true
    }

    fn kill(&mut self, line: &Recorded<'_>, kill: Box<OomKill>) {
        // What the event has, a row has.
        let row: Row<'_> = serde_json::from_str(line.text).unwrap_or_default();
        let service = Service::of(&row);
        if let Some(history) = self.history(&service) {
            history.add(&line.head.time);
        }
        let event = Event::OomKill(kill);
        let takes = self.filter.takes(&event) && self.seq.is_none_or(|seq| line.head.seq == Some(seq));
        let Event::OomKill(kill) = event else { return };
        if takes {
            let same_number = self.found.as_ref().map_or(0, |found| found.same_number) + 1;
            self.found = Some(Found {
                kill,
                service,
                related: Vec::new(),
                more_related: 0,
                history: None,
                same_number,
                losses: 0,
            });
        }
    }

    fn history(&mut self, service: &Service) -> Option<&mut History> {
        if !self.services.contains_key(service) {
            if self.services.len() >= SERVICES {
                return None;
            }
            self.services.insert(service.clone(), History::default());
        }
        self.services.get_mut(service)
    }

    /// Keeps a line that names the number of the kill.
    fn related(&mut self, event: Event) {
        let Some(found) = &mut self.found else { return };
        let kill = &found.kill.envelope;
        let (Some(seq), true) = (kill.seq, kill.stream == event.envelope().stream) else { return };
        if !event.of().contains(&seq) {
            return;
        }
        if found.related.len() < RELATED {
            found.related.push(event);
        } else {
            found.more_related += 1;
        }
    }

    /// What was found, if anything.
    pub(super) fn end(mut self) -> Option<Found> {
        let mut found = self.found.take()?;
        found.history = self.services.get_mut(&found.service).map(mem::take);
        let stream = found.kill.envelope.stream.as_deref().unwrap_or_default();
        found.losses = self.losses.get(stream).copied().unwrap_or(0);
        Some(found)
    }
}

impl History {
    fn add(&mut self, time: &str) {
        self.kills += 1;
        if self.first.is_empty() {
            time.clone_into(&mut self.first);
        }
        if self.times.len() >= TIMES {
            self.times.pop_front();
        }
        self.times.push_back(time.to_owned());
    }
}

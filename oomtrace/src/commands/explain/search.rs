//! The kill that is asked for, the lines that belong to it, and the other kills of its service.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use crate::{
    event::{Event, LimitNear, OomKill, Owner, service},
    filter::{Filter, is_name_of},
    recorded::Recorded,
};

/// Lines that may belong to one kill.
const RELATED: usize = 32;
/// Services whose kills are remembered, and streams whose losses are.
const SERVICES: usize = 16_384;
/// Cgroups whose last warning is remembered.
const WARNED: usize = 1024;
/// Latest kills of a service whose times are remembered.
const TIMES: usize = 16;

/// Which kill is asked for, of those that the filters take.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The last.
    Last,
    /// The one with this number.
    Number(u64),
    /// The last of this container, pod, unit or service.
    Of(String),
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kill: Box<OomKill>,
    /// `KIND:NAME` of its service, if anything names it.
    pub(super) service: Option<String>,
    /// The last warning that its limit came near.
    pub(super) warned: Option<Box<LimitNear>>,
    /// Lines about this kill.
    pub(super) related: Vec<Event>,
    /// How many more lines about it there were.
    pub(super) more_related: u64,
    /// Kills of its service; `None` if there are too many services.
    pub(super) history: Option<History>,
    /// How many kills in the files are such as was asked for.
    pub(super) taken: u64,
    /// `lost` and `gap` lines of its stream; `None` if there are too many streams.
    pub(super) losses: Option<u64>,
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
    wanted: Wanted,
    found: Option<Found>,
    services: HashMap<String, History>,
    /// `lost` and `gap` lines by stream.
    losses: HashMap<String, u64>,
    /// The last `limit_near` line by boot and cgroup.
    near: HashMap<(String, String), Box<LimitNear>>,
    /// Such a line was of a stream that is not remembered.
    other_losses: bool,
}

impl Search {
    pub(super) fn new(filter: Filter, wanted: Wanted) -> Self {
        Self {
            filter,
            wanted,
            found: None,
            services: HashMap::new(),
            losses: HashMap::new(),
            near: HashMap::new(),
            other_losses: false,
        }
    }

    /// Looks at a line. Returns whether it was understood.
    pub(super) fn see(&mut self, line: &Recorded<'_>) -> bool {
        let Some(event) = line.event() else { return false };
        match event {
            Event::OomKill(kill) => self.kill(kill),
            Event::Lost(_) | Event::Gap(_) => {
                let stream = line.head.stream.as_deref().unwrap_or_default();
                if self.losses.len() < SERVICES || self.losses.contains_key(stream) {
                    *self.losses.entry(stream.to_owned()).or_default() += 1;
                } else {
                    self.other_losses = true;
                }
            }
            Event::LimitNear(near) => {
                let key = place(near.envelope.host.boot_id.as_ref(), near.cgroup.id.as_ref());
                if let Some(key) = key.filter(|key| self.near.len() < WARNED || self.near.contains_key(key)) {
                    self.near.insert(key, near);
                }
            }
            event => self.related(event),
        }
        true
    }

    fn kill(&mut self, kill: Box<OomKill>) {
        let event = Event::OomKill(kill);
        let filtered = self.filter.takes(&event);
        let Event::OomKill(kill) = event else { return };
        let owner = Owner::new(kill.container.as_ref(), kill.k8s.as_ref(), kill.systemd.as_ref());
        let service = service(owner, kill.victim.cgroup.path.as_deref());
        let is_wanted = match &self.wanted {
            Wanted::Last => true,
            Wanted::Number(seq) => kill.envelope.seq == Some(*seq),
            Wanted::Of(name) => {
                is_name_of(name, owner) || service.as_deref().is_some_and(|key| is_key(name, key))
            }
        };
        if let Some(history) = service.as_deref().and_then(|service| self.history(service)) {
            history.add(&kill.envelope.time);
        }
        if filtered && is_wanted {
            let taken = self.found.as_ref().map_or(0, |found| found.taken) + 1;
            let fired = kill.oom.cgroup.as_ref().and_then(|cgroup| cgroup.cgroup.id.as_ref());
            let warned =
                place(kill.envelope.host.boot_id.as_ref(), fired).and_then(|key| self.near.get(&key));
            let warned = warned.filter(|near| near.envelope.time < kill.envelope.time).cloned();
            self.found = Some(Found {
                kill,
                warned,
                service,
                related: Vec::new(),
                more_related: 0,
                history: None,
                taken,
                losses: None,
            });
        }
    }

    fn history(&mut self, service: &str) -> Option<&mut History> {
        if !self.services.contains_key(service) {
            if self.services.len() >= SERVICES {
                return None;
            }
            self.services.insert(service.to_owned(), History::default());
        }
        self.services.get_mut(service)
    }

    /// Keeps a line that names the number of the kill.
    fn related(&mut self, event: Event) {
        let Some(found) = &mut self.found else { return };
        let kill = &found.kill.envelope;
        let (Some(seq), true) = (kill.seq, kill.stream == event.envelope().stream) else { return };
        // A run's line names only its first kills.
        let of_run = matches!(event, Event::Incident(_) | Event::HostMemory(_))
            && event.of().contains(&found.kill.run());
        if !of_run && !event.of().contains(&seq) {
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
        found.history =
            found.service.as_ref().and_then(|service| self.services.get_mut(service)).map(mem::take);
        let stream = found.kill.envelope.stream.as_deref().unwrap_or_default();
        found.losses = self.losses.get(stream).copied().or((!self.other_losses).then_some(0));
        Some(found)
    }
}

/// A cgroup's id is its own only in one boot.
fn place(boot: Option<&String>, cgroup: Option<&String>) -> Option<(String, String)> {
    Some((boot?.clone(), cgroup?.clone()))
}

/// Whether a name that was typed is this `KIND:NAME`, or its `NAME`.
fn is_key(name: &str, key: &str) -> bool {
    key == name || key.split_once(':').is_some_and(|(_, rest)| rest == name)
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

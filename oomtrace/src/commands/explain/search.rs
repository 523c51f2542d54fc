//! The kill that is asked for, the lines that belong to it, and the other kills of its service.

use std::{collections::HashMap, mem};

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
    /// The last warning that its limit came near; an error if too many cgroups had one.
    pub(super) warned: Result<Option<Box<LimitNear>>, TooMany>,
    /// Lines about this kill.
    pub(super) related: Vec<Event>,
    /// How many more lines about it there were.
    pub(super) more_related: u64,
    /// Kills of its service; `None` if there are too many services.
    pub(super) history: Option<History>,
    /// The kills of its service next to it; `None` if the lines are not in the order of time.
    pub(super) neighbours: Option<Neighbours>,
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
    latest: String,
    host: Option<String>,
    /// They were on more hosts than one.
    pub(super) several_hosts: bool,
}

/// When the kills of the same service were that came before and after one.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// More than are remembered.
#[derive(Debug)]
pub(super) struct TooMany;

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
    /// Such a line was of a cgroup that is not remembered.
    other_near: bool,
    /// A `lost` or `gap` line was of a stream that is not remembered.
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
            other_near: false,
            other_losses: false,
        }
    }

    /// Looks at a line. Only a kill `inside` the time that was asked for is found; what else is said of it may be outside. Returns whether
    /// the line was understood.
    pub(super) fn see(&mut self, line: &Recorded<'_>, inside: bool) -> bool {
        let Some(event) = line.event().filter(|_| line.head.time.parse::<jiff::Timestamp>().is_ok()) else {
            return false;
        };
        match event {
            Event::OomKill(kill) => self.kill(kill, inside),
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
                match key {
                    Some(key) if self.near.len() < WARNED || self.near.contains_key(&key) => {
                        self.near.insert(key, near);
                    }
                    Some(_) => self.other_near = true,
                    None => {}
                }
            }
            event => self.related(event),
        }
        true
    }

    fn kill(&mut self, kill: Box<OomKill>, inside: bool) {
        let event = Event::OomKill(kill);
        let filtered = inside && self.filter.takes(&event);
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
        let history = service.as_deref().and_then(|service| self.history(service));
        let neighbours = history.and_then(|history| history.add(&kill));
        if let Some(found) = self.found.as_mut().filter(|found| found.service == service) {
            found.see_neighbour(&kill.envelope.time);
        }
        if !filtered || !is_wanted {
            return;
        }
        let taken = self.found.as_ref().map_or(0, |found| found.taken) + 1;
        // Files of several hosts overlap in time.
        if let Some(found) = self.found.as_mut().filter(|found| found.kill.envelope.time > kill.envelope.time)
        {
            found.taken = taken;
            return;
        }
        self.found = Some(Found {
            warned: self.warned(&kill),
            kill,
            service,
            related: Vec::new(),
            more_related: 0,
            history: None,
            neighbours,
            taken,
            losses: None,
        });
    }

    /// The last warning of the cgroup whose limit fired.
    fn warned(&self, kill: &OomKill) -> Result<Option<Box<LimitNear>>, TooMany> {
        let fired = kill.oom.cgroup.as_ref().and_then(|cgroup| cgroup.cgroup.id.as_ref());
        let key = place(kill.envelope.host.boot_id.as_ref(), fired);
        match key.and_then(|key| self.near.get(&key)) {
            Some(near) => Ok(Some(near.clone()).filter(|near| near.envelope.time < kill.envelope.time)),
            None if self.other_near => Err(TooMany),
            None => Ok(None),
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

impl Found {
    /// Another kill of its service.
    fn see_neighbour(&mut self, time: &str) {
        let Some(Neighbours { before, after }) = &mut self.neighbours else { return };
        let own = self.kill.envelope.time.as_str();
        if time > own && after.as_deref().is_none_or(|after| time < after) {
            *after = Some(time.to_owned());
        } else if time < own && before.as_deref().is_none_or(|before| time > before) {
            *before = Some(time.to_owned());
        }
    }
}

impl History {
    /// Counts a kill. Returns what is known of those next to it.
    fn add(&mut self, kill: &OomKill) -> Option<Neighbours> {
        let (time, host) = (&kill.envelope.time, &kill.envelope.host.name);
        let earlier = mem::take(&mut self.latest);
        let is_in_order = earlier <= *time;
        self.latest = time.max(&earlier).clone();
        self.kills += 1;
        if self.kills == 1 {
            (self.first, self.host) = (time.clone(), host.clone());
        }
        if *time < self.first {
            self.first.clone_from(time);
        }
        self.several_hosts |= self.host != *host;
        is_in_order.then(|| Neighbours {
            before: Some(earlier).filter(|earlier| !earlier.is_empty() && earlier < time),
            after: None,
        })
    }
}

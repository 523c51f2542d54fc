//! All that a report counts, in bounded memory.

use std::collections::{BTreeMap, HashMap};

use super::{counts::Counts, kills::Kills, memory::Memory, timeline::Period};
use crate::{
    event::Event,
    recorded::{Recorded, Row, Service},
};

/// Services that are told apart.
const SERVICES: usize = 16_384;
/// Hosts that are told apart.
const HOSTS: usize = 16_384;
/// Hours that are told apart: eleven years.
const HOURS: usize = 100_000;

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Lines that were counted.
    pub(super) lines: u64,
    /// Time of the first and of the last.
    pub(super) period: Period,
    pub(super) kills: u64,
    /// Of these, found in the kernel's log.
    pub(super) from_log: u64,
    /// Kills by what ran out.
    pub(super) scopes: Counts<String>,
    pub(super) services: HashMap<Service, Kills>,
    /// Kills of services that were not told apart.
    pub(super) other_services: u64,
    /// Kills by hours since 1970.
    pub(super) hours: BTreeMap<i64, u64>,
    /// Kills of hours that were not told apart.
    pub(super) other_hours: u64,
    pub(super) hosts: Vec<Host>,
    places: HashMap<String, usize>,
    /// `shared_mm_kill` lines.
    pub(super) shared_mm: u64,
    /// `memcg_oom` lines, by service.
    pub(super) without_kill: Counts<Service>,
    /// `limit_near` lines, by service.
    pub(super) near: Counts<Service>,
    /// `signal_kill` lines, by what sent the signal.
    pub(super) signals: Counts<String>,
    pub(super) verdicts: Verdicts,
    pub(super) memory: Memory,
    pub(super) tracer: Tracer,
}

/// A host.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) kills: u64,
    /// Kills because it, or a part of its nodes, ran out.
    pub(super) ran_out: u64,
    /// When it ran out.
    pub(super) ran_out_at: Period,
    /// What was lost there.
    pub(super) lost: u64,
}

/// What runtimes said.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub(super) shown: u64,
    pub(super) missed: u64,
    pub(super) unknown: u64,
    /// Kills that the runtime does not show, by container.
    pub(super) missed_by: Counts<Service>,
    /// How often a container was shown as OOM-killed without a kill of its own.
    pub(super) false_positives: Counts<String>,
}

/// What the tracer said about itself.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    pub(super) starts: u64,
    pub(super) stops: u64,
    /// What was lost, by reason.
    pub(super) lost: Counts<String>,
    pub(super) gaps: u64,
    /// Kills that the kernel counted in gaps, and those that were reported there.
    pub(super) gap_kills: u64,
    pub(super) gap_reported: u64,
    /// How often function hooks went silent.
    pub(super) silent_hooks: u64,
}

impl Totals {
    /// Counts a line. Returns whether it was understood.
    pub(super) fn add(&mut self, line: &Recorded<'_>) -> bool {
        if !line.is_of_this_version() {
            return false;
        }
        let Ok(row) = serde_json::from_str::<Row<'_>>(line.text) else { return false };
        let understood = match &*line.head.r#type {
            "oom_kill" => self.add_kill(line, &row),
            "shared_mm_kill" => {
                self.shared_mm += 1;
                true
            }
            "memcg_oom" => {
                self.without_kill.add(Service::of(&row), 1);
                true
            }
            "signal_kill" => {
                let killer = if row.killer.is_empty() { "(unknown)" } else { &row.killer };
                self.signals.add(killer.to_owned(), 1);
                true
            }
            "incident" => {
                self.memory.incident(&line.head.time, &row);
                true
            }
            "limit_near" => {
                self.near.add(Service::of(&row), 1);
                true
            }
            "usage" => {
                self.memory.usage(&row);
                true
            }
            "verdict" => {
                self.verdicts.add(&row);
                true
            }
            "lost" => {
                let host = self.host(line);
                if let Some(host) = self.hosts.get_mut(host) {
                    host.lost = host.lost.saturating_add(row.count);
                }
                self.tracer.lost.add(row.reason.clone().into_owned(), row.count);
                true
            }
            kind => self.tracer.add(kind, &row),
        };
        if understood {
            self.lines += 1;
            self.period.see(calendar_time(line));
        }
        understood
    }

    fn add_kill(&mut self, line: &Recorded<'_>, row: &Row<'_>) -> bool {
        let time = calendar_time(line);
        let Ok(moment) = line.head.time.parse::<jiff::Timestamp>() else { return false };
        self.kills += 1;
        self.from_log += u64::from(line.head.origin == "kmsg");
        let scope = row.oom.as_ref().map(|oom| &*oom.scope).filter(|scope| !scope.is_empty());
        self.scopes.add(scope.unwrap_or("unknown").to_owned(), 1);
        if time.is_some() {
            let hour = moment.as_second().div_euclid(3600);
            if self.hours.len() < HOURS || self.hours.contains_key(&hour) {
                *self.hours.entry(hour).or_default() += 1;
            } else {
                self.other_hours += 1;
            }
        }
        let place = self.host(line);
        if let Some(host) = self.hosts.get_mut(place) {
            host.kills += 1;
            if matches!(scope, Some("host" | "cpuset" | "mempolicy")) {
                host.ran_out += 1;
                host.ran_out_at.see(time);
            }
        }
        let service = Service::of(row);
        let room = self.services.len() < SERVICES;
        match self.services.get_mut(&service) {
            Some(kills) => kills.add(row, time, place),
            None if room => self.services.entry(service).or_default().add(row, time, place),
            None => self.other_services += 1,
        }
        true
    }

    /// The place of a line's host; those above the bound share the last.
    fn host(&mut self, line: &Recorded<'_>) -> usize {
        let name = line.head.host.name.as_deref().unwrap_or("(not named)");
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.hosts.len();
        if place >= HOSTS {
            return place.saturating_sub(1);
        }
        let name = if place + 1 == HOSTS { "(others)" } else { name };
        self.hosts.push(Host { name: name.to_owned(), ..Host::default() });
        self.places.insert(name.to_owned(), place);
        place
    }
}

impl Verdicts {
    fn add(&mut self, row: &Row<'_>) {
        match row.missed {
            Some(true) => {
                self.missed += 1;
                if let Some(service) = row.container.as_ref().and_then(Service::of_container) {
                    self.missed_by.add(service, 1);
                }
            }
            Some(false) => self.shown += 1,
            None => self.unknown += 1,
        }
        for name in &row.false_positive {
            self.false_positives.add(name.clone().into_owned(), 1);
        }
    }
}

impl Tracer {
    /// Returns whether this type of line is known.
    fn add(&mut self, kind: &str, row: &Row<'_>) -> bool {
        match kind {
            "start" => self.starts += 1,
            "stop" => self.stops += 1,
            "gap" => {
                self.gaps += 1;
                self.gap_kills = self.gap_kills.saturating_add(row.kernel_kills);
                self.gap_reported = self.gap_reported.saturating_add(row.reported);
            }
            "hooks" => self.silent_hooks += u64::from(row.state == "silent"),
            // Lines that have no place in a report.
            _ => return Event::KINDS.contains(&kind),
        }
        true
    }
}

/// When it happened; `None` if only the time since boot is known.
fn calendar_time<'a>(line: &'a Recorded<'_>) -> Option<&'a str> {
    Some(&*line.head.time).filter(|_| line.has_calendar_time())
}

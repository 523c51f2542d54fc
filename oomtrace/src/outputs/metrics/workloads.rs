//! Kills by workload: a limited number of series, whatever names containers and users choose.
//!
//! Users' own containers and units share a quarter of the series, and one user gets a quarter of that, so
//! they never displace the host's. If all series are used, the one that was longest without a kill is
//! replaced, but never within an hour of its kill. Kills without a series are counted in `_other`.

use std::fmt::Write as _;

use crate::{
    containers::grammar,
    event::{OomKill, name_of_user},
    outputs::metrics::{
        kept::{Packer, Store, Unpacker, Value},
        page::label_value,
    },
};

/// The names of cAdvisor and kube-state-metrics, so that series can be joined.
const LABELS: [&str; 5] = ["runtime", "namespace", "pod", "container", "unit"];
/// The most bytes of a container's or unit's name: more than usual names have.
const NAME_BYTES: usize = 128;
/// The most bytes of each label: what Kubernetes allows, and those of names.
const ROOM: [usize; 5] = [16, 63, 253, NAME_BYTES, NAME_BYTES];
/// `container` of everything without its own series.
const OTHER: &str = "_other";
/// `container` of a process in no container and no unit.
const NONE: &str = "_none";
/// A series stays for this long after its kill, in seconds, so that it can be scraped.
const STAYS: u64 = 3600;
/// The version of a stored series.
const KEPT: u64 = 0x6f6f_6d77_0000_0001;
/// The first place of the store with a series. The place before it has `_other`.
pub(super) const FIRST_PLACE: usize = 2;

/// A series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Series {
    labels: [String; 5],
    /// The user who may have chosen the names.
    user: Option<u32>,
    kills: u64,
    /// The last event that was counted.
    last: Event,
    /// The time of that event, in seconds since 1970.
    at: u64,
    /// The store does not have its current value.
    changed: bool,
}

/// Identifies an event: the set of programs, and its number; 0 and 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) stream: u128,
    pub(super) seq: u64,
}

impl Event {
    /// Whether the other event was counted when this one was: events of a stream come in order.
    pub(super) fn covers(self, other: Self) -> bool {
        other.seq != 0 && self.stream == other.stream && other.seq <= self.seq
    }

    pub(super) fn numbers(self) -> [u64; 3] {
        let halves = self.stream.to_le_bytes();
        let (low, high) = halves.split_at(8);
        let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        [half(low), half(high), self.seq]
    }

    pub(super) fn of_numbers([low, high, seq]: [u64; 3]) -> Self {
        Self { stream: u128::from(high) << 64 | u128::from(low), seq }
    }
}

/// All series.
#[derive(Debug)]
pub(super) struct Workloads {
    most: usize,
    series: Vec<Series>,
    other: Series,
}

impl Workloads {
    /// No series yet, and at most `most`.
    pub(super) fn new(most: usize) -> Self {
        let mut other = Series::default();
        other.labels[3] = OTHER.into();
        Self { most, series: Vec::new(), other }
    }

    /// Counts a kill.
    pub(super) fn saw(&mut self, kill: &OomKill, event: Event, now: u64) {
        let (labels, user) = workload(kill);
        let series = self.place(labels, user, now);
        if !series.last.covers(event) {
            series.kills += 1;
            series.last = event;
        }
        series.at = now;
        series.changed = true;
    }

    fn place(&mut self, labels: [String; 5], user: Option<u32>, now: u64) -> &mut Series {
        let known = self.series.iter().position(|series| series.user == user && series.labels == labels);
        let found = known.or_else(|| self.free_place(user, now));
        match found {
            Some(at) if at < self.series.len() => {}
            Some(_) => self.series.push(Series::default()),
            None => return &mut self.other,
        }
        let at = found.unwrap_or_default();
        match self.series.get_mut(at) {
            Some(series) => {
                if known.is_none() {
                    *series = Series { labels, user, ..Series::default() };
                }
                series
            }
            None => &mut self.other,
        }
    }

    /// The place of a new series: after the others, or in place of one that can be replaced.
    fn free_place(&self, user: Option<u32>, now: u64) -> Option<usize> {
        let users = (self.most / 4).max(1);
        let one_users = (users / 4).max(1);
        let count = |of: &dyn Fn(&Series) -> bool| self.series.iter().filter(|series| of(series)).count();
        let oldest = |of: &dyn Fn(&Series) -> bool| {
            let old = |series: &Series| of(series) && series.at.saturating_add(STAYS) <= now;
            let old = self.series.iter().enumerate().filter(|(_, series)| old(series));
            old.min_by_key(|(_, series)| series.at).map(|(at, _)| at)
        };
        let is_own = |series: &Series| series.user == user;
        let is_users = |series: &Series| series.user.is_some();
        let is_hosts = |series: &Series| series.user.is_none();
        match user {
            Some(_) if count(&is_own) >= one_users => oldest(&is_own),
            Some(_) if count(&is_users) >= users => oldest(&is_users),
            None if count(&is_hosts) >= self.most.saturating_sub(users).max(1) => oldest(&is_hosts),
            _ => Some(self.series.len()),
        }
    }

    /// Writes one line for each series.
    pub(super) fn write(&self, name: &str, out: &mut String) {
        let other = (self.other.kills > 0).then_some(&self.other);
        for series in self.series.iter().chain(other) {
            let mut between = '{';
            out.push_str(name);
            for (label, value) in LABELS.iter().zip(&series.labels).filter(|(_, value)| !value.is_empty()) {
                out.push(between);
                between = ',';
                out.push_str(label);
                out.push_str("=\"");
                label_value(value, out);
                out.push('"');
            }
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "}} {}", series.kills);
        }
    }

    /// Continues the series of an earlier run.
    pub(super) fn resume(&mut self, store: &dyn Store) {
        let found = |place| Series::unpacked(&store.get(place)?);
        if let Some(other) = found(FIRST_PLACE - 1) {
            self.other = other;
        }
        for series in (FIRST_PLACE..store.places()).filter_map(found).take(self.most) {
            let is_known = |known: &Series| known.user == series.user && known.labels == series.labels;
            if !self.series.iter().any(is_known) {
                self.series.push(series);
            }
        }
    }

    /// Keeps what has changed.
    pub(super) fn keep(&mut self, store: &mut dyn Store) -> Result<(), String> {
        let places = std::iter::once(&mut self.other).chain(&mut self.series);
        for (place, series) in (FIRST_PLACE - 1..).zip(places).filter(|(_, series)| series.changed) {
            store.put(place, &series.packed())?;
            series.changed = false;
        }
        Ok(())
    }
}

impl Series {
    fn packed(&self) -> Value {
        let user = self.user.map_or(0, |uid| u64::from(uid) + 1);
        let mut packer = Packer::new();
        packer.numbers(&[KEPT, self.kills, user, self.at]).numbers(&self.last.numbers());
        self.labels.iter().for_each(|label| _ = packer.text(label));
        packer.done()
    }

    fn unpacked(value: &Value) -> Option<Self> {
        let mut from = Unpacker::of(value);
        let [KEPT, kills, user, at] = from.numbers()? else { return None };
        let last = Event::of_numbers(from.numbers()?);
        let mut labels: [String; 5] = Default::default();
        for label in &mut labels {
            *label = from.text()?;
        }
        let user = match user {
            0 => None,
            user => Some(u32::try_from(user - 1).ok()?),
        };
        Some(Self { labels, user, kills, last, at, changed: true })
    }
}

/// The labels of the victim's workload, and the user who may have chosen them. The unit is used only outside
/// of containers: a container's unit belongs to the runtime, or has a new name at each start.
fn workload(kill: &OomKill) -> ([String; 5], Option<u32>) {
    let container = kill.container.as_ref();
    let runtime = container.map(|container| container.runtime.name.as_str());
    let k8s = kill.k8s.as_ref();
    let namespace = k8s.and_then(|k8s| k8s.namespace.as_ref()).map(|namespace| namespace.name.as_str());
    let pod = k8s.and_then(|k8s| k8s.pod.name.as_deref());
    let name = match k8s {
        Some(k8s) => k8s.container.as_ref().map(|container| container.name.clone().into()),
        None => container.and_then(|container| {
            container.name.as_ref().map(|name| name_of_user(container.runtime.user, name))
        }),
    };
    let unit = match container {
        Some(_) => None,
        None => kill.systemd.as_ref().map(|systemd| name_of_user(systemd.user, &systemd.unit)),
    };
    let name = name.or_else(|| (container.is_none() && k8s.is_none() && unit.is_none()).then(|| NONE.into()));
    let user = container
        .and_then(|container| container.runtime.user)
        .or_else(|| kill.systemd.as_ref().and_then(|systemd| systemd.user))
        .or_else(|| kill.victim.cgroup.path.as_deref().and_then(user_of));
    let mut labels = [
        runtime.unwrap_or_default().to_owned(),
        namespace.unwrap_or_default().to_owned(),
        pod.unwrap_or_default().to_owned(),
        name.unwrap_or_default().into_owned(),
        unit.unwrap_or_default().into_owned(),
    ];
    for (label, room) in labels.iter_mut().zip(ROOM) {
        cut(label, room);
    }
    (labels, user)
}

/// A container's or unit's name as a label.
pub(super) fn label_of(user: Option<u32>, name: &str) -> String {
    let mut label = name_of_user(user, name).into_owned();
    cut(&mut label, NAME_BYTES);
    label
}

fn cut(label: &mut String, room: usize) {
    label.truncate(label.floor_char_boundary(room));
}

/// The user in whose slice a cgroup is. That user may have made it.
fn user_of(path: &str) -> Option<u32> {
    let names: Vec<&[u8]> = path.strip_prefix('/')?.splitn(3, '/').map(str::as_bytes).collect();
    grammar::user_of(&names)
}

//! How memory went before a kill, and what is said of it without one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Cgroup, Container, Envelope, K8s, Missing, Systemd, is_empty};

/// How the usage went before a kill: samples, thinned. The usage of a bucket of time is within 0.03 %.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Before {
    /// Whose usage it is.
    pub of: BeforeOf,
    /// The time between two samples at the least.
    pub interval_ns: u64,
    /// How many there were.
    pub samples: u64,
    /// How long before the kill the first one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ns: Option<u64>,
    /// How the kill came about, where that is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Over how long floors are compared: without the first minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_ns: Option<u64>,
    /// The first of these floors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_bytes: Option<u64>,
    /// How fast floors rose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_slope: Option<FloorSlope>,
    /// The last sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastSample>,
    /// How long it had been at 97 % of the limit or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_limit_ns: Option<u64>,
    /// The highest usage between two samples that neither of them shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen_peak: Option<LastSample>,
    /// The same for what cannot be reclaimed, if page cache hides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreclaimable: Option<UnreclaimableBefore>,
    /// Milliseconds before the kill (negative) and the highest usage of that time, at most 24; the last one is the kill.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<(i64, u64)>,
}

/// Whose usage it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BeforeOf {
    /// The cgroup whose limit fired.
    Limit,
    /// The victim's container or unit: no limit fired, or the cgroup whose limit fired was not sampled.
    Victim,
}

/// How a kill came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The cgroup lived for less than a minute, or six samples.
    Short,
    /// It had been at its limit for a minute or more.
    AtLimit,
    /// A quarter of the limit or more came in less than 25 s.
    Burst,
    /// Up to four jumps made most of the rise, and it never fell.
    Steps,
    /// Its floors rose all the time.
    Growth,
    /// None of these is certain.
    Irregular,
}

impl Shape {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Short, Self::AtLimit, Self::Burst, Self::Steps, Self::Growth, Self::Irregular];

    /// The word, as in a line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::AtLimit => "at_limit",
            Self::Burst => "burst",
            Self::Steps => "steps",
            Self::Growth => "growth",
            Self::Irregular => "irregular",
        }
    }
}

/// How fast floors rose: the median of all pairs (Theil and Sen), with 95 % bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FloorSlope {
    /// The median.
    pub bytes_per_hour: i64,
    /// Not slower.
    pub low_bytes_per_hour: i64,
    /// Not faster.
    pub high_bytes_per_hour: i64,
}

/// A usage, and how long before the kill it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastSample {
    /// How long before the kill.
    pub age_ns: u64,
    /// The usage.
    pub usage_bytes: u64,
}

/// What cannot be reclaimed: the usage without page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnreclaimableBefore {
    /// How it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// The first floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_bytes: Option<u64>,
    /// At the last sample.
    pub last_bytes: u64,
    /// How fast its floors rose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_slope: Option<FloorSlope>,
}

/// How often it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recurrence {
    /// The service, by the first name that stays when a container is made anew.
    pub key: String,
    /// Runs of the killer whose first victim was of this service, this one included.
    pub kills: u64,
    /// When the first of them was.
    pub since: String,
    /// How long the victims had lived, of the last 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_ns: Option<Lifetimes>,
}

/// How long victims had lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lifetimes {
    /// The shortest.
    pub min: u64,
    /// The one in the middle.
    pub median: u64,
    /// The longest.
    pub max: u64,
}

/// The limit of a service beside its use: once a day, and when a run ends in an orderly way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The service, as in `recurrence.key`.
    pub key: String,
    /// Of its cgroups, the one that came nearest to its limit.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: Cgroup,
    /// How many cgroups of the service were watched.
    pub cgroup_count: u64,
    /// Its limit.
    pub limit_bytes: u64,
    /// The highest usage while it was watched.
    pub peak_bytes: u64,
    /// The lowest usage of a sample.
    pub floor_bytes: u64,
    /// For how long it was watched.
    pub watched_ns: u64,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

/// A limit comes near.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitNear {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Why that is said.
    pub because: NearBecause,
    /// The cgroup.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: Cgroup,
    /// Its limit.
    pub limit_bytes: u64,
    /// Its usage.
    pub usage_bytes: u64,
    /// What of it cannot be reclaimed.
    pub unreclaimable_bytes: u64,
    /// For how long its floors have risen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_ns: Option<u64>,
    /// How fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_slope: Option<FloorSlope>,
    /// When the limit is reached, if it goes on like that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_limit_ns: Option<ToLimit>,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

/// Why a limit is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NearBecause {
    /// 90 % of it cannot be reclaimed, and floors rise with certainty.
    Rising,
    /// 97 % of it could not be reclaimed for a minute.
    Full,
}

/// From now on, not before the first and not after the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToLimit {
    /// Not before.
    pub min: u64,
    /// Not after.
    pub max: u64,
}

/// A limit that was near is far again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitFar {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The cgroup.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: Cgroup,
    /// Its limit; absent if it has none now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Its usage; absent if the cgroup is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// What of it cannot be reclaimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreclaimable_bytes: Option<u64>,
    /// Since when it was near.
    pub near_ns: u64,
    /// The cgroup was removed.
    pub removed: bool,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

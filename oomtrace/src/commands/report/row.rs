//! What a report needs of a line. Anything else is passed over, so that a million lines take seconds.

use std::borrow::Cow;

use serde::Deserialize;

/// A line of any type: keys that the type does not have are absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Row<'a> {
    pub(super) oom: Option<Oom<'a>>,
    pub(super) victim: Option<Victim<'a>>,
    /// Of `memcg_oom`: the cgroup that ran out.
    pub(super) cgroup: Option<Cgroup<'a>>,
    pub(super) container: Option<Container<'a>>,
    pub(super) k8s: Option<K8s<'a>>,
    pub(super) systemd: Option<Systemd<'a>>,
    /// Of `verdict`.
    pub(super) missed: Option<bool>,
    /// Of `verdict`.
    pub(super) false_positive: Vec<Cow<'a, str>>,
    /// Of `lost`.
    pub(super) count: u64,
    /// Of `lost` and `stop`.
    #[serde(borrow)]
    pub(super) reason: Cow<'a, str>,
    /// Of `gap`.
    pub(super) kernel_kills: u64,
    /// Of `gap`.
    pub(super) reported: u64,
    /// Of `hooks`.
    #[serde(borrow)]
    pub(super) state: Cow<'a, str>,
    /// Of `signal_kill`.
    #[serde(borrow)]
    pub(super) killer: Cow<'a, str>,
}

/// What ran out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Oom<'a> {
    #[serde(borrow)]
    pub(super) scope: Cow<'a, str>,
    pub(super) cgroup: Option<Cgroup<'a>>,
}

/// A process.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Victim<'a> {
    #[serde(borrow)]
    pub(super) comm: Cow<'a, str>,
    pub(super) memory: Memory,
    pub(super) cgroup: Option<Cgroup<'a>>,
}

/// Memory of a process.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) rss_bytes: Option<u64>,
}

/// A memory cgroup.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Cgroup<'a> {
    #[serde(borrow)]
    pub(super) path: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) peak_bytes: Option<u64>,
}

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Container<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) runtime: Runtime<'a>,
    pub(super) label: Labels<'a>,
}

/// Its runtime.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Runtime<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) user: Option<u32>,
}

/// Labels that name a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Labels<'a> {
    #[serde(borrow, rename = "com.docker.compose.project")]
    pub(super) compose_project: Cow<'a, str>,
    #[serde(borrow, rename = "com.docker.compose.service")]
    pub(super) compose_service: Cow<'a, str>,
    #[serde(borrow, rename = "com.docker.swarm.service.name")]
    pub(super) swarm_service: Cow<'a, str>,
}

/// A pod's names.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct K8s<'a> {
    pub(super) namespace: Name<'a>,
    pub(super) pod: Name<'a>,
    pub(super) container: Name<'a>,
}

/// Something with a name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Name<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
}

/// A unit.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Systemd<'a> {
    #[serde(borrow)]
    pub(super) unit: Cow<'a, str>,
    pub(super) user: Option<u32>,
}

//! What is counted of a line. Anything else is passed over, so that a million lines take seconds.

use std::borrow::Cow;

use serde::Deserialize;

use crate::event::is_same_cgroup;

/// A line of any type: keys that the type does not have are absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Row<'a> {
    /// What ran out.
    pub oom: Option<Oom<'a>>,
    /// Of a kill: the process.
    pub victim: Option<Victim<'a>>,
    /// Of `memcg_oom`: the cgroup that ran out.
    pub cgroup: Option<Cgroup<'a>>,
    /// Its container.
    pub container: Option<Container<'a>>,
    /// Its pod.
    pub k8s: Option<K8s<'a>>,
    /// Its unit.
    pub systemd: Option<Systemd<'a>>,
    /// Of `verdict`.
    pub missed: Option<bool>,
    /// Of `verdict`.
    pub false_positive: Vec<Cow<'a, str>>,
    /// Of `lost`.
    pub count: u64,
    /// Of `lost` and `stop`.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    /// Of `gap`.
    pub kernel_kills: u64,
    /// Of `gap`.
    pub reported: u64,
    /// Of `hooks`.
    #[serde(borrow)]
    pub state: Cow<'a, str>,
    /// Of `incident`.
    pub before: Option<Before<'a>>,
    /// Of `usage`.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    /// Of `usage`.
    pub limit_bytes: Option<u64>,
    /// Of `usage`.
    pub peak_bytes: Option<u64>,
    /// Of `usage`.
    pub watched_ns: u64,
    /// Of `signal_kill`.
    #[serde(borrow)]
    pub killer: Cow<'a, str>,
}

/// How memory went before a kill.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Before<'a> {
    /// A word.
    #[serde(borrow)]
    pub shape: Cow<'a, str>,
    /// Milliseconds and bytes.
    pub points: Vec<(i64, u64)>,
}

/// What ran out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Oom<'a> {
    /// A word of `oom.scope`.
    #[serde(borrow)]
    pub scope: Cow<'a, str>,
    /// The cgroup.
    pub cgroup: Option<Cgroup<'a>>,
}

/// A process.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Victim<'a> {
    /// Its name.
    #[serde(borrow)]
    pub comm: Cow<'a, str>,
    /// Its memory.
    pub memory: Memory,
    /// The cgroup.
    pub cgroup: Option<Cgroup<'a>>,
}

/// Memory of a process.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Resident.
    pub rss_bytes: Option<u64>,
}

/// A memory cgroup.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Cgroup<'a> {
    /// Its path.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its limit.
    pub limit_bytes: Option<u64>,
    /// The highest use.
    pub peak_bytes: Option<u64>,
}

impl Cgroup<'_> {
    /// Whether both are the same cgroup.
    pub fn is_same(&self, other: &Self) -> bool {
        is_same_cgroup(self.names(), other.names())
    }

    /// Its id and its path, of these what is known.
    fn names(&self) -> (Option<&str>, Option<&str>) {
        let [id, path] = [&self.id, &self.path].map(|name| Some(&**name).filter(|name| !name.is_empty()));
        (id, path)
    }
}

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Container<'a> {
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its runtime.
    pub runtime: Runtime<'a>,
    /// Its labels.
    pub label: Labels<'a>,
}

/// Its runtime.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Runtime<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The uid of the user whose own it is.
    pub user: Option<u32>,
}

/// Labels that name a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Labels<'a> {
    /// Of Compose.
    #[serde(borrow, rename = "com.docker.compose.project")]
    pub compose_project: Cow<'a, str>,
    /// Of Compose.
    #[serde(borrow, rename = "com.docker.compose.service")]
    pub compose_service: Cow<'a, str>,
    /// Of Swarm.
    #[serde(borrow, rename = "com.docker.swarm.service.name")]
    pub swarm_service: Cow<'a, str>,
}

/// A pod's names.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct K8s<'a> {
    /// The namespace.
    pub namespace: Name<'a>,
    /// The pod.
    pub pod: Name<'a>,
    /// Its container.
    pub container: Name<'a>,
}

/// Something with a name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Name<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
}

/// A unit.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct Systemd<'a> {
    /// Its name.
    #[serde(borrow)]
    pub unit: Cow<'a, str>,
    /// The uid of the user whose own it is.
    pub user: Option<u32>,
}

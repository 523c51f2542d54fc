//! The container of a process, and what its runtime says about it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Envelope, Missing};

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// The runtime's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The runtime.
    pub runtime: RuntimeName,
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// How often the runtime has restarted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u64>,
    /// Labels that say which service it belongs to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label: BTreeMap<String, String>,
    /// Ids of further containers nested in this one, outermost first, which this host's runtimes do not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<String>,
}

/// The name of a container or a unit. A user's own gets `UID/` in front, because that user can choose any
/// name.
pub fn name_of_user(user: Option<u32>, name: &str) -> Cow<'_, str> {
    match user {
        Some(uid) => Cow::Owned(format!("{uid}/{name}")),
        None => Cow::Borrowed(name),
    }
}

/// The container's runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeName {
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `systemd-nspawn`.
    pub name: String,
    /// The uid of the unprivileged user whose runtime this is; absent where it is the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
}

/// The container's image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// As the container was asked for.
    pub name: String,
}

/// A Kubernetes container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8s {
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The pod.
    pub pod: Pod,
    /// The pod's class of quality of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<Qos>,
    /// The container, by its name in the pod's spec; absent for the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<K8sContainer>,
}

impl K8s {
    /// Namespace, pod and container, of these what is known; `None` where not even the pod is.
    pub fn names(&self) -> Option<Vec<&str>> {
        let pod = self.pod.name.as_ref().or(self.pod.uid.as_ref())?;
        let namespace = self.namespace.as_ref().map(|namespace| &namespace.name);
        let container = self.container.as_ref().map(|container| &container.name);
        Some([namespace, Some(pod), container].into_iter().flatten().map(String::as_str).collect())
    }
}

/// Something with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Name {
    /// The name.
    pub name: String,
}

/// A Kubernetes container, by its pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8sContainer {
    /// The name.
    pub name: String,
    /// How often it has been restarted in its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u64>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// A pod's class of quality of service, by the place of its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Qos {
    /// Each container's limits are its requests.
    Guaranteed,
    /// At least one container has a request or a limit.
    Burstable,
    /// No container has any.
    Besteffort,
}

/// A systemd unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Systemd {
    /// The innermost unit that holds the victim.
    pub unit: String,
    /// The uid of the user in whose service manager (`user@UID.service`) the unit is; absent where it is the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
}

/// What the container's runtime says afterwards about a kill already reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The `seq` of the kill, as a list of one.
    pub of: Vec<u64>,
    /// The container.
    pub container: Container,
    /// What the runtime says. Absent if the runtime no longer knows the container, or if its state cannot be
    /// read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_says: Option<RuntimeSays>,
    /// True when the runtime does not show an OOM kill. Absent if its state cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<bool>,
    /// Containers that the runtime flags as OOM-killed without a kill of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub false_positive: Vec<String>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

/// A runtime's view of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeSays {
    /// The runtime's OOM flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// The exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The state, as the runtime names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

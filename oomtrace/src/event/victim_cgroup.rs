//! The cgroup of a victim, and what it held when the victim was marked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Cgroup, Lru};

/// A victim's cgroup of the memory hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct VictimCgroup {
    /// Path below the root of the memory hierarchy, starting with `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `kernfs_node.id`, the inode of its directory, as a decimal string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,20}$"))]
    pub id: Option<String>,
    /// Its LRU lists, without those of the cgroups below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lru: Option<Lru>,
    /// Its tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Tasks>,
}

impl VictimCgroup {
    /// Which cgroup.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup { path: self.path.clone(), id: self.id.clone() }
    }
}

impl From<Cgroup> for VictimCgroup {
    fn from(Cgroup { path, id }: Cgroup) -> Self {
        Self { path, id, lru: None, tasks: None }
    }
}

/// Tasks (threads) that a cgroup counts, with those of the cgroups below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct Tasks {
    /// `pids.current`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `pids.max`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `pids.peak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// The cgroup that counts them; absent where it is the victim's memory cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
}

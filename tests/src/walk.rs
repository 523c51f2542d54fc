//! What `oomtrace check` says of all memory cgroups.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

/// A walk over all memory cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How many there are, removed ones included.
    pub cgroups: u64,
    /// How long it took, in µs.
    pub took_us: u64,
    /// How many removed ones still hold memory, and how many MiB; `None` if this kernel does not say.
    pub removed: Option<(u64, u64)>,
}

impl Walk {
    /// Lets this program walk.
    ///
    /// # Errors
    /// If it says nothing of a walk.
    pub fn by(oomtrace: &Path) -> Result<Self> {
        let output =
            Command::new(oomtrace).args(["check", "-o", "json"]).output().context("oomtrace check")?;
        let report: Value = serde_json::from_slice(&output.stdout).context("the report of check")?;
        let findings = report.get("findings").and_then(Value::as_array).context("no findings")?;
        let detail = findings
            .iter()
            .filter(|finding| finding.get("name") == Some(&"cgroup walk".into()))
            .find_map(|finding| finding.get("detail")?.as_str())
            .context("nothing about cgroups")?;
        Self::of(detail).with_context(|| format!("oomtrace check: {detail}"))
    }

    fn of(detail: &str) -> Option<Self> {
        let (cgroups, rest) = detail.split_once(" memory cgroups read in ")?;
        let (took, held) = rest.split_once(" µs; ")?;
        let removed = held
            .split_once(" removed ones still hold ")
            .and_then(|(count, rest)| Some((count.parse().ok()?, rest.split_once(" MiB")?.0.parse().ok()?)));
        Some(Self { cgroups: cgroups.parse().ok()?, took_us: took.parse().ok()?, removed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_check_says_of_a_walk() {
        let said = "91 memory cgroups read in 76 µs; 73 removed ones still hold 6226 MiB, and no directory shows them";
        assert_eq!(Walk::of(said), Some(Walk { cgroups: 91, took_us: 76, removed: Some((73, 6226)) }));
        let unknown = "91 memory cgroups read in 76 µs; this kernel does not say which are removed";
        assert_eq!(Walk::of(unknown), Some(Walk { cgroups: 91, took_us: 76, removed: None }));
        assert_eq!(Walk::of("the kernel refuses it: what removed cgroups hold is not known"), None);
    }
}

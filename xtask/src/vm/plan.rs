//! Decides which guests a run has: kernels, ways to test them, scenarios that share a machine. The only I/O
//! is fetching kernels.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use super::{
    Args, Cgroup, Condition, Hook, Missing,
    guest::Guest,
    kernels::{Store, V1},
    word,
};

/// The default kernels: the oldest, the two that most machines have, and the newest.
const MAIN: [&str; 4] = ["5.10", "6.1", "6.12", "7.3"];

/// Scenarios that need a special machine, and which one.
const SPECIAL: [(&str, Special); 7] = [
    ("cpuset", Special::Numa),
    ("mempolicy", Special::Numa),
    ("swap", Special::Swap),
    ("lockdown", Special::Lockdown),
    ("without_btf", Special::Without(Missing::Btf)),
    ("without_tracefs", Special::Without(Missing::Tracefs)),
    ("without_bpffs", Special::Without(Missing::Bpffs)),
];

/// Scenarios that run without a memory controller.
const WITHOUT_MEMCG: [&str; 5] =
    ["host_wide", "host_wide_root_cgroup", "host_wide_five_times", "allocating_task", "sysrq_f"];

/// What a scenario's machine has or lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Numa,
    Swap,
    Lockdown,
    Without(Missing),
}

impl Special {
    /// Whether the machine lacks something. Then results do not depend on the hook and the layout of cgroups.
    fn lacks(self) -> bool {
        matches!(self, Self::Lockdown | Self::Without(_))
    }
}

/// One way to test kernels.
pub(super) struct Way {
    cgroup: Cgroup,
    hook: Hook,
    condition: Option<Condition>,
    /// Their names and images.
    kernels: Vec<(String, PathBuf)>,
}

/// Every way that was asked for, with all kernels fetched.
pub(super) fn ways(args: &Args, store: &Store) -> Result<Vec<Way>> {
    let (cgroups, hooks): (&[Cgroup], &[Hook]) = match &*args.condition {
        _ if args.matrix => (&[Cgroup::V2, Cgroup::V1], &[Hook::Auto, Hook::Kprobe, Hook::None]),
        [] => (&args.cgroup, &args.hook),
        _ => (&[], &[]),
    };
    let mut ways = Vec::new();
    for cgroup in cgroups {
        let kernels = kernels(args, store, *cgroup, args.matrix)?;
        let way =
            |hook: &Hook| Way { cgroup: *cgroup, hook: *hook, condition: None, kernels: kernels.clone() };
        ways.extend(hooks.iter().map(way));
    }
    // What is wrong with a machine has nearly the same effect on all kernels, so only the main ones are
    // tested.
    let conditions = if args.matrix { Condition::value_variants() } else { &args.condition };
    let on = if conditions.is_empty() { Vec::new() } else { kernels(args, store, Cgroup::V2, false)? };
    ways.extend(conditions.iter().map(|condition| Way {
        cgroup: Cgroup::V2,
        hook: Hook::Auto,
        condition: Some(*condition),
        kernels: on.clone(),
    }));
    Ok(ways)
}

/// The kernels to boot with this layout of cgroups, all fetched. A kernel that cannot have this layout is
/// left out with a message, unless it was asked for by name.
fn kernels(args: &Args, store: &Store, cgroup: Cgroup, every: bool) -> Result<Vec<(String, PathBuf)>> {
    let named = !args.matrix && !args.kernel.is_empty() && !args.kernel.iter().any(|name| name == "all");
    let mut names: Vec<&str> = Vec::new();
    if named {
        names.extend(args.kernel.iter().map(String::as_str));
    } else if args.matrix || !args.kernel.is_empty() || args.kernel_image.is_empty() {
        let all = every || !args.kernel.is_empty();
        for kernel in args.arch.kernels().iter().filter(|kernel| all || MAIN.contains(&kernel.name)) {
            if cgroup == Cgroup::V1 && kernel.v1 == V1::Nowhere {
                eprintln!("vm: {} is left out: no memory controller for cgroup v1", kernel.name);
            } else {
                names.push(kernel.name);
            }
        }
    }
    let mut kernels = Vec::new();
    for name in names {
        kernels.push(match cgroup {
            Cgroup::V1 => store.kernel_with_v1(name)?,
            Cgroup::V2 => (name.to_owned(), store.kernel(name)?),
        });
    }
    for image in &args.kernel_image {
        let name = image.file_name().context("--kernel-image is not a file")?.to_string_lossy().into_owned();
        kernels.push((name, image.clone()));
    }
    Ok(kernels)
}

/// Every guest of a run, in boot order.
pub(super) fn guests<'a>(args: &'a Args, ways: &'a [Way], names: &'a [String]) -> Vec<Guest<'a>> {
    let mut guests: Vec<Guest<'_>> = Vec::new();
    for Way { cgroup, hook, condition, kernels } in ways {
        let groups = groups(names, *condition);
        for (kernel, image) in kernels {
            for (special, scenarios) in &groups {
                let said_before =
                    guests.iter().any(|guest| guest.special == *special && guest.image == image);
                if special.is_some_and(Special::lacks) && said_before {
                    continue;
                }
                guests.push(Guest {
                    column: format!(
                        "{kernel} {} {}",
                        word(*cgroup),
                        condition.map_or_else(|| word(*hook), word)
                    ),
                    image,
                    cgroup: word(*cgroup),
                    hook: word(*hook),
                    condition: *condition,
                    special: *special,
                    scenarios: scenarios.clone(),
                    args,
                });
            }
        }
    }
    guests
}

/// The scenarios of each machine. A machine with a condition runs only those that need nothing special.
fn groups(names: &[String], condition: Option<Condition>) -> Vec<(Option<Special>, Vec<&str>)> {
    let mut groups = by_machine(names);
    let Some(condition) = condition else { return groups };
    groups.retain(|(special, _)| special.is_none());
    if condition == Condition::NoMemcg {
        for (_, scenarios) in &mut groups {
            scenarios.retain(|name| WITHOUT_MEMCG.contains(name));
        }
    }
    groups.retain(|(_, scenarios)| !scenarios.is_empty());
    groups
}

/// The scenarios to run: those asked for, or all.
pub(super) fn selected(asked: &[String], known: &[String]) -> Result<Vec<String>> {
    if let Some(name) = asked.iter().find(|name| !known.contains(name)) {
        bail!("no scenario {name}; there are: {}", known.join(", "));
    }
    Ok(if asked.is_empty() { known } else { asked }.to_vec())
}

/// The scenarios grouped by the machine that they need. Without scenarios (a command runs): one empty group.
fn by_machine(scenarios: &[String]) -> Vec<(Option<Special>, Vec<&str>)> {
    let mut groups: Vec<(Option<Special>, Vec<&str>)> = Vec::new();
    for scenario in scenarios {
        let special = SPECIAL.iter().find(|(name, _)| name == scenario).map(|(_, special)| *special);
        match groups.iter_mut().find(|(known, _)| *known == special) {
            Some((_, group)) => group.push(scenario),
            None => groups.push((special, vec![scenario])),
        }
    }
    if groups.is_empty() {
        groups.push((None, Vec::new()));
    }
    groups
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn scenarios_share_a_guest_unless_they_need_another_machine() {
        let names = ["memcg-limit", "cpuset", "burst", "mempolicy"].map(str::to_owned);
        assert_eq!(
            by_machine(&names),
            [(None, vec!["memcg-limit", "burst"]), (Some(Special::Numa), vec!["cpuset", "mempolicy"])]
        );
        assert_eq!(by_machine(&[]), [(None, Vec::new())]);
    }

    #[test]
    fn an_unknown_scenario_is_refused() {
        let known = ["burst".to_owned()];
        assert_eq!(selected(&[], &known).unwrap(), known);
        assert!(selected(&["brust".to_owned()], &known).is_err());
    }

    #[test]
    fn a_machine_with_something_wrong_runs_what_it_can() {
        let names = ["plain", "cpuset", "host_wide"].map(str::to_owned);
        assert_eq!(groups(&names, Some(Condition::FtraceOff)), [(None, vec!["plain", "host_wide"])]);
        assert_eq!(groups(&names, Some(Condition::NoMemcg)), [(None, vec!["host_wide"])]);
        assert_eq!(groups(&["plain".to_owned()], Some(Condition::NoMemcg)), []);
    }
}

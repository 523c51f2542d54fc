//! The scenarios: what is done to the machine, and what must be reported.

mod burst;
mod clock;
mod exiting;
mod filled;
mod group;
mod host_memory;
mod host_uncharged;
mod host_wide;
mod incident;
pub mod lacking;
mod limits;
mod names;
mod nobody_killed;
mod on_stack;
mod pinned;
mod removed;
mod second_sigkill;
mod signals;
mod tasks;

use anyhow::Result;

use crate::session::Session;

/// Bytes.
const MIB: u64 = 1 << 20;
/// The usual limit: small, but well above what a hog needs before it grows.
const LIMIT: u64 = 16 * MIB;

/// How a scenario succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran, and everything was reported correctly.
    Passed,
    /// It cannot exist on this kernel or cgroup version.
    NotApplicable(String),
}

/// Where a scenario may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// It uses only its own cgroup.
    Anywhere,
    /// An emulated machine runs a smaller version.
    HostOnly,
    /// It fills or changes the whole machine.
    GuestOnly,
}

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Where it may run.
    pub place: Where,
    act: fn(&mut Session) -> Result<Outcome>,
}

impl Scenario {
    /// Runs it.
    pub fn run(&self, session: &mut Session) -> Result<Outcome> {
        session.begin()?;
        let outcome = (self.act)(session)?;
        session.end()?;
        Ok(outcome)
    }
}

const fn anywhere(name: &'static str, act: fn(&mut Session) -> Result<Outcome>) -> Scenario {
    Scenario { name, place: Where::Anywhere, act }
}

const fn guest_only(name: &'static str, act: fn(&mut Session) -> Result<Outcome>) -> Scenario {
    Scenario { name, place: Where::GuestOnly, act }
}

const ALL: &[Scenario] = &[
    anywhere("plain", limits::plain),
    anywhere("raised_adj", tasks::raised_adj),
    anywhere("thread_victim", tasks::thread_victim),
    anywhere("exited_leader", tasks::exited_leader),
    anywhere("child_with_living_parent", tasks::child_with_living_parent),
    anywhere("pid_namespace", tasks::pid_namespace),
    // It has hundreds of processes, which takes too long in an emulator.
    Scenario { name: "namespace_ends", place: Where::HostOnly, act: tasks::namespace_ends },
    anywhere("shared_mm", tasks::shared_mm),
    anywhere("already_exiting", exiting::already_exiting),
    // The programs that it tests are the same on every kernel.
    Scenario { name: "second_sigkill", place: Where::HostOnly, act: second_sigkill::before_the_mark },
    anywhere("shmem", limits::shmem),
    anywhere("filled", filled::by_a_mix),
    anywhere("filled_under_a_parent", filled::tasks_of_an_ancestor),
    anywhere("swap", limits::swap),
    anywhere("limit_on_parent", limits::limit_on_parent),
    anywhere("sibling_triggers", limits::sibling_triggers),
    anywhere("limit_lowered_by_another", limits::limit_lowered_by_another),
    anywhere("max_below_usage_from_other_cgroup", limits::max_below_usage_from_other_cgroup),
    anywhere("incident_mix", incident::mix),
    anywhere("incident_kernel", incident::kernel),
    anywhere("incident_cache", incident::cache),
    anywhere("incident_stands_out", incident::stands_out),
    anywhere("incident_triggered_by_another", incident::triggered_by_another),
    anywhere("incident_at_once", incident::at_once),
    Scenario { name: "incident_apart", place: Where::HostOnly, act: incident::apart },
    anywhere("oom_group", group::oom_group),
    anywhere("hostile_comm_and_path", names::hostile_comm_and_path),
    anywhere("deep_path", names::deep_path),
    anywhere("cgroup_removed_before_line", names::cgroup_removed_before_line),
    guest_only("host_wide", host_wide::in_a_cgroup),
    guest_only("host_wide_root_cgroup", host_wide::in_the_root_cgroup),
    guest_only("host_wide_five_times", host_wide::five_times),
    guest_only("allocating_task", host_wide::allocating_task),
    guest_only("sysrq_f", host_wide::sysrq_f),
    guest_only("cpuset", host_wide::cpuset),
    guest_only("mempolicy", host_wide::mempolicy),
    guest_only("host_wide_full_leaf", host_wide::full_leaf),
    guest_only("host_memory_anon", host_memory::anon),
    guest_only("host_memory_shmem", host_memory::shmem),
    guest_only("host_memory_locked", host_memory::locked),
    guest_only("host_memory_removed", host_memory::removed),
    guest_only("host_memory_slab", host_uncharged::slab),
    guest_only("host_memory_pool_and_map", host_uncharged::pool_and_map),
    guest_only("stack_as_hook", on_stack::as_hook),
    guest_only("clock_set", clock::set_while_a_kill_waits),
    guest_only("no_killable_process", nobody_killed::no_killable_process),
    guest_only("no_killable_process_for_ever", nobody_killed::for_ever),
    guest_only("oom_kill_disable", nobody_killed::oom_kill_disable),
    guest_only("removed_cgroup_holds_memory", removed::holds_memory),
    anywhere("pinned", pinned::pinned),
    anywhere("signals", signals::every_way),
    anywhere("signals_beside_kills", signals::beside_kills),
    anywhere("signals_storm", signals::storm),
    guest_only("burst_200", burst::two_hundred),
    Scenario { name: "burst_300", place: Where::HostOnly, act: burst::three_hundred },
];

/// All that may run here.
pub fn all(guest: bool) -> impl Iterator<Item = &'static Scenario> {
    let elsewhere = if guest { Where::HostOnly } else { Where::GuestOnly };
    ALL.iter().filter(move |scenario| scenario.place != elsewhere)
}

fn not_applicable(reason: &str) -> Result<Outcome> {
    Ok(Outcome::NotApplicable(reason.to_owned()))
}

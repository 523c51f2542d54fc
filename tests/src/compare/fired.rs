//! Compares the cgroup whose limit fired with its files and the kernel log.

use super::{Dies, Expected, Fields, FiredLimit};
use crate::cgroup::Version;
use crate::kernel_log::LoggedKill;

/// A charge that must not fail can exceed the limit by this much.
const OVER: i128 = 1 << 20;

/// The largest allocation that can cause a kill, in pages (`PAGE_ALLOC_COSTLY_ORDER`). It may not fit
/// although less would.
const COSTLY: i128 = 8;

/// How often a charge is tried before the OOM killer runs (`MAX_RECLAIM_RETRIES` plus one).
const REFUSALS_BEFORE_OOM: i128 = 17;

impl Expected {
    pub(super) fn oom_cgroup(&self, fields: &mut Fields<'_>, log: &LoggedKill) {
        let Some(fired) = &self.fired else {
            return fields.absent("oom.cgroup", "the scenario has", "none");
        };
        self.place(fields, "oom.cgroup", &fired.place);
        fields.number("oom.cgroup.limit_bytes", "the scenario", fired.limit_bytes);
        let limit = i128::from(fired.limit_bytes);
        // Before 5.19, v2 has no file for the peak.
        let most = match fired.peak_bytes {
            Some(peak) => i128::from(peak),
            None => i128::from(fired.lowered_from.unwrap_or(fired.limit_bytes)) + OVER,
        };
        let page = i128::from(self.host.page_bytes);
        // What processors charged in advance (MEMCG_CHARGE_BATCH pages each) and give back on request.
        let ahead = 64 * page * i128::from(self.host.processors);
        let least = if fired.lowered_from.is_some() { limit } else { limit - ahead - COSTLY * page };
        // A process that dies at the same time elsewhere gives memory back.
        let stands_still = !fired.another_dies && self.dies() == Dies::Here;
        let least_usage = if stands_still { least } else { 0 };
        fields.between("oom.cgroup.usage_bytes", "the cgroup's files", least_usage, most);
        fields.between("oom.cgroup.peak_bytes", "the cgroup's files", least, most);
        if stands_still && self.kill == "selected" {
            self.usage_as_logged(fields, log, ahead);
        }
        self.swap_limits(fields, fired);
        match self.version {
            Version::V2 => fields.flag("oom.cgroup.oom_group", "the scenario", fired.oom_group),
            Version::V1 => fields.absent("oom.cgroup.oom_group", "cgroup v1 has", "none"),
        }
        self.counts(fields, fired);
    }

    /// The usage in the kernel's report is still right, except for what was charged `ahead`.
    fn usage_as_logged(&self, fields: &mut Fields<'_>, log: &LoggedKill, ahead: i128) {
        let page = i128::from(self.host.page_bytes);
        let swap_usage = match self.version {
            Version::V2 => "oom.cgroup.swap_usage_bytes",
            Version::V1 => "oom.cgroup.memsw_usage_bytes",
        };
        for (key, kilobytes) in [("oom.cgroup.usage_bytes", log.memory_kb), (swap_usage, log.swap_kb)] {
            let Some(logged) = kilobytes.map(|kilobytes| i128::from(kilobytes) * 1024) else { continue };
            let given_back = fields.own_number(key).map_or(0, |told| logged - told);
            let whole_pages = (0..=ahead).contains(&given_back) && given_back % page == 0;
            fields.number(key, "kernel log", if whole_pages { logged - given_back } else { logged });
        }
    }

    fn swap_limits(&self, fields: &mut Fields<'_>, fired: &FiredLimit) {
        let (set, others) = match self.version {
            Version::V2 => ("oom.cgroup.swap_limit_bytes", ["memsw_limit_bytes", "memsw_usage_bytes"]),
            Version::V1 => ("oom.cgroup.memsw_limit_bytes", ["swap_limit_bytes", "swap_usage_bytes"]),
        };
        match fired.swap_limit_bytes {
            Some(bytes) => fields.number(set, "the scenario", bytes),
            None => fields.absent(set, "the scenario has", "none"),
        }
        for other in others {
            fields.absent(&format!("oom.cgroup.{other}"), "this cgroup version has", "none");
        }
    }

    /// The counters of memory events.
    fn counts(&self, fields: &mut Fields<'_>, fired: &FiredLimit) {
        for name in ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"] {
            let key = format!("oom.cgroup.events.{name}");
            let after = fired.events.get(name).copied();
            // The kernel counts a kill before it marks the victim.
            let counted = if name == "oom_kill" { after.unwrap_or(0).min(1) } else { 0 };
            let at_least = i128::from(counted)
                + i128::from(name == "oom" || (name == "max" && fired.lowered_from.is_none()));
            match (after, name) {
                // Charges fail until the victim is gone. The group kill is counted between its victims.
                (Some(after), "max" | "oom_group_kill") => {
                    fields.between(&key, "the cgroup's files", at_least, after.into());
                }
                (Some(after), _) if fired.events_of_this_kill_alone => {
                    fields.number(&key, "the cgroup's files", after);
                }
                (Some(after), _) => fields.between(&key, "the cgroup's files", at_least, after.into()),
                // v1 keeps these counters but shows them in no file. Each is at most the number of refused
                // charges.
                (None, "max" | "oom") if self.version == Version::V1 => {
                    let refusals = fired.refusals.map_or(i128::MAX, i128::from);
                    let most = if name == "oom" { refusals / REFUSALS_BEFORE_OOM } else { refusals };
                    fields.between_if_known(&key, "the cgroup's files", at_least, most);
                }
                (None, _) => fields.absent(&key, "this kernel has", "none"),
            }
        }
    }
}

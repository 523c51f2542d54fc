//! The cgroup whose limit fired, against its files and the kernel's log.

use super::{Dies, Expected, Fields, FiredLimit};
use crate::cgroup::Version;
use crate::kernel_log::LoggedKill;

/// A charge that may not fail goes over the limit by little.
const OVER: i128 = 1 << 20;

/// The largest allocation that is worth a kill, in pages (`PAGE_ALLOC_COSTLY_ORDER`): it may not fit though less would.
const COSTLY: i128 = 8;

/// A charge is tried so often before the killer is asked (`MAX_RECLAIM_RETRIES`, and once more).
const REFUSALS_BEFORE_OOM: i128 = 17;

impl Expected {
    pub(super) fn oom_cgroup(&self, fields: &mut Fields<'_>, log: &LoggedKill) {
        let Some(fired) = &self.fired else {
            return fields.absent("oom.cgroup", "the scenario has", "none");
        };
        self.place(fields, "oom.cgroup", &fired.place);
        fields.number("oom.cgroup.limit_bytes", "the scenario", fired.limit_bytes);
        let limit = i128::from(fired.limit_bytes);
        // Before 5.19 no file of v2 tells the peak.
        let most = match fired.peak_bytes {
            Some(peak) => i128::from(peak),
            None => i128::from(fired.lowered_from.unwrap_or(fired.limit_bytes)) + OVER,
        };
        let page = i128::from(self.host.page_bytes);
        // What processors had charged ahead (MEMCG_CHARGE_BATCH pages each) and give back when asked.
        let ahead = 64 * page * i128::from(self.host.processors);
        let least = if fired.lowered_from.is_some() { limit } else { limit - ahead - COSTLY * page };
        // Who dies elsewhere meanwhile gives memory back.
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

    /// What was in use when the report was written still is, but for what was charged `ahead`.
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

    /// The cgroup's counts of memory events.
    fn counts(&self, fields: &mut Fields<'_>, fired: &FiredLimit) {
        for name in ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"] {
            let key = format!("oom.cgroup.events.{name}");
            let after = fired.events.get(name).copied();
            // The kernel counts a kill before it marks the victim.
            let counted = if name == "oom_kill" { after.unwrap_or(0).min(1) } else { 0 };
            let at_least = i128::from(counted)
                + i128::from(name == "oom" || (name == "max" && fired.lowered_from.is_none()));
            match (after, name) {
                // Refused charges go on until the victim is gone; the group's kill is counted between its victims.
                (Some(after), "max" | "oom_group_kill") => {
                    fields.between(&key, "the cgroup's files", at_least, after.into());
                }
                (Some(after), _) if fired.events_of_this_kill_alone => {
                    fields.number(&key, "the cgroup's files", after);
                }
                (Some(after), _) => fields.between(&key, "the cgroup's files", at_least, after.into()),
                // v1 keeps these counts and shows them nowhere; each refusal is at most one.
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

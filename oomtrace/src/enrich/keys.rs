//! Dotted paths of a cgroup's keys, by the place of the cgroup in a line. They are constants, so that the
//! reason for an absent fact allocates no text.

macro_rules! cgroup_keys {
    ($($field:ident = $name:literal),* $(,)?) => {
        /// The keys of one cgroup.
        #[derive(Clone, Copy, Debug)]
        pub struct CgroupKeys {
            $(#[doc = concat!("The path of `", $name, "`.")] pub $field: &'static str,)*
        }

        /// Of the cgroup whose limit fired at a kill.
        pub const OOM_CGROUP: CgroupKeys = CgroupKeys { $($field: concat!("oom.cgroup.", $name)),* };
        /// Of the cgroup that ran out without a kill.
        pub const CGROUP: CgroupKeys = CgroupKeys { $($field: concat!("cgroup.", $name)),* };
    };
}

cgroup_keys! {
    path = "path",
    limit_bytes = "limit_bytes",
    usage_bytes = "usage_bytes",
    peak_bytes = "peak_bytes",
    swap_limit_bytes = "swap_limit_bytes",
    swap_usage_bytes = "swap_usage_bytes",
    memsw_limit_bytes = "memsw_limit_bytes",
    memsw_usage_bytes = "memsw_usage_bytes",
    oom_group = "oom_group",
    events = "events",
    events_low = "events.low",
    events_high = "events.high",
    events_max = "events.max",
    events_oom = "events.oom",
    events_oom_kill = "events.oom_kill",
    events_oom_group_kill = "events.oom_group_kill",
}

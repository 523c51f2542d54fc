//! What an enricher is built from.

use std::collections::BTreeMap;

use crate::{
    cgroups::tree::{CgroupTree, TreeLimits},
    containers::Runtimes,
    enrich::enricher::HookState,
    event::{CgroupVersion, Host},
    facts::OomControlLayout,
    host::{
        clock::ClockOffset,
        kernel_log::KernelLog,
        process::{self, CommandLineChoice, ProcessReader},
        root::Root,
    },
    kernel::gfp::GfpNames,
};

/// What an [`Enricher`](super::Enricher) is built from.
pub struct Knowledge {
    /// Whether function hooks are attached, and whether they run.
    pub hooks: HookState,
    /// The host's files.
    pub root: Option<Root>,
    /// The memory cgroups and their containers.
    pub tree: CgroupTree,
    /// Readers of `/proc/PID`, or why there are none: in a replay the process does not belong to this host.
    pub processes: Result<ProcessReader, process::Reason>,
    /// How much of a command line is reported.
    pub command_line: CommandLineChoice,
    /// The kernel log, if no function hook runs.
    pub log: Option<KernelLog>,
    /// Where the killer's state has its members, to find it in the kernel stack.
    pub oom_control: Option<OomControlLayout>,
    /// Names of allocation flags.
    pub gfp: Option<GfpNames>,
    /// Where memory cgroups are.
    pub version: CgroupVersion,
    /// The clock offset of a replay. `None` samples it for each event.
    pub clock: Option<ClockOffset>,
    /// What each line says about the run that writes it.
    pub run: RunFacts,
}

impl Knowledge {
    /// Nothing about any host: only what the records say. `name` stands for the host and the run.
    pub fn none(name: &str, version: CgroupVersion) -> Self {
        Self {
            hooks: HookState::None,
            root: None,
            tree: CgroupTree::new(Runtimes::none(), TreeLimits::default()),
            processes: Err(process::Reason::NotRead),
            command_line: CommandLineChoice::Full,
            log: None,
            oom_control: None,
            gfp: None,
            version,
            clock: Some(ClockOffset::default()),
            run: RunFacts {
                host: Host { name: Some(name.into()), boot_id: None, kernel: Some(name.into()) },
                tags: BTreeMap::new(),
                instance: name.into(),
                stream: name.into(),
            },
        }
    }
}

/// What each line says about the run that writes it.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// The host's identity.
    pub host: Host,
    /// The operator's constants.
    pub tags: BTreeMap<String, String>,
    /// Identifies the run.
    pub instance: String,
    /// Identifies the set of programs whose events are read.
    pub stream: String,
}

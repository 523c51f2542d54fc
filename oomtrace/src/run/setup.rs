//! Builds a run: its sources, its outputs, and the knowledge that its events are enriched with.
//!
//! The list of the sources is here: [`sources`]. The list of the outputs besides the durable one is in
//! `beside.rs`.

use crate::{
    cgroups::{
        file_thread::FileThread,
        tree::{CgroupTree, TreeLimits},
    },
    cli::{self, Run},
    containers::{Runtime, Runtimes, labels::LabelKeys},
    enrich::enricher::{Enricher, HookState, Knowledge, RunFacts, ftrace_enabled},
    facts::OomControlLayout,
    failure::{Code, Failure},
    host::{
        clock,
        identity::{self, UniqueId},
        kernel_log::KernelLog,
        process::{self, CommandLineChoice, ProcessReader},
        root::Root,
    },
    kernel::Kernel,
    outputs::{
        Durable,
        encode::Render,
        transport::{Access, FileSink, Rotation, Sink, StdoutSink},
    },
    sources::{
        Source,
        cgroup_changes::CgroupChanges,
        cgroup_files::CgroupFiles,
        clock_steps::ClockSteps,
        earlier_kills::EarlierKills,
        early_wakeup::EarlyWakeup,
        function_hooks::{self, FunctionHooks},
        history::{History, Kept, Recording, Shared},
        host_memory::HostRuns,
        incident::Incidents,
        kernel_log::FollowKernelLog,
        kills::{Kills, Records},
        probe::{PinDir, Probe, ProbeError, Rings, Sampler},
        sampling::{Consumer, Reader, Sampling},
        signal_kills::{SignalChoice, SignalKills},
        verdict::Verdicts,
    },
};
use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, rc::Rc};

/// Options of the operator that events are enriched with.
#[derive(Default)]
pub(crate) struct Added {
    runtime_roots: Vec<(Runtime, PathBuf)>,
    command_line: CommandLineChoice,
    labels: LabelKeys,
    tags: BTreeMap<String, String>,
}

impl Added {
    /// Reads them from the command line.
    pub(crate) fn of(args: &Run) -> Result<Self, clap::Error> {
        Ok(Self {
            runtime_roots: args.runtime_root.clone(),
            command_line: args.command_line,
            labels: cli::labels(&args.label)?,
            tags: cli::tags(&args.tag)?,
        })
    }
}

/// What is missing where the pids of `/proc` are not the kernel's.
pub(crate) const OTHER_PID_NAMESPACE: &str = "/proc is of another pid namespace than the kernel's first: executables are not \
    known, and command lines only where the victim ran the killer itself (run it with the host's pids: --pid=host, hostPID)";

/// What the sources are built from.
pub(crate) struct Given<'a> {
    /// The command line.
    pub(crate) args: &'a Run,
    /// The host's files.
    pub(crate) root: &'a Root,
    /// The rings of the programs.
    pub(crate) rings: Rings,
    /// Reads the records in the rings.
    pub(crate) records: Records,
    /// Whether a function hook is attached.
    pub(crate) hooked: bool,
    /// Whether this is PREEMPT_RT.
    pub(crate) realtime: bool,
    /// This run took over or replaced the programs of an earlier run. Kills from before it are reported by
    /// that run.
    pub(crate) continues: bool,
    /// Where the memory cgroups are mounted.
    pub(crate) mount: Option<PathBuf>,
    /// Reads the files of cgroups.
    pub(crate) files: &'a FileThread,
    /// Reads all memory cgroups.
    pub(crate) cgroups: Reader,
    /// How their memory went; `None` if that is not kept.
    pub(crate) history: Option<Shared>,
    /// Turns facts into events.
    pub(crate) enricher: &'a Enricher,
}

/// All sources of a run, in the order in which they are asked. A source that cannot start adds a limit to the
/// run.
pub(crate) fn sources(given: Given<'_>, limits: &mut Vec<String>) -> Result<Vec<Box<dyn Source>>, Failure> {
    let Given {
        args, root, rings, records, hooked, realtime, mount, files, cgroups, history, enricher, ..
    } = given;
    limits.extend(cgroups.limit());
    let mut kills = Kills::new(rings.kills, rings.missed_signals, records.clone());
    let earlier = EarlierKills::before(&mut kills, root, args.since, given.continues, limits);
    let signals = (args.signals != SignalChoice::Off)
        .then(|| SignalKills::new(rings.signals, records.clone(), args.signals, mount.clone()));
    let checks = mount.clone().map(|mount| CgroupFiles::new(files, mount, enricher.is_v1()));
    let hosts = HostRuns::new(mount.as_deref());
    let mut consumers: Vec<Box<dyn Consumer>> = vec![Box::new(hosts.clone())];
    consumers.extend(history.iter().map(|history| Box::new(Recording::new(history)) as Box<dyn Consumer>));
    let incidents = Incidents::start(root, mount.clone(), enricher.is_v1(), (history, hosts), limits)
        .map_err(no_thread)?;
    let list = [
        // Before the changes of cgroups, so that those of its time are known too. On PREEMPT_RT a reader that waits for a kill
        // would delay the kernel's own threads.
        any(rings.early.filter(|_| hooked && !realtime).and_then(EarlyWakeup::of)),
        one(CgroupChanges::new(rings.cgroups, records, mount)),
        one(earlier),
        one(kills),
        any(signals),
        one(Sampling::new(cgroups, identity::page_bytes(), consumers)),
        hooked.then(FunctionHooks::default).and_then(one),
        any(checks.transpose().map_err(no_descriptor)?),
        one(ClockSteps::new().map_err(no_descriptor)?),
        any(FollowKernelLog::of(enricher).map_err(no_descriptor)?),
        one(incidents),
        any((!args.no_verdict).then(Verdicts::start).transpose().map_err(no_thread)?),
    ];
    Ok(list.into_iter().flatten().collect())
}

/// What reads all memory cgroups.
pub(crate) fn reader(
    program: Result<Sampler, ProbeError>,
    files: &FileThread,
    mount: Option<PathBuf>,
    v1: bool,
) -> Result<Reader, Failure> {
    Reader::new(program, files, mount, v1, identity::page_bytes()).map_err(no_descriptor)
}

/// How memory goes, if the operator wants it and there are memory cgroups.
pub(crate) fn history(
    args: &Run,
    pins: Option<&PinDir>,
    reader: &Reader,
    limits: &mut Vec<String>,
) -> Result<Option<Shared>, Failure> {
    if args.history == 0 || reader.is_nothing() {
        return Ok(None);
    }
    let mut history = History::new(args.history, args.history_interval, identity::page_bytes());
    if let Some(pins) = pins {
        history.go_on(Kept::open(pins, args.history)?, clock::boot_time().0);
    }
    if !reader.is_program() {
        limits.push(
            "the kernel's lists of pages are not read: no limit_near line is written, and `before` has no unreclaimable".into(),
        );
    }
    Ok(Some(Rc::new(RefCell::new(history))))
}

fn one(source: impl Source + 'static) -> Option<Box<dyn Source>> {
    any(Some(source))
}

fn any(source: Option<impl Source + 'static>) -> Option<Box<dyn Source>> {
    source.map(|source| Box::new(source) as Box<dyn Source>)
}

/// The durable output.
pub(crate) fn durable(root: &Root, args: &Run, render: Render) -> Result<Durable, Failure> {
    let sink: Box<dyn Sink> = match &args.file {
        Some(path) => {
            let rotation =
                args.file_max_size.map(|max_bytes| Rotation { max_bytes, old_files: args.file_keep });
            Box::new(FileSink::open_for(path, access(root, args)?, rotation)?)
        }
        None => Box::new(StdoutSink::new()),
    };
    Ok(Durable::new(render, sink))
}

/// Who may read the files that the output creates.
fn access(root: &Root, args: &Run) -> Result<Access, Failure> {
    let id = |name: &String| {
        identity::group(root, name).ok_or_else(|| {
            let why = format!("--file-group {name}: this host's /etc/group has no such group");
            Failure::message(Code::RunTime, why)
                .hint("give a group of a name service (LDAP, SSSD) by its number")
        })
    };
    Ok(Access { mode: args.file_mode, group: args.file_group.as_ref().map(id).transpose()? })
}

/// What events are enriched with. What is not available becomes a limit of the run, not an error.
pub(crate) fn knowledge(
    root: &Root,
    kernel: &Kernel,
    probe: &Probe,
    added: Added,
    limits: &mut Vec<String>,
) -> Result<Knowledge, Failure> {
    let hooked = probe.is_hooked();
    if !hooked {
        limits.push(
            "no function hook: a memory cgroup that runs out without a kill is found only at the next event, in the cgroups' \
             files (on cgroup v1 only where kills are disabled), and whose limit fired is found in the killer's kernel stack, else \
             in the kernel log"
                .into(),
        );
    }
    let hooks = match hooked {
        false => HookState::None,
        true if ftrace_enabled(root) == Some(false) => HookState::Silent,
        true => HookState::Running,
    };
    if hooks == HookState::Silent {
        limits.push(function_hooks::SILENT.into());
    }
    let log =
        (hooks != HookState::Running).then(|| KernelLog::open(root)).transpose().unwrap_or_else(|error| {
            limits.push(format!("no function hook runs, and the kernel log cannot be read: {error}"));
            None
        });
    let processes = if identity::proc_has_kernel_pids(root) {
        Ok(ProcessReader::new(root, added.command_line).map_err(no_thread)?)
    } else {
        limits.push(OTHER_PID_NAMESPACE.into());
        Err(process::Reason::OtherPidNamespace)
    };
    let runtimes = Runtimes::discover(root.clone(), &added.runtime_roots).with_labels(added.labels);
    Ok(Knowledge {
        hooks,
        root: Some(root.clone()),
        tree: CgroupTree::new(runtimes, TreeLimits::default()),
        processes,
        command_line: added.command_line,
        log,
        oom_control: OomControlLayout::of(&kernel.resolved.layout),
        gfp: kernel.gfp_names(),
        version: kernel.hierarchy.version,
        clock: None,
        run: RunFacts {
            host: identity::identity(root),
            tags: added.tags,
            instance: UniqueId::new().to_string(),
            stream: probe.stream().to_string(),
        },
    })
}

pub(crate) fn no_thread(error: std::io::Error) -> Failure {
    Failure::message(Code::RunTime, format!("cannot start a thread: {error}"))
}

fn no_descriptor(error: std::io::Error) -> Failure {
    Failure::message(Code::RunTime, format!("cannot wait for events: {error}"))
}

//! `oomtrace run`: opens the output, reads the kernel and attaches; the session goes on from there.

use std::path::{Path, PathBuf};

use oomtrace_common::layout::ABSENT;

use crate::{
    accounting::reconciliation::Reconciliation,
    cgroups::tree::{CgroupTree, TreeLimits},
    cli::{RingSize, Run},
    commands::{render, terminal},
    containers::{Runtime, Runtimes},
    enrich::enricher::{Enricher, Sources},
    event::{CgroupVersion, Start},
    facts::Decoder,
    failure::{Code, Failure},
    host::{
        clock, identity,
        kernel_log::KernelLog,
        process::{self, ProcessReader},
        root::Root,
    },
    kernel::{Kernel, privilege},
    outputs::transport::{
        Access, FileSink, Rotation, Sink, SinkError, StdoutSink, create_private, others_may_write,
    },
    run::{
        pipeline::{Filter, Pipeline},
        protection,
        session::{Ended, Session},
        signals,
    },
    sources::{
        earlier_kills::Backfill,
        probe::{HookChoice, Options, PinDir, Probe, TakeOver},
        verdict::Verdicts,
    },
    stderr::say,
};

/// Bytes of the ring of cgroup changes: some 2,000 changes of a usual path.
const CGROUP_RING_BYTES: u32 = 256 << 10;

/// What a kernel without the memory controller lacks.
pub(super) const NO_MEMORY_CGROUPS: &str = "no memory cgroups in this kernel, or they are off (cgroup_disable=memory): kills \
    are reported without their cgroups, containers and units";

/// What is lost where the pids of `/proc` are not the kernel's.
pub(super) const OTHER_PID_NAMESPACE: &str = "/proc is of another pid namespace than the kernel's first: executables are not \
    known, and command lines only where the victim ran the killer itself (run it with the host's pids: --pid=host, hostPID)";

/// `oomtrace run`.
///
/// # Errors
/// Before the programs are attached: what this host lacks. Afterwards: only what ends the run.
pub fn run(args: Run) -> Result<(), Failure> {
    signals::set_up();
    let root = Root::host().guarded();
    protection::outlive_rotation();
    // What can fail for the operator's reasons fails before anything is attached.
    let sink: Box<dyn Sink> = match &args.file {
        Some(path) => {
            let rotation = args.file_max_size.map(|max_bytes| Rotation { max_bytes, keep: args.file_keep });
            Box::new(FileSink::open_for(path, access(&root, &args)?, rotation)?)
        }
        None => Box::new(StdoutSink::new()),
    };
    let record = args.record.as_deref().map(create_private).transpose();
    let record = record.map_err(|error| {
        let file = args.record.as_deref().unwrap_or(Path::new("")).display();
        Failure::message(Code::RunTime, format!("cannot create {file}: {error}"))
    })?;
    let terminal = args.file.is_none() && terminal();

    let kernel = Kernel::read(&root)?;
    lockdown_allows_it()?;
    let pins = args.pin.as_deref().map(PinDir::open).transpose()?;
    if let Some((_, Some(mounted))) = &pins {
        say(&format!("oomtrace: {mounted}"));
    }
    let options = options(args.hook, args.ring_size, args.debug);
    let TakeOver { probe, resumed, left } = match &pins {
        Some((dir, _)) => Probe::pinned(&options, &kernel.resolved.layout, &kernel.btf, dir)?,
        None => {
            let probe = Probe::attach(&options, &kernel.resolved.layout, &kernel.btf)?;
            TakeOver { probe, resumed: false, left: Vec::new() }
        }
    };
    let vmstat = (kernel.resolved.layout.signal_oom_mm != ABSENT).then(|| root.path("/proc/vmstat"));
    // Before any thread is started, which inherits it.
    let mut limits = protection::hold(!args.no_realtime);
    let sources = sources(&root, &kernel, &probe, &args, &mut limits)?;
    let others = args.file.as_deref().and_then(others_may_write);
    limits.extend(others.map(|who| format!("--file: {who}, who may put another file in its place")));
    let runtimes = sources.tree.runtimes().found();
    limits.extend(nothing_there(&args.runtime_root, &runtimes));
    let mount = kernel.hierarchy.mount.clone();
    let version = kernel.hierarchy.version;
    if version == CgroupVersion::None {
        limits.push(NO_MEMORY_CGROUPS.into());
    }
    if !kernel.resolved.absent.is_empty() {
        limits.push(format!("this kernel has no {}", kernel.resolved.absent.join(", ")));
    }
    drop(kernel);
    // What an earlier run has seen live is told already, or in its ring.
    let since = args.since.filter(|_| !resumed && left.is_empty());
    if args.since.is_some() && since.is_none() {
        limits.push("--since has no effect: what came before these pins was the first run's to tell".into());
    }
    let backfill = since.map(|since| Backfill::read(&root, since)).transpose();
    let backfill = backfill.unwrap_or_else(|error| {
        limits.push(format!("earlier kills are not known: the kernel log cannot be read ({error})"));
        None
    });
    let backfill = backfill.unwrap_or_default();
    limits.extend(backfill.limit().map(str::to_owned));
    let missing = privilege::missing(&root).unwrap_or_default();
    limits.extend(missing.iter().map(|capability| format!("no {}: {}", capability.name, capability.without)));
    let verdicts = (!args.no_verdict).then(Verdicts::start).transpose();
    let verdicts = verdicts
        .map_err(|error| Failure::message(Code::RunTime, format!("cannot start a thread: {error}")))?;
    protection::trim();

    let filter = Filter { container: args.container.clone(), scope: args.scope.map(Into::into) };
    let decoder = Decoder::new(identity::page_bytes());
    let mut pipeline =
        Pipeline::new(decoder, Enricher::new(sources), filter, render(args.output, terminal), sink)
            .with_verdicts(verdicts);
    let start = Start {
        envelope: pipeline.enricher().own_envelope(),
        version: env!("CARGO_PKG_VERSION").into(),
        instance: instance(),
        hooks: probe.hooks().to_vec(),
        cgroup_version: version,
        runtimes,
        resumed,
        limits,
        truncated: Vec::new(),
    };
    let reconciliation = Reconciliation::new(vmstat);
    let mut session = Session::new(probe, pipeline, record, args.count, backfill, reconciliation);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let done = runtime
        .map_err(Ended::Io)
        .and_then(|runtime| runtime.block_on(session.run(start, left, mount.as_deref(), args.timeout)));
    match done {
        // Nobody reads: the run has no purpose any more.
        Ok(()) | Err(Ended::Sink(SinkError::Closed)) => Ok(()),
        Err(Ended::Sink(error)) => Err(error.into()),
        Err(Ended::Io(error)) => {
            Err(Failure::message(Code::RunTime, format!("cannot wait for events: {error}")))
        }
        Err(Ended::Failure(failure)) => Err(failure),
    }
}

fn options(hook: HookChoice, ring_size: RingSize, debug: bool) -> Options {
    Options { hook, kill_ring_bytes: ring_size.0, cgroup_ring_bytes: CGROUP_RING_BYTES, debug }
}

/// Who may read the files that are made.
fn access(root: &Root, args: &Run) -> Result<Access, Failure> {
    let id = |name: &String| {
        identity::group(root, name).ok_or_else(|| {
            let why = format!("--file-group {name}: this host's /etc/group has no such group");
            Failure::message(Code::RunTime, why).hint("a group of another service is named by its number")
        })
    };
    Ok(Access { mode: args.file_mode, group: args.file_group.as_ref().map(id).transpose()? })
}

/// Attaches with the sizes of this command.
pub(super) fn attach(
    kernel: &Kernel,
    hook: HookChoice,
    ring_size: RingSize,
    debug: bool,
) -> Result<Probe, Failure> {
    lockdown_allows_it()?;
    Ok(Probe::attach(&options(hook, ring_size, debug), &kernel.resolved.layout, &kernel.btf)?)
}

/// The operator's directories that hold no state of the runtime that they were named for: of those that are
/// `found`, as [`Runtimes::found`] says them.
pub(super) fn nothing_there(named: &[(Runtime, PathBuf)], found: &[String]) -> Vec<String> {
    named
        .iter()
        .map(|(runtime, dir)| format!("{}={}", runtime.name(), dir.display()))
        .filter(|named| !found.contains(named))
        .map(|named| format!("--runtime-root {named}: no state of that runtime is there"))
        .collect()
}

/// Loading may succeed under lockdown, and then every read of the kernel's memory fails.
fn lockdown_allows_it() -> Result<(), Failure> {
    if privilege::lockdown(&Root::host()).as_deref() != Some("confidentiality") {
        return Ok(());
    }
    let why = "the kernel is in lockdown=confidentiality, which forbids to read kernel memory";
    Err(Failure::message(Code::Unsupported, why).hint("boot with lockdown=integrity"))
}

/// What events are enriched from. What cannot be had is a limit of the run, not an error.
pub(super) fn sources(
    root: &Root,
    kernel: &Kernel,
    probe: &Probe,
    args: &Run,
    limits: &mut Vec<String>,
) -> Result<Sources, Failure> {
    let hooked = probe.is_hooked();
    if !hooked {
        limits.push(
            "no function hook: a memory cgroup that runs out without a kill is found only at the next event, in the cgroups' \
             files (on cgroup v1 only where kills are disabled), and whose limit fired comes from the kernel log, else from the \
             cgroups' limits"
                .into(),
        );
    }
    let log = if hooked {
        None
    } else {
        match KernelLog::open(root) {
            Ok(log) => Some(log),
            Err(error) => {
                limits.push(format!("no function hook, and the kernel log cannot be read: {error}"));
                None
            }
        }
    };
    let processes = if identity::proc_has_kernel_pids(root) {
        Ok(ProcessReader::new(root)
            .map_err(|error| Failure::message(Code::RunTime, format!("cannot start a thread: {error}")))?)
    } else {
        limits.push(OTHER_PID_NAMESPACE.into());
        Err(process::Reason::OtherPidNamespace)
    };
    let runtimes = Runtimes::discover(root.clone(), &args.runtime_root);
    Ok(Sources {
        root: root.clone(),
        tree: CgroupTree::new(runtimes, TreeLimits::default()),
        processes,
        log,
        gfp: kernel.gfp_names(),
        version: kernel.hierarchy.version,
        clock: None,
        host: identity::identity(root),
    })
}

/// Unique to a run: the time it began and its process id.
fn instance() -> String {
    format!("{:x}-{:x}", clock::boot_time().0, std::process::id())
}

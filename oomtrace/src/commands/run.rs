//! `oomtrace run`: opens the output, reads the kernel's properties and attaches the programs; then the
//! session takes over.

use std::{path::PathBuf, time::Duration};

use oomtrace_common::layout::ABSENT;

use crate::{
    accounting::Account,
    cgroups::file_thread::FileThread,
    cli::{RingSize, Run},
    commands::{render, terminal},
    containers::Runtime,
    enrich::enricher::Enricher,
    event::{CgroupVersion, HookStatus, Start},
    failure::{Code, Failure},
    filter::Filter,
    host::{identity, process::CommandLineChoice, protection, root::Root},
    kernel::{Kernel, privilege},
    outputs::{
        journal,
        transport::{SinkError, others_may_write},
    },
    run::{
        beside::{self, Beside},
        reporter::Reporter,
        session::{Asked, Ended, Parts, Session},
        setup::{self, Added, Given},
        signals,
    },
    sources::{
        kills::Records,
        probe::{HookChoice, Options, PinDir, Probe, Replaced, TakeOver},
        recorder::Recorder,
        signal_kills::SignalChoice,
    },
    stderr::say,
};

/// Size of the ring of cgroup changes: about 2,000 changes with usual paths.
const CGROUP_RING_BYTES: u32 = 256 << 10;

/// What is missing on a kernel without the memory controller.
pub(super) const NO_MEMORY_CGROUPS: &str = "no memory cgroups in this kernel, or they are off (cgroup_disable=memory): kills \
    are reported without their cgroups, containers and units";

/// `oomtrace run`.
///
/// # Errors
/// Before the programs are attached: what this host lacks. After that: only what ends the run.
pub fn run(args: Run) -> Result<(), Failure> {
    signals::set_up();
    let added = Added::of(&args).unwrap_or_else(|error| error.exit());
    let root = Root::host().guarded();
    // The operator's errors must be found before anything is attached.
    let durable = setup::durable(&root, &args, render(args.output, args.file.is_none() && terminal()))?;
    let beside = Beside::open(&args.beside)?;
    let recorder = args.record.as_deref().map(Recorder::create).transpose()?;

    let kernel = Kernel::read(&root)?;
    lockdown_allows_it()?;
    let (pins, TakeOver { mut probe, resumed, replaced }) = pinned_or_not(&args, &kernel)?;
    let vmstat = (kernel.resolved.layout.signal_oom_mm != ABSENT).then(|| root.path("/proc/vmstat"));
    // Before any thread is started, because threads inherit these settings.
    let mut limits = protection::hold(!args.no_realtime);
    limits.extend(of_outputs(&args));
    let (hooked, realtime) = (probe.is_hooked(), kernel.realtime);
    let mut enricher = Enricher::new(setup::knowledge(&root, &kernel, &probe, added, &mut limits)?);
    let runtimes = enricher.tree().runtimes().found();
    limits.extend(nothing_there(&args.runtime_root, &runtimes).into_iter().chain(lacks(&kernel)));
    let (mount, cgroup_version) = (kernel.hierarchy.mount.clone(), kernel.hierarchy.version);
    let cgroups = probe.sampler(&kernel.resolved.layout);
    let files = FileThread::start().map_err(setup::no_thread)?;
    let cgroups = setup::reader(cgroups, &files, mount.clone(), enricher.is_v1())?;
    drop(kernel);

    let hooks = as_they_run(probe.hooks(), enricher.hooks_run()).into_iter().chain([cgroups.status()]);
    let (attached, rings, counts) = probe.into_parts();
    let outputs = beside::outputs(durable, beside, &args, pins.as_ref(), &rings)?;
    let records = Records::new(identity::page_bytes(), recorder);
    let given = Given {
        args: &args,
        root: &root,
        rings,
        records: records.clone(),
        hooked,
        realtime,
        continues: resumed || !replaced.is_empty(),
        mount: mount.clone(),
        files: &files,
        history: setup::history(&args, pins.as_ref(), &cgroups, &mut limits)?,
        cgroups,
        enricher: &enricher,
    };
    let sources = setup::sources(given, &mut limits)?;
    limits.extend(not_allowed(&root).chain(protection::lock_memory()));

    let start = Start {
        envelope: enricher.own_envelope(),
        version: env!("CARGO_PKG_VERSION").into(),
        instance: enricher.instance().to_owned(),
        hooks: hooks.collect(),
        cgroup_version,
        runtimes,
        resumed,
        limits,
        truncated: Vec::new(),
    };
    let account = Account::new(vmstat, enricher.is_v1());
    let reporter = Reporter::new(Filter::from(&args.filters), outputs);
    let asked = Asked { count: args.count, signals: args.signals };
    let parts =
        Parts { attached, counts, records, sources, enricher, account, reporter, mount, files, asked };
    let done = wait_for_events(Session::new(parts), start, replaced, args.timeout);
    // The lock on the pins is held until everything is written.
    drop(pins);
    done
}

/// What this process may not do.
fn not_allowed(root: &Root) -> impl Iterator<Item = String> {
    let missing = privilege::missing(root).unwrap_or_default();
    missing.into_iter().map(|capability| format!("no {}: {}", capability.name, capability.without))
}

/// What is to be said of where the lines go.
fn of_outputs(args: &Run) -> impl Iterator<Item = String> {
    let others = args.file.as_deref().and_then(others_may_write);
    let file = others.map(|who| format!("--file: {who}, who may put another file in its place"));
    file.into_iter().chain(args.beside.journal.then(journal::limit).flatten())
}

/// Why attached hooks do not run.
pub(super) const FTRACE_OFF: &str = "kernel.ftrace_enabled is 0: it does not run";

/// How each hook is attached. A function hook that does not run counts as not attached.
pub(super) fn as_they_run(hooks: &[HookStatus], functions_run: bool) -> Vec<HookStatus> {
    let status = |hook: &HookStatus| match hook.is_on_function() && !functions_run {
        true => hook.clone().silent(FTRACE_OFF),
        false => hook.clone(),
    };
    hooks.iter().map(status).collect()
}

/// Attaches the programs: pinned, or only until this process ends.
fn pinned_or_not(args: &Run, kernel: &Kernel) -> Result<(Option<PinDir>, TakeOver), Failure> {
    let options = Options {
        command_line: args.command_line,
        debug: args.debug,
        signals: args.signals,
        ..options(args.hook, args.ring_size)
    };
    let layout = &kernel.resolved.layout;
    let Some(dir) = &args.pin else {
        let probe = Probe::attach(&options, layout, &kernel.btf)?;
        return Ok((None, TakeOver { probe, resumed: false, replaced: Vec::new() }));
    };
    let (dir, mounted) = PinDir::open(dir)?;
    if let Some(mounted) = mounted {
        say(&format!("oomtrace: {mounted}"));
    }
    let taken_over = Probe::pinned(&options, layout, &kernel.btf, &dir)?;
    Ok((Some(dir), taken_over))
}

/// What this kernel lacks.
fn lacks(kernel: &Kernel) -> Vec<String> {
    let mut lacks = Vec::new();
    if kernel.hierarchy.version == CgroupVersion::None {
        lacks.push(NO_MEMORY_CGROUPS.to_owned());
    }
    if !kernel.resolved.absent.is_empty() {
        lacks.push(format!("this kernel has no {}", kernel.resolved.absent.join(", ")));
    }
    if kernel.realtime {
        let why =
            "a PREEMPT_RT kernel: whether a victim got a SIGKILL or was already exiting may not be known";
        lacks.push(why.to_owned());
    }
    lacks
}

fn wait_for_events(
    mut session: Session,
    start: Start,
    replaced: Vec<Replaced>,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let done = runtime
        .map_err(Ended::Io)
        .and_then(|runtime| runtime.block_on(session.run(start, replaced, timeout)));
    match done {
        // The reader is gone, so the run ends.
        Ok(()) | Err(Ended::Sink(SinkError::Closed)) => Ok(()),
        Err(Ended::Sink(error)) => Err(error.into()),
        Err(Ended::Io(error)) => {
            Err(Failure::message(Code::RunTime, format!("cannot wait for events: {error}")))
        }
        Err(Ended::Failure(failure)) => Err(failure),
    }
}

fn options(hook: HookChoice, ring_size: RingSize) -> Options {
    Options {
        hook,
        kill_ring_bytes: ring_size.0,
        cgroup_ring_bytes: CGROUP_RING_BYTES,
        signals: SignalChoice::Off,
        command_line: CommandLineChoice::default(),
        debug: false,
    }
}

/// Attaches with the ring sizes of this command.
pub(super) fn attach(kernel: &Kernel, hook: HookChoice, ring_size: RingSize) -> Result<Probe, Failure> {
    lockdown_allows_it()?;
    Ok(Probe::attach(&options(hook, ring_size), &kernel.resolved.layout, &kernel.btf)?)
}

/// The operator's `--runtime-root` directories without state of their runtime. `found` is the result of
/// [`Runtimes::found`].
pub(super) fn nothing_there(named: &[(Runtime, PathBuf)], found: &[String]) -> Vec<String> {
    named
        .iter()
        .map(|(runtime, dir)| format!("{}={}", runtime.name(), dir.display()))
        .filter(|named| !found.contains(named))
        .map(|named| format!("--runtime-root {named}: no state of that runtime is there"))
        .collect()
}

/// Under lockdown, loading may succeed, but then every read of kernel memory fails.
fn lockdown_allows_it() -> Result<(), Failure> {
    if privilege::lockdown(&Root::host()).as_deref() != Some("confidentiality") {
        return Ok(());
    }
    let why = "the kernel is in lockdown=confidentiality, which forbids reading kernel memory";
    Err(Failure::message(Code::Unsupported, why).hint("boot with lockdown=integrity"))
}

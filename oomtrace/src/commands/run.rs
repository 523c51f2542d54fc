//! `oomtrace run`: opens the output, reads the kernel, attaches, and tells of each event
//! until it is asked to end.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use tokio::{
    io::{
        Interest,
        unix::{AsyncFd, AsyncFdReadyGuard},
    },
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use oomtrace_common::layout::ABSENT;

use super::{reconciliation::Reconciliation, render, terminal};
use crate::{
    cli::{Output, RingSize, Run},
    decode::Decoder,
    enrich::{
        Root, clock,
        containers::Runtimes,
        enricher::{Enricher, Sources},
        host,
        kernel_log::KernelLog,
        process::ProcessReader,
        tree::{CgroupTree, TreeLimits},
    },
    event::{Event, Start},
    failure::{Code, Failure},
    kernel::Kernel,
    losses::Losses,
    pipeline::{Filter, Pipeline},
    probe::{HookChoice, Left, Options, PinDir, Probe, TakeOver},
    sink::{FileSink, Sink, SinkError, StdoutSink},
    steady,
};

/// Bytes of the ring of cgroup changes: some 2,000 changes of a usual path.
const CGROUP_RING_BYTES: u32 = 256 << 10;

/// `oomtrace run`.
///
/// # Errors
/// Before the programs are attached: what this host lacks. Afterwards: only what ends the run.
pub fn run(args: Run) -> Result<(), Failure> {
    let root = Root::host();
    // What can fail for the operator's reasons fails before anything is attached.
    let sink: Box<dyn Sink> = match &args.file {
        Some(path) => Box::new(FileSink::open(path)?),
        None => Box::new(StdoutSink::new()),
    };
    let record = args.record.as_ref().map(File::create).transpose();
    let record = record.map_err(|error| {
        Failure::message(Code::RunTime, format!("cannot create the record file: {error}"))
    })?;
    let terminal = args.file.is_none() && terminal();
    let output = args.output.unwrap_or(if terminal { Output::Text } else { Output::Json });

    let kernel = Kernel::read(&root)?;
    let pins = args.pin.as_deref().map(PinDir::open).transpose()?;
    let options = options(args.hook, args.ring_size, args.debug);
    let TakeOver { probe, resumed, left } = match &pins {
        Some((dir, _)) => Probe::pinned(&options, &kernel.resolved.layout, &kernel.btf, dir)?,
        None => {
            let probe = Probe::attach(&options, &kernel.resolved.layout, &kernel.btf)?;
            TakeOver { probe, resumed: false, left: Vec::new() }
        }
    };
    if let Some((_, Some(said))) = &pins {
        eprintln!("oomtrace: {said}");
    }
    let reconciles = kernel.resolved.layout.signal_oom_mm != ABSENT;
    // Before any thread is started, which inherits it.
    let mut limits = steady::hold(!args.no_realtime);
    let sources = sources(&root, &kernel, &probe, &args, &mut limits)?;
    let runtimes = sources.tree.runtimes().found();
    let mount = kernel.hierarchy.mount.clone();
    let version = kernel.hierarchy.version;
    if !kernel.resolved.absent.is_empty() {
        limits.push(format!("this kernel has no {}", kernel.resolved.absent.join(", ")));
    }
    drop(kernel);
    steady::trim();

    let filter = Filter { container: args.container.clone(), scope: args.scope.map(Into::into) };
    let decoder = Decoder::new(host::page_bytes());
    let mut pipeline = Pipeline::new(decoder, Enricher::new(sources), filter, render(output, terminal), sink);
    let start = Start {
        envelope: pipeline.enricher().own_envelope(),
        version: env!("CARGO_PKG_VERSION").into(),
        instance: instance(),
        hooks: probe.hooks().to_vec(),
        cgroup: version,
        runtimes,
        resumed,
        limits,
        truncated: Vec::new(),
    };
    let vmstat = reconciles.then(|| root.path("/proc/vmstat"));
    let mut session =
        Session { probe, pipeline, record, count: args.count, reconciliation: Reconciliation::new(vmstat) };
    let first =
        session.replaced(&start, left).and_then(|unread| session.first(start, unread, mount.as_deref()));
    let done = first.and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(Ended::Io)?;
        runtime.block_on(session.until_asked_to_end(args.timeout))
    });
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

/// Attaches with the sizes of this command.
pub(super) fn attach(
    kernel: &Kernel,
    hook: HookChoice,
    ring_size: RingSize,
    debug: bool,
) -> Result<Probe, Failure> {
    Ok(Probe::attach(&options(hook, ring_size, debug), &kernel.resolved.layout, &kernel.btf)?)
}

/// What events are enriched from. What cannot be had is a limit of the run, not an error.
pub(super) fn sources(
    root: &Root,
    kernel: &Kernel,
    probe: &Probe,
    args: &Run,
    limits: &mut Vec<String>,
) -> Result<Sources, Failure> {
    let hooked = probe.hooks().iter().any(|hook| hook.name == "oom_kill_process" && hook.attached != "none");
    if !hooked {
        limits.push(
            "no function hook: a memory cgroup that runs out without a kill is not told, and whose limit fired comes from \
             the kernel log, else from the cgroups' limits"
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
    let processes = ProcessReader::new(root)
        .map_err(|error| Failure::message(Code::RunTime, format!("cannot start a thread: {error}")))?;
    let runtimes = Runtimes::discover(root.clone(), &args.runtime_root);
    Ok(Sources {
        root: root.clone(),
        tree: CgroupTree::new(runtimes, TreeLimits::default()),
        processes: Some(processes),
        log,
        gfp: kernel.gfp_names(),
        version: kernel.hierarchy.version,
        clock: None,
        host: host::identity(root),
    })
}

/// Unique to a run: the time it began and its process id.
fn instance() -> String {
    format!("{:x}-{:x}", clock::boot_time().0, std::process::id())
}

/// Why a session ended before it was asked to.
enum Ended {
    Sink(SinkError),
    Io(io::Error),
    Failure(Failure),
}

impl From<SinkError> for Ended {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

struct Session {
    probe: Probe,
    pipeline: Pipeline,
    record: Option<File>,
    count: Option<u64>,
    reconciliation: Reconciliation,
}

impl Session {
    /// Tells what programs recorded that this run has replaced, and removes them: how many records could
    /// not be read.
    fn replaced(&mut self, start: &Start, left: Vec<Left>) -> Result<u64, Ended> {
        let mut unreadable = 0;
        for Left { generation, probe, unreadable: count } in left {
            unreadable += count;
            if let Some(probe) = probe {
                let own = std::mem::replace(&mut self.probe, probe);
                let hooks = self.probe.hooks().to_vec();
                self.resume(Start { hooks, resumed: true, ..start.clone() })?;
                self.drain()?;
                self.probe = own;
                if self.has_enough() {
                    // What is left there is for the next run.
                    return Ok(unreadable);
                }
            }
            generation.remove().map_err(|error| Ended::Failure(error.into()))?;
        }
        Ok(unreadable)
    }

    /// The first line, and the cgroups that were there before. The programs are attached already, so
    /// nothing falls between.
    fn first(&mut self, start: Start, unread: u64, mount: Option<&std::path::Path>) -> Result<(), Ended> {
        self.resume(start)?;
        self.pipeline.unreadable(unread);
        self.losses()?;
        self.reconciliation.begin(&mut self.probe).map_err(|error| Ended::Failure(error.into()))?;
        if let Some(mount) = mount {
            self.drain()?;
            // A cgroup that vanishes during the walk is no error; one that cannot be walked costs names only.
            let _names_only = self.pipeline.enricher().tree().walk(mount, clock::boot_time());
        }
        Ok(())
    }

    /// Goes on where the run was that attached these programs.
    fn resume(&mut self, start: Start) -> Result<(), Ended> {
        if let Some(kept) = self.probe.kept() {
            let losses = Losses::resume(kept.value());
            self.pipeline.resume(losses);
        }
        self.pipeline.print(&Event::Start(Box::new(start)))?;
        self.losses()
    }

    async fn until_asked_to_end(&mut self, timeout: Option<Duration>) -> Result<(), Ended> {
        let (kills, cgroups) = self.probe.rings();
        let (kills, cgroups) = (wakeups(kills)?, wakeups(cgroups)?);
        let log = self.pipeline.enricher().log_mut().map(|log| wakeups(log)).transpose()?;
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut hangup = on(SignalKind::hangup())?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let reason = loop {
            if self.drain()? {
                break "count";
            }
            self.probe.flush_log();
            tokio::select! {
                biased;
                ready = kills.readable() => ready.map_err(Ended::Io)?.clear_ready(),
                ready = cgroups.readable() => ready.map_err(Ended::Io)?.clear_ready(),
                ready = readable(log.as_ref()) => {
                    ready.map_err(Ended::Io)?.clear_ready();
                    self.read_log();
                }
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                _ = hangup.recv() => self.reopen(),
                () = until(self.reconciliation.due()) => self.reconcile()?,
                () = until(deadline) => break "timeout",
            }
        };
        self.drain()?;
        self.reconcile()?;
        if let Some(due) = self.reconciliation.due() {
            tokio::time::sleep_until(due).await;
            self.drain()?;
            self.reconcile()?;
        }
        self.probe.flush_log();
        self.pipeline.stop(reason)?;
        Ok(())
    }

    /// Tells of all that the rings hold; true when as many kills were told as were asked for.
    fn drain(&mut self) -> Result<bool, Ended> {
        loop {
            self.cgroup_changes();
            let mut told = false;
            loop {
                if self.has_enough() {
                    return Ok(true);
                }
                let Some((record, kept)) = self.probe.next_kill() else { break };
                if let Some(file) = &mut self.record {
                    keep(file, &record).map_err(Ended::Io)?;
                }
                // The record leaves the ring after its line was written.
                if let Err(error) = self.pipeline.kill(&record) {
                    // Never dropped, it stays for the next run.
                    std::mem::forget(record);
                    return Err(error.into());
                }
                if let Some(kept) = kept {
                    kept.keep(|value| self.pipeline.known_losses().keep(value))
                        .map_err(|error| Ended::Failure(error.into()))?;
                }
                drop(record);
                told = true;
                self.cgroup_changes();
            }
            if told {
                self.losses()?;
                self.reconciliation.something_happened();
            }
            // Names are read one cgroup at a time, so that a kill waits for one at the most.
            if !self.pipeline.enricher().tree().resolve_next(clock::boot_time()) && !told {
                return Ok(false);
            }
        }
    }

    /// Whether as many kills were told as were asked for.
    fn has_enough(&self) -> bool {
        self.count.is_some_and(|count| self.pipeline.events() >= count)
    }

    /// Tells what was lost.
    fn losses(&mut self) -> Result<(), Ended> {
        let counters = self.probe.counters().map_err(|error| Ended::Failure(error.into()))?;
        self.pipeline.losses(&counters)?;
        if let Some(kept) = self.probe.kept() {
            kept.keep(|value| self.pipeline.known_losses().keep(value))
                .map_err(|error| Ended::Failure(error.into()))?;
        }
        Ok(())
    }

    /// Holds what the programs saw against the kernel's own count.
    fn reconcile(&mut self) -> Result<(), Ended> {
        let envelope = self.pipeline.enricher().own_envelope();
        let gap = self.reconciliation.look(&mut self.probe, envelope);
        if let Some(gap) = gap.map_err(|error| Ended::Failure(error.into()))? {
            self.pipeline.print(&Event::Gap(Box::new(gap)))?;
        }
        Ok(())
    }

    /// What became of cgroups before the next kill.
    fn cgroup_changes(&mut self) {
        while let Some(record) = self.probe.cgroups().next() {
            if let Some(file) = &mut self.record {
                let _not_an_event = keep(file, &record);
            }
            self.pipeline.cgroup(&record);
        }
    }

    /// The killer's report is written before its victim is marked, so it is read while the killer works.
    fn read_log(&mut self) {
        if let Some(log) = self.pipeline.enricher().log_mut() {
            // A kill reads the log itself: what is not to be had now is not missed.
            let _at_the_kill = log.catch_up();
        }
    }

    fn reopen(&mut self) {
        if let Err(error) = self.pipeline.sink().reopen() {
            eprintln!("{}", Failure::from(error));
        }
    }
}

/// Length, then bytes: what `replay` reads.
fn keep(file: &mut File, record: &[u8]) -> io::Result<()> {
    let len = u32::try_from(record.len()).map_err(io::Error::other)?;
    file.write_all(&len.to_le_bytes())?;
    file.write_all(record)
}

/// Tells when there is something to read.
fn wakeups(source: &impl AsFd) -> Result<AsyncFd<OwnedFd>, Ended> {
    let fd = source.as_fd().try_clone_to_owned().map_err(Ended::Io)?;
    // SAFETY: the AsyncFd owns the descriptor, which nothing else closes or replaces.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .map_err(|error| Ended::Io(error.into()))
}

fn on(kind: SignalKind) -> Result<Signal, Ended> {
    signal(kind).map_err(Ended::Io)
}

async fn readable(fd: Option<&AsyncFd<OwnedFd>>) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    match fd {
        Some(fd) => fd.readable().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

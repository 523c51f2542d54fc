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

use super::{render, terminal};
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
    kernel::{Kernel, privilege},
    pipeline::{Filter, Pipeline},
    probe::{HookChoice, Options, Probe},
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
    let mut probe = attach(&kernel, args.hook, args.ring_size, args.debug)?;
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
        resumed: false,
        limits,
        truncated: Vec::new(),
    };
    let mut session = Session { probe: &mut probe, pipeline, record, count: args.count };
    let done = session.first(&Event::Start(Box::new(start)), mount.as_deref()).and_then(|()| {
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

/// Attaches with the sizes of this command.
pub(super) fn attach(
    kernel: &Kernel,
    hook: HookChoice,
    ring_size: RingSize,
    debug: bool,
) -> Result<Probe, Failure> {
    // Loading may succeed nevertheless, and then every read of the kernel's memory fails.
    if privilege::lockdown(&Root::host()).as_deref() == Some("confidentiality") {
        return Err(Failure::message(
            Code::Unsupported,
            "the kernel is in lockdown=confidentiality, which forbids to read kernel memory",
        )
        .hint("boot with lockdown=integrity"));
    }
    let options = Options { hook, kill_ring_bytes: ring_size.0, cgroup_ring_bytes: CGROUP_RING_BYTES, debug };
    Ok(Probe::attach(&options, &kernel.resolved.layout, &kernel.btf)?)
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

struct Session<'a> {
    probe: &'a mut Probe,
    pipeline: Pipeline,
    record: Option<File>,
    count: Option<u64>,
}

impl Session<'_> {
    /// The first line, and the cgroups that were there before. The programs are attached already, so
    /// nothing falls between.
    fn first(&mut self, start: &Event, mount: Option<&std::path::Path>) -> Result<(), Ended> {
        self.pipeline.print(start)?;
        if let Some(mount) = mount {
            self.drain()?;
            // A cgroup that vanishes during the walk is no error; one that cannot be walked costs names only.
            let _names_only = self.pipeline.enricher().tree().walk(mount, clock::boot_time());
        }
        Ok(())
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
                () = until(deadline) => break "timeout",
            }
        };
        self.drain()?;
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
                let Some(record) = self.probe.kills().next() else { break };
                if let Some(file) = &mut self.record {
                    keep(file, &record).map_err(Ended::Io)?;
                }
                // The record leaves the ring after its line was written.
                self.pipeline.kill(&record)?;
                drop(record);
                told = true;
                if self.count.is_some_and(|count| self.pipeline.events() >= count) {
                    return Ok(true);
                }
                self.cgroup_changes();
            }
            if told {
                let counters = self.probe.counters().map_err(|error| Ended::Failure(error.into()))?;
                self.pipeline.losses(&counters)?;
            }
            // Names are read one cgroup at a time, so that a kill waits for one at the most.
            if !self.pipeline.enricher().tree().resolve_next(clock::boot_time()) && !told {
                return Ok(false);
            }
        }
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

//! `oomtrace run`: opens the output, reads the kernel, attaches, and tells of each event
//! until it is asked to end.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
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
        Root,
        backfill::Backfill,
        clock,
        containers::Runtimes,
        enricher::{Enricher, Sources},
        host,
        kernel_log::KernelLog,
        process::ProcessReader,
        tree::{CgroupTree, TreeLimits},
        unkilled::Watch,
    },
    event::{Event, Start},
    failure::{Code, Failure},
    kernel::{Kernel, privilege},
    notify::Notify,
    pipeline::{Filter, Pipeline},
    probe::{HookChoice, Options, Probe, Ring},
    sink::{FileSink, Rotation, Sink, SinkError, StdoutSink, Wait},
    stderr::say,
    steady,
    verdict::Verdicts,
};

/// How long the output may hold up the end of a run.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often an output is tried again of which nothing tells when it may work.
const TRY_AGAIN: Duration = Duration::from_millis(200);

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
        Some(path) => {
            let rotation = args.file_max_size.map(|max_bytes| Rotation { max_bytes, keep: args.file_keep });
            Box::new(FileSink::open(path, rotation)?)
        }
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
    let backfill = args.since.map(|since| Backfill::read(&root, since)).transpose();
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
    steady::trim();

    let filter = Filter { container: args.container.clone(), scope: args.scope.map(Into::into) };
    let decoder = Decoder::new(host::page_bytes());
    let mut pipeline = Pipeline::new(decoder, Enricher::new(sources), filter, render(output, terminal), sink)
        .with_verdicts(verdicts);
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
    let mut session = Session {
        probe: &mut probe,
        pipeline,
        record,
        count: args.count,
        backfill,
        held: false,
        stalled: None,
        notify: Notify::from_env(),
        watch: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let start = Event::Start(Box::new(start));
    let done = runtime.map_err(Ended::Io).and_then(|runtime| {
        runtime.block_on(session.until_asked_to_end(&start, mount.as_deref(), args.timeout))
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
    /// What is told before anything live.
    backfill: Backfill,
    /// The output had to keep the line of the oldest record, which is in the ring until it is written.
    held: bool,
    /// Since when the output takes nothing.
    stalled: Option<Instant>,
    notify: Notify,
    /// The cgroups' files, where no function hook tells of one that runs out without a kill.
    watch: Option<Watch>,
}

impl Session<'_> {
    /// The first line, and the cgroups that were there before. The programs are attached already, so
    /// nothing falls between.
    fn first(&mut self, start: &Event, mount: Option<&Path>) -> Result<(), Ended> {
        self.pipeline.print(start)?;
        if let Some(mount) = mount {
            self.cgroup_changes();
            // A cgroup that vanishes during the walk is no error; one that cannot be walked costs names only.
            let _names_only = self.pipeline.enricher().tree().walk(mount, clock::boot_time());
            if !self
                .probe
                .hooks()
                .iter()
                .any(|hook| hook.name == "oom_kill_process" && hook.attached != "none")
            {
                let v1 = self.pipeline.enricher().is_v1();
                self.watch = Some(Watch::start(mount.to_owned(), v1, self.pipeline.enricher().tree()));
            }
        }
        // A kill that the log had when it was read and that is live is in the ring by now.
        if let Some(record) = self.probe.kills().next() {
            self.backfill.end_before(self.pipeline.moment(&record));
            Ring::leave(record);
        }
        Ok(())
    }

    async fn until_asked_to_end(
        &mut self,
        start: &Event,
        mount: Option<&Path>,
        timeout: Option<Duration>,
    ) -> Result<(), Ended> {
        // Who has read the first line may ask for the last: a signal is heard from before it on.
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut hangup = on(SignalKind::hangup())?;
        self.first(start, mount)?;
        let (kills, cgroups) = self.probe.rings();
        let (kills, cgroups) = (wakeups(kills)?, wakeups(cgroups)?);
        let log = self.pipeline.enricher().log_mut().map(|log| wakeups(log)).transpose()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut watchdog = self.notify.period().map(tokio::time::interval);
        if let Some(watchdog) = &mut watchdog {
            watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        self.notify.ready();
        let reason = loop {
            self.notify.alive();
            if self.drain()? {
                break "count";
            }
            self.probe.flush_log();
            self.notify.status(self.pipeline.events(), self.pipeline.lost());
            let room = self.pipeline.sink().waits_for().map(Room::of);
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
                answer = self.pipeline.next_verdict() => self.pipeline.verdict(answer)?,
                () = until(deadline) => break "timeout",
                () = until(self.watch.as_ref().and_then(Watch::due).map(Instant::from_std)) => self.look_for_unkilled()?,
                () = room_in_output(room) => {}
                () = next_tick(&mut watchdog) => {}
            }
        };
        self.notify.stopping();
        self.end(reason)
    }

    /// Tells what is left, for as long as a service manager may be made to wait.
    fn end(&mut self, reason: &str) -> Result<(), Ended> {
        let began = Instant::now();
        while !self.drain()? && self.pipeline.is_stalled() {
            if !self.pipeline.settle(LAST_WORDS.saturating_sub(began.elapsed()))? {
                break;
            }
        }
        self.probe.flush_log();
        self.pipeline.stop(reason)?;
        if !self.pipeline.settle(LAST_WORDS.saturating_sub(began.elapsed()))? {
            let kept = self.pipeline.sink().kept();
            say(&format!(
                "oomtrace: the output did not take the last {kept} lines, nor what waited behind them"
            ));
        }
        Ok(())
    }

    /// Tells of all that the rings hold; true when as many kills were told as were asked for.
    fn drain(&mut self) -> Result<bool, Ended> {
        loop {
            self.cgroup_changes();
            let mut told = self.stalled.is_some();
            if !self.output_takes()? {
                return Ok(false);
            }
            loop {
                if self.count.is_some_and(|count| self.pipeline.events() >= count) {
                    return Ok(true);
                }
                if let Some(kill) = self.backfill.next() {
                    self.pipeline.logged_kill(&kill)?;
                    if self.pipeline.is_stalled() {
                        return Ok(false);
                    }
                    continue;
                }
                let Some(record) = self.probe.kills().next() else { break };
                if let Some(file) = &mut self.record {
                    keep(file, &record).map_err(Ended::Io)?;
                }
                // The record leaves the ring after its line was written.
                self.pipeline.kill(&record)?;
                if self.pipeline.is_stalled() {
                    Ring::leave(record);
                    self.held = true;
                    break;
                }
                drop(record);
                told = true;
                self.cgroup_changes();
            }
            if told {
                let counters = self.probe.counters().map_err(|error| Ended::Failure(error.into()))?;
                self.pipeline.losses(&counters)?;
                self.look_for_unkilled()?;
            }
            // Names are read one cgroup at a time, so that a kill waits for one at the most.
            if !self.pipeline.enricher().tree().resolve_next(clock::boot_time()) && !told {
                return Ok(false);
            }
        }
    }

    /// Whether the output has taken every line so far. Until it has, kills wait in the ring.
    fn output_takes(&mut self) -> Result<bool, Ended> {
        match self.pipeline.flush() {
            Ok(()) => {}
            Err(SinkError::Closed) => return Err(SinkError::Closed.into()),
            Err(error) => {
                if self.stalled.is_none() {
                    self.stalled = Some(Instant::now());
                    say(&Failure::from(error).to_string());
                }
                return Ok(false);
            }
        }
        if std::mem::take(&mut self.held) {
            drop(self.probe.kills().next());
        }
        if let Some(since) = self.stalled.take() {
            say(&format!(
                "oomtrace: the output takes lines again, after {:.1} s",
                since.elapsed().as_secs_f64()
            ));
        }
        Ok(true)
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

    /// Tells of cgroups that ran out without a kill, as far as their files say so by now.
    fn look_for_unkilled(&mut self) -> Result<(), Ended> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let tree = self.pipeline.enricher().tree();
        for found in watch.look(tree, std::time::Instant::now()) {
            self.pipeline.unkilled(&found)?;
        }
        Ok(())
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
            say(&Failure::from(error).to_string());
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

/// What an output waits for, held apart from it.
enum Room {
    Reader(OwnedFd),
    Time,
}

impl Room {
    fn of(wait: Wait<'_>) -> Self {
        match wait {
            Wait::Reader(fd) => fd.try_clone_to_owned().map_or(Self::Time, Self::Reader),
            Wait::Time => Self::Time,
        }
    }
}

/// Ends when it is worth another try to write; never if nothing waits to be written.
async fn room_in_output(room: Option<Room>) {
    let reader = match room {
        None => std::future::pending().await,
        Some(Room::Time) => None,
        // SAFETY: the AsyncFd owns the descriptor, which nothing else closes or replaces.
        Some(Room::Reader(fd)) => unsafe { AsyncFd::register_with_interest(fd, Interest::WRITABLE) }.ok(),
    };
    match reader {
        Some(reader) => drop(reader.writable().await),
        None => tokio::time::sleep(TRY_AGAIN).await,
    }
}

/// Wakes the loop for the watchdog.
async fn next_tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => std::future::pending().await,
    }
}

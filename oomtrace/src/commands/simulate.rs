//! `oomtrace simulate`: makes a real kill. A child of this program is killed in a new cgroup. Its event is
//! shown and compared with the kernel's own log, field by field.

mod compare;
mod scratch;

use std::{
    hint::black_box,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    accounting::Account,
    cli::{RingSize, Simulate},
    commands::{print::print, render, run::attach, terminal},
    enrich::enricher::Enricher,
    event::{Event, OomKill},
    facts::{Decoder, OomKillFacts, Record, kernel_log::OomReport},
    failure::{Code, Failure},
    host::{identity, kernel_log::KernelLog, root::Root},
    kernel::Kernel,
    run::setup::{self, Added},
    sources::{
        Next,
        kills::Records,
        probe::{MissedRuns, Probe, Rings},
    },
    stderr::say,
};
use scratch::Scratch;

/// The limit of the new cgroup. The child tries to use this much and more.
const LIMIT_BYTES: usize = 16 << 20;
/// A kill takes milliseconds, on a busy machine longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel's rate limit (`oom_rs`, mm/oom_kill.c): ten reports in this time.
const REPORT_WINDOW: Duration = Duration::from_secs(5);
const NO_REPORT: &str =
    "the kernel wrote no report of this kill: it writes at most ten in 5 s, for all kills";

/// `oomtrace simulate`.
///
/// # Errors
/// If this host cannot be traced, if no kill happens, or if a field differs from the kernel's log.
pub fn simulate(args: &Simulate) -> Result<(), Failure> {
    let (mut kill, mut report, mut id) = kill_one(args)?;
    if report.is_none() {
        say(&format!("oomtrace: {NO_REPORT}: trying again in {} s", REPORT_WINDOW.as_secs()));
        thread::sleep(REPORT_WINDOW);
        (kill, report, id) = kill_one(args)?;
    }
    show(args, &kill)?;
    let Some(report) = report else {
        let failure = Failure::message(Code::Unsupported, NO_REPORT);
        return Err(
            failure.hint("try again when fewer processes are killed: there is nothing to compare with")
        );
    };
    let comparison = compare::compare(&kill, &report, id, LIMIT_BYTES);
    let _nobody_reads = write!(std::io::stderr(), "{comparison}");
    if comparison.all_equal() {
        return Ok(());
    }
    Err(Failure::message(Code::RunTime, "the event differs from the kernel's log")
        .hint("please report it, with the event and the lines above"))
}

/// Makes one kill. Returns its event, the kernel's report if there is one, and the id of the new cgroup.
fn kill_one(args: &Simulate) -> Result<(OomKill, Option<OomReport>, u64), Failure> {
    let root = Root::host();
    let kernel = Kernel::read(&root)?;
    let mut probe = attach(&kernel, args.hook, RingSize::default())?;
    // Made after the programs are attached, so that they report its path.
    let scratch = Scratch::make(&kernel.hierarchy, LIMIT_BYTES)?;
    let mut limits = Vec::new();
    let mut enricher =
        Enricher::new(setup::knowledge(&root, &kernel, &probe, Added::default(), &mut limits)?);
    // A separate reader, so that the comparison does not use what the event was made from.
    let mut log = KernelLog::open(&root).map_err(|error| {
        let failure = Failure::message(Code::Privilege, format!("cannot read the kernel log: {error}"));
        failure.hint("CAP_SYSLOG is needed to compare; `oomtrace run` works without")
    })?;

    let mut child = victim_process()?;
    let killed = scratch.add(child.id()).and_then(|()| {
        go(&mut child)?;
        event_of(child.id(), probe.rings(), &mut enricher)
    });
    // The child must not stay, whatever the result.
    let _gone_already = child.kill();
    let ended = child.wait();
    let id = scratch.id();
    drop(scratch);
    let kill = killed?;
    ended.map_err(|error| Failure::message(Code::RunTime, format!("cannot wait for the child: {error}")))?;

    let _read_so_far = log.catch_up();
    let path = kill.victim.cgroup.path.clone().unwrap_or_default();
    let report = kill.victim.pid.and_then(|pid| log.take(pid, path.as_bytes()));
    Ok((kill, report, id))
}

/// Whether a test kill in a new cgroup runs the function hooks of these programs.
///
/// # Errors
/// If no kill can be made here, or none was seen.
pub(super) fn hooks_run(kernel: &Kernel, probe: &mut Probe) -> Result<bool, Failure> {
    let scratch = Scratch::make(&kernel.hierarchy, LIMIT_BYTES)?;
    let mut child = victim_process()?;
    let facts = scratch.add(child.id()).and_then(|()| {
        go(&mut child)?;
        record_of(child.id(), probe.rings())
    });
    // The child must not stay, whatever the result.
    let _gone_already = child.kill();
    let _ended = child.wait();
    drop(scratch);
    facts.map(|facts| facts.oom.is_some())
}

fn show(args: &Simulate, kill: &OomKill) -> Result<(), Failure> {
    let mut line = Vec::new();
    let rendered = render(args.output, terminal()).line(&Event::OomKill(Box::new(kill.clone())), &mut line);
    rendered.map_err(|error| Failure::new(Code::RunTime, &error))?;
    print(|out| out.write_all(&line))
}

/// The child: waits until it is in its cgroup, then uses memory until it is killed.
///
/// # Errors
/// If it was not killed.
pub fn victim(bytes: usize) -> Result<(), Failure> {
    let mut go = [0];
    let asked = std::io::stdin().read_exact(&mut go);
    asked.map_err(|error| Failure::message(Code::RunTime, format!("not for use by hand: {error}")))?;
    let memory = vec![1u8; bytes];
    black_box(&memory);
    // The kill may take a moment.
    thread::sleep(PATIENCE);
    Err(Failure::message(Code::RunTime, "still alive"))
}

fn victim_process() -> Result<Child, Failure> {
    let spawned = Command::new("/proc/self/exe")
        .arg("simulate-victim")
        .arg((LIMIT_BYTES * 2).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    spawned.map_err(|error| Failure::message(Code::RunTime, format!("cannot start the child: {error}")))
}

fn go(child: &mut Child) -> Result<(), Failure> {
    let written = match &mut child.stdin {
        Some(stdin) => stdin.write_all(b"g"),
        None => Ok(()),
    };
    written.map_err(|error| Failure::message(Code::RunTime, format!("cannot speak to the child: {error}")))
}

/// The event of this process, made as `run` makes it. Other events may come before it.
fn event_of(pid: u32, rings: &mut Rings, enricher: &mut Enricher) -> Result<OomKill, Failure> {
    let records = Records::new(identity::page_bytes(), None);
    let mut account = Account::new(None, enricher.is_v1());
    until(rings, |seen| match seen {
        Seen::Cgroup(record) => {
            records.cgroup(record, enricher);
            None
        }
        Seen::Kill(record, missed) => match records.event(record, missed, enricher, &mut account) {
            Next::Event(Event::OomKill(kill)) if kill.victim.pid.or(kill.victim.tid) == Some(pid) => {
                Some(*kill)
            }
            _ => None,
        },
    })
}

/// The record of this process.
fn record_of(pid: u32, rings: &mut Rings) -> Result<OomKillFacts, Failure> {
    let decoder = Decoder::new(identity::page_bytes());
    until(rings, |seen| match seen {
        Seen::Kill(record, _) => match decoder.record(record) {
            Ok(Record::OomKill(facts)) if facts.victim.tgid.or(facts.victim.tid) == Some(pid) => Some(*facts),
            _ => None,
        },
        Seen::Cgroup(_) => None,
    })
}

/// A record of one of the rings.
enum Seen<'a> {
    Cgroup(&'a [u8]),
    Kill(&'a [u8], Option<&'a MissedRuns>),
}

/// Passes each record to `found` until it returns something.
fn until<T>(rings: &mut Rings, mut found: impl FnMut(Seen<'_>) -> Option<T>) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        while let Some(record) = rings.cgroups.next() {
            let _no_kill = found(Seen::Cgroup(&record));
        }
        while let Some(record) = rings.kills.next() {
            if let Some(found) = found(Seen::Kill(&record, rings.missed_signals.as_ref())) {
                return Ok(found);
            }
        }
        let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _woken_or_not = poll(&mut [PollFd::new(&rings.kills, PollFlags::IN)], Some(&wait));
    }
    let failure =
        Failure::message(Code::RunTime, format!("no OOM kill was seen within {} s", PATIENCE.as_secs()));
    Err(failure
        .hint("is memory accounted in this cgroup hierarchy? `oomtrace check` says what this host offers"))
}

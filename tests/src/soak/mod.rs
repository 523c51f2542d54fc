//! Makes known victims while tracers are killed, stopped and replaced, and while their outputs fail, at
//! random. At the end each victim must be reported or counted, and nothing else may be reported.
//!
//! Takes the oomtrace binary. Prints a Markdown table on stdout; errors and the seed on stderr. All mounts
//! are in this process's own mount namespace, so they and the pins are gone when it ends.

mod account;
mod lane;
mod lines;
mod output;
mod random;
mod table;
mod victims;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;

use account::{Account, Truth};
use lane::{Lane, Report};
use lines::Line;
use output::{OnDisk, Output, Pipe};
use random::Random;
use victims::{Victim, Victims};

use crate::cgroup::{Hierarchy, Scratch};
use crate::counters::oom_kills;
use crate::tracer;

/// First argument that selects this part of the scenarios' program.
pub const SUBCOMMAND: &str = "soak";

/// Threads that make victims.
const MAKERS: u64 = 4;
/// Room for a file of lines: enough between two rotations.
const DISK: &str = "size=24m";

/// Real OOM kills while all kinds of faults happen to the tracer.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program under test [default: $TEST_OOMTRACE_BIN, else the binary of `cargo xtask build`]
    #[arg(long)]
    oomtrace: Option<PathBuf>,
    /// How long it runs.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Repeat the faults of this seed, in the same order but not at the same times.
    #[arg(long)]
    seed: Option<u64>,
    /// Fail unless function hooks were used.
    #[arg(long)]
    hooked: bool,
}

/// Runs it with the arguments after [`SUBCOMMAND`].
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(arguments);
    let nanoseconds = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.subsec_nanos());
    let seed = arguments.seed.unwrap_or(u64::from(nanoseconds));
    say(&format!("soak: seed {seed}"));
    match run(&arguments, seed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("soak: {error:#}\nsoak: again: --seed {seed}"));
            ExitCode::FAILURE
        }
    }
}

/// Errors are ignored: the reader may be gone.
fn say(what: &str) {
    let _ignored = writeln!(std::io::stderr(), "{what}");
}

fn run(arguments: &Arguments, seed: u64) -> Result<bool> {
    // SAFETY: takes nothing, cannot fail.
    ensure!(unsafe { libc::geteuid() } == 0, "real kills need root");
    let dir = Dir::make()?;
    let hierarchy = Hierarchy::find()?;
    let scratch = Scratch::make(&hierarchy)?;
    let binary = arguments.oomtrace.clone().map_or_else(tracer::binary, Ok)?;
    let copy = dir.0.join("oomtrace");
    std::fs::copy(&binary, &copy).context("copy the binary")?;
    let lane = |name, output, stream| {
        Lane::new(name, [binary.clone(), copy.clone()], &dir.0, output, Random::new(seed, stream))
    };
    let mut lanes = [
        lane("file", Output::File(OnDisk::on(&dir.0.join("disk"))), 100),
        lane("pipe", Output::Pipe(Pipe::make()?), 101),
    ];
    for lane in &mut lanes {
        lane.begin().with_context(|| lane.last_words())?;
    }

    let victims = Victims::below(scratch.cgroup(), hierarchy.version);
    let (began, counted) = (moment(), oom_kills()?);
    let until = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
    let (outputs, truth) = trouble(&mut lanes, &victims, (until, seed), &binary, || {
        let kernel_kills = oom_kills()?.wrapping_sub(counted);
        let prefix = victims::path(scratch.cgroup()) + "/";
        Ok(Truth { prefix, deaths: victims.deaths(), kernel_kills, between: (began.clone(), moment()) })
    })?;

    let mut accounts = Vec::new();
    for (name, lines, report) in outputs {
        let mut account = Account::of(&truth, &lines, &report);
        if arguments.hooked {
            account.must_be_hooked();
        }
        if !account.faults.is_empty() {
            keep(&std::env::temp_dir().join(format!("oomtrace-soak-{seed}-{name}.txt")), &lines, &account)?;
        }
        accounts.push((name, account, report));
    }
    table::print(&mut std::io::stdout().lock(), &truth, &accounts, arguments.minutes, seed)?;
    let mut even = true;
    for (name, account, _) in &accounts {
        for fault in &account.faults {
            even = false;
            say(&format!("soak: {name}: {fault}"));
        }
        if account.unaccounted() > 0 {
            say(&format!("soak: {name}: of these, {} are unaccounted for:", account.unaccounted()));
            for death in account.untold.iter().take(100) {
                say(&format!("  {} {} in {}", death.shape, death.victim.pid, death.victim.cgroup));
            }
        }
    }
    if !even {
        say(&format!("soak: again: --seed {seed}"));
    }
    Ok(even)
}

/// Keeps the lines of a failed run for analysis.
fn keep(file: &Path, lines: &[Line], account: &Account) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&format!("{line:?}\n"));
    }
    for death in &account.untold {
        text.push_str(&format!("{death:?}\n"));
    }
    std::fs::write(file, text)?;
    say(&format!("soak: the lines are in {}", file.display()));
    Ok(())
}

type Told = (&'static str, Vec<Line>, Report);

/// What the threads of a run share.
#[derive(Debug, Default)]
struct Stage {
    /// No more faults, and only the last victims.
    done: AtomicBool,
    /// Victims that were made after all faults.
    last: Mutex<BTreeSet<Victim>>,
    /// How many tracers have reported one of these.
    heard: AtomicUsize,
    /// No more victims are made.
    over: AtomicBool,
}

/// Makes victims and faults until then, and last victims without faults. Returns what the tracers reported.
fn trouble(
    lanes: &mut [Lane],
    victims: &Victims<'_>,
    (until, seed): (Instant, u64),
    binary: &Path,
    truth: impl FnOnce() -> Result<Truth>,
) -> Result<(Vec<Told>, Truth)> {
    let (stage, count) = (Stage::default(), lanes.len());
    let stage = &stage;
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|number| {
                let random = Random::new(seed, number);
                scope.spawn(move || {
                    let made = victims.make(random, &stage.done);
                    stage.done.store(true, Ordering::Relaxed);
                    made.inspect_err(|error| say(&format!("soak: {error:#}")))
                })
            })
            .collect();
        // A tracer ends with the thread that started it, so each thread stays until the end.
        let lanes: Vec<_> = lanes
            .iter_mut()
            .map(|lane| {
                scope.spawn(move || -> Result<Told> {
                    let (lines, report) = tell_all(lane, until, stage, binary).inspect_err(|_| {
                        stage.done.store(true, Ordering::Relaxed);
                        stage.heard.fetch_add(1, Ordering::Relaxed);
                    })?;
                    Ok((lane.name, lines, report))
                })
            })
            .collect();
        let mut made = Ok(());
        for maker in makers {
            let result = maker.join().map_err(|_| anyhow!("a maker of victims panicked"))?;
            made = made.and(result);
        }
        // If the ring is still full, this victim is counted as lost, and the next one is reported.
        while made.is_ok() && stage.heard.load(Ordering::Relaxed) < count {
            made = victims.one().map(|victim| {
                stage.last.lock().unwrap_or_else(PoisonError::into_inner).insert(victim);
            });
            std::thread::sleep(Duration::from_millis(500));
        }
        stage.over.store(true, Ordering::Relaxed);
        let truth = made.and_then(|()| truth());
        let mut told = Vec::new();
        for lane in lanes {
            told.push(lane.join().map_err(|_| anyhow!("a tracer's thread panicked"))??);
        }
        Ok((told, truth?))
    })
}

/// Runs one tracer to its last line.
fn tell_all(lane: &mut Lane, until: Instant, stage: &Stage, binary: &Path) -> Result<(Vec<Line>, Report)> {
    lane.trouble(until, &stage.done)?;
    stage.done.store(true, Ordering::Relaxed);
    lane.wait("line of a last victim", |lane| {
        let last = stage.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = |line: &Line| matches!(line, Line::Kill { victim, .. } if last.contains(victim));
        let over = stage.over.load(Ordering::Relaxed);
        Ok(over || (!last.is_empty() && lane.lines()?.iter().any(told)))
    })?;
    stage.heard.fetch_add(1, Ordering::Relaxed);
    lane.wait("end of all killing", |_| Ok(stage.over.load(Ordering::Relaxed)))?;
    lane.finish(|pins| detach(binary, pins))
}

/// Nothing may be left.
fn detach(binary: &Path, pins: &Path) -> Result<()> {
    let output = Command::new(binary).arg("detach").arg(pins).output()?;
    ensure!(output.status.success(), "detach: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(!pins.exists(), "{} is still there", pins.display());
    Ok(())
}

/// The current time, as in a line.
fn moment() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// A directory with its own disk and bpffs, visible only to this process.
#[derive(Debug)]
struct Dir(PathBuf);

impl Dir {
    fn make() -> Result<Self> {
        let dir = Self(std::env::temp_dir().join(format!("oomtrace-soak-{}", std::process::id())));
        // SAFETY: takes a number; this process has one thread yet, and shares no mount namespace it must keep.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
        ensure!(apart, "unshare: {}", std::io::Error::last_os_error());
        mount(Path::new("none"), Path::new("/"), "none", libc::MS_REC | libc::MS_PRIVATE, "")?;
        for (name, kind, options) in [("disk", "tmpfs", DISK), ("bpf", "bpf", "mode=0700")] {
            let place = dir.0.join(name);
            std::fs::create_dir_all(&place)?;
            mount(Path::new("soak"), &place, kind, 0, options)?;
        }
        Ok(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for name in ["disk", "bpf"] {
            let _ignored = unmount(&self.0.join(name));
        }
        let _ignored = std::fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path with a NUL")
}

fn mount(source: &Path, target: &Path, kind: &str, flags: libc::c_ulong, options: &str) -> Result<()> {
    let (from, to) = (text(source)?, text(target)?);
    let (kind, options) = (CString::new(kind)?, CString::new(options)?);
    // SAFETY: strings ended by NUL, alive through the call.
    let status =
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) };
    ensure!(status == 0, "mount {}: {}", target.display(), std::io::Error::last_os_error());
    Ok(())
}

fn unmount(target: &Path) -> Result<()> {
    let to = text(target)?;
    // SAFETY: a string ended by NUL, alive through the call. An open file does not prevent the unmount.
    let status = unsafe { libc::umount2(to.as_ptr(), libc::MNT_DETACH) };
    ensure!(status == 0, "unmount {}: {}", target.display(), std::io::Error::last_os_error());
    Ok(())
}

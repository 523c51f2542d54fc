//! Gives every parser of oomtrace mutated input and checks for panics and broken guarantees.
//!
//! Inputs come in batches of a thousand. A batch depends only on its number and the seed, so these two repeat
//! a failure.

mod mutate;
mod targets;

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use mutate::Random;
use targets::{TARGETS, Target};

/// Inputs that share the state of one target.
const BATCH: u64 = 1000;

#[derive(Debug, Parser)]
struct Args {
    /// Inputs in all.
    #[arg(long, default_value_t = 10_000_000)]
    inputs: u64,
    /// End after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    /// Only this batch.
    #[arg(long, requires = "target")]
    batch: Option<u64>,
    /// Another seed gives other inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Target> = TARGETS
        .iter()
        .filter(|target| args.target.as_deref().is_none_or(|name| name == target.name))
        .collect();
    ensure!(!chosen.is_empty(), "no such target");
    let shares: u64 = chosen.iter().map(|target| target.share).sum();
    let began = Instant::now();
    let mut total = 0;
    for target in chosen {
        let limit = args.seconds.map(|seconds| Duration::from_millis(seconds * 1000 * target.share / shares));
        let inputs = args.inputs * target.share / shares;
        let started = Instant::now();
        let (count, slowest) = fuzz(target, args, inputs, limit)?;
        total += count;
        eprintln!(
            "{:>8}: {count} inputs in {:.1} s, the slowest took {:.1} ms",
            target.name,
            started.elapsed().as_secs_f64(),
            slowest.as_secs_f64() * 1e3
        );
    }
    eprintln!("{total} inputs in {:.1} s, no failure", began.elapsed().as_secs_f64());
    Ok(())
}

/// Runs the batches of one target on every processor. Returns how many inputs ran, and the time of the
/// slowest.
fn fuzz(target: &Target, args: &Args, inputs: u64, limit: Option<Duration>) -> Result<(u64, Duration)> {
    let corpus = corpus(target.name)?;
    let batches = args.batch.map_or(0..inputs.div_ceil(BATCH), |batch| batch..batch + 1);
    let (next, done) = (AtomicU64::new(batches.start), AtomicU64::new(0));
    let began = Instant::now();
    let worker = || -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= batches.end || limit.is_some_and(|limit| began.elapsed() >= limit) {
                return Ok(slowest);
            }
            slowest = slowest.max(run_batch(target, &corpus, args.seed, batch)?);
            done.fetch_add(BATCH, Ordering::Relaxed);
        }
    };
    let results: Vec<Result<Duration>> = thread::scope(|scope| {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
            .collect()
    });
    let mut slowest = Duration::ZERO;
    for result in results {
        slowest = slowest.max(result?);
    }
    Ok((done.into_inner(), slowest))
}

fn run_batch(target: &Target, corpus: &[Vec<u8>], seed: u64, batch: u64) -> Result<Duration> {
    let dir = tempfile::tempdir_in(scratch())?;
    let mut check = (target.make)(dir.path())?;
    let mut random = Random::new(seed, batch);
    let mut slowest = Duration::ZERO;
    for number in 0..BATCH {
        let input = mutate::input(corpus, &mut random);
        let began = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            let kept = std::env::temp_dir().join(format!("oomtrace-fuzz-{}-{batch}-{number}", target.name));
            fs::write(&kept, &input)?;
            bail!(
                "{} failed: {}\n  the input is in {}; again: cargo xtask fuzz --target {} --seed {seed} --batch {batch}",
                target.name,
                message(&*panic),
                kept.display(),
                target.name
            );
        }
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}

/// Files in memory if possible.
fn scratch() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

fn corpus(name: &str) -> Result<Vec<Vec<u8>>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&dir)
        .with_context(|| dir.display().to_string())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    // The order of a directory differs between machines.
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(fs::read).collect::<Result<_, _>>()?;
    ensure!(!corpus.is_empty(), "{} is empty", dir.display());
    Ok(corpus)
}

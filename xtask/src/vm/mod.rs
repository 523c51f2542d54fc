//! `cargo xtask vm`: runs the scenarios of `tests/` on other kernels, each in its own guest.
//!
//! Prints one table and whether all passed. Guests run under full emulation, two at a time. A kernel that
//! cannot be fetched and a guest that does not answer are failures.

mod budget;
mod build_kernel;
mod debian;
pub mod docker;
mod guest;
mod initramfs;
mod kernels;
pub mod measuring;
mod plan;
mod programs;
mod qemu;
mod recorded;
mod table;
mod tools;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::ValueEnum;

use self::{
    budget::VerifierCosts,
    guest::{Guest, Kit},
    kernels::{Arch, Store, V1},
    programs::Programs,
    table::Table,
};
use crate::{page::Place, workspace};

/// The page with the results, unless `--write` names another.
pub const PAGE: &str = "docs/KERNELS.md";

/// What to boot and what to run there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A kernel by name (see --list), or `all` [default: 5.10, 6.1, 6.12 and 7.3]
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// A kernel's image on this machine
    #[arg(long, value_name = "PATH")]
    kernel_image: Vec<PathBuf>,
    /// Where the memory controller is
    #[arg(long, value_enum, default_values_t = [Cgroup::V2])]
    cgroup: Vec<Cgroup>,
    /// Which function hooks oomtrace may use
    #[arg(long, value_enum, default_values_t = [Hook::Auto])]
    hook: Vec<Hook>,
    /// What is wrong with the machine; its kernel is then tried with any hook and cgroup v2 only
    #[arg(long, value_enum, conflicts_with_all = ["command", "cgroup", "hook"])]
    condition: Vec<Condition>,
    /// All kernels, with any hook, on cgroup v2 and, if they have it, on v1
    #[arg(long, conflicts_with_all = ["kernel", "kernel_image", "cgroup", "hook", "command", "condition"])]
    matrix: bool,
    /// A scenario by name (see --list) [default: all]
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// The machine's architecture
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// List the kernels and the scenarios, then end
    #[arg(long)]
    list: bool,
    /// Run this shell command in the guest instead of the scenarios, and show the console; `oomtrace` and
    /// `oomtrace-scenarios` are in the guest
    #[arg(long, value_name = "COMMAND", conflicts_with = "scenario")]
    command: Option<String>,
    /// Boot one guest with systemd, Docker and Podman instead; of the other options only --scenario applies
    #[arg(long, conflicts_with_all = ["command", "kernel", "kernel_image", "list", "write"])]
    docker: bool,
    /// What the guest lacks
    #[arg(long, value_enum)]
    without: Vec<Missing>,
    /// Memory of the guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: u32,
    /// Two NUMA nodes for every scenario
    #[arg(long)]
    numa: bool,
    /// Swap in MiB
    #[arg(long, value_name = "MIB")]
    swap: Option<u64>,
    /// Words added to the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    cmdline_extra: String,
    /// Seconds that one guest may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Guests that run at a time
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    jobs: usize,
    /// Also write the results into their place on this page of the checkout [default: docs/KERNELS.md]
    #[arg(long, value_name = "PAGE", num_args = 0..=1, default_missing_value = PAGE, conflicts_with = "command")]
    write: Option<PathBuf>,
    /// A static oomtrace [default: built]
    #[arg(long, value_name = "PATH")]
    oomtrace: Option<PathBuf>,
    /// A static scenario program [default: built]
    #[arg(long, value_name = "PATH")]
    scenarios: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cgroup {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hook {
    Auto,
    Fentry,
    Kprobe,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Missing {
    Btf,
    Tracefs,
    Bpffs,
}

/// A separate column: something is wrong with the whole machine, in every scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Condition {
    /// `kernel.ftrace_enabled=0` before oomtrace starts: hooks attach but never run
    FtraceOff,
    /// The same, set while oomtrace runs
    FtraceOffLater,
    /// `cgroup_disable=memory`: only the machine itself can run out
    NoMemcg,
}

/// Boots every guest that `args` ask for.
///
/// # Errors
/// If a program cannot be built or a kernel cannot be fetched. Both happen before the first guest runs.
pub fn run(args: &Args) -> Result<ExitCode> {
    for path in args.kernel_image.iter().chain(&args.oomtrace).chain(&args.scenarios) {
        readable(path)?;
    }
    if args.docker {
        return docker::run(args);
    }
    let place = args.write.as_deref().map(|page| Place::of_guests(page, &word(args.arch))).transpose()?;
    let store = Store::open(args.arch)?;
    if args.list {
        return list(args, &store);
    }
    let ways = plan::ways(args, &store)?;
    let verifier = Place::of_verifier(Path::new(PAGE), &word(args.arch))?;
    let recorded = VerifierCosts::parse(&verifier.text()?);
    let (kit, names) = prepare(args, &store, &recorded)?;
    let guests = plan::guests(args, &ways, &names);
    let table = Mutex::new(Table::default());
    let started = Instant::now();
    for guest in &guests {
        table.lock().unwrap_or_else(PoisonError::into_inner).guest(&guest.column);
    }
    boot(&guests, &kit, &table, args.jobs)?;
    let mut table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = started.elapsed().as_secs();
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "\n{table}")?;
    writeln!(stdout, "\n{seconds} s; consoles in {}", kit.directory.display())?;
    let passed = table.passed();
    if let Some(place) = place {
        if !args.matrix {
            table.keep(&place.text()?);
        }
        let took =
            format!("The last {} guests, {} at a time, took {seconds} s.", guests.len(), args.jobs.max(1));
        place.fill(&format!("\n{table}\n{took} The kernels say of themselves:\n\n{}\n", table.offered()))?;
        let mut met = table.verified.clone();
        met.keep(&recorded);
        verifier.fill(&format!("\n{}\n", met.table()))?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What all guests share, and the names of the scenarios to run; none if a command runs.
fn prepare(args: &Args, store: &Store, recorded: &VerifierCosts) -> Result<(Kit, Vec<String>)> {
    let directory = workspace::target_dir().join("vm");
    fs::create_dir_all(&directory)?;
    let mut kit = Kit {
        arch: args.arch,
        qemu: store.qemu()?,
        programs: vec![("busybox", store.busybox()?)],
        directory,
        timeout: Duration::from_secs(args.timeout),
        recorded: recorded.clone(),
    };
    let Programs { oomtrace, scenarios } = programs(args, store)?;
    let names = match &args.command {
        Some(_) => Vec::new(),
        // Only a program for this machine can list the scenarios, so for another architecture one is built
        // for this machine.
        None => {
            let runs = args.arch.is_this_machine();
            plan::selected(&args.scenario, &programs::scenarios(runs.then_some(&*scenarios))?)?
        }
    };
    kit.programs.extend([("oomtrace", oomtrace), ("oomtrace-scenarios", scenarios)]);
    Ok((kit, names))
}

/// Boots the guests, some at a time.
fn boot(guests: &[Guest<'_>], kit: &Kit, table: &Mutex<Table>, jobs: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(guest) = guests.get(next.fetch_add(1, Ordering::Relaxed)) {
            guest.run(kit, table)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a guest's thread panicked"))?)
    })
}

/// The programs to pack: given by options, else built.
fn programs(args: &Args, store: &Store) -> Result<Programs> {
    if let (Some(oomtrace), Some(scenarios)) = (&args.oomtrace, &args.scenarios) {
        return Ok(Programs { oomtrace: oomtrace.clone(), scenarios: scenarios.clone() });
    }
    let built = Programs::build(store)?;
    Ok(Programs {
        oomtrace: args.oomtrace.clone().unwrap_or(built.oomtrace),
        scenarios: args.scenarios.clone().unwrap_or(built.scenarios),
    })
}

/// Fails early, before anything is built, if a file cannot be packed or booted.
fn readable(path: &Path) -> Result<()> {
    let cannot = || format!("{} cannot be read", path.display());
    let file = File::open(path).with_context(cannot)?;
    ensure!(file.metadata().with_context(cannot)?.is_file(), "{} is not a file", path.display());
    Ok(())
}

fn list(args: &Args, store: &Store) -> Result<ExitCode> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "kernels:")?;
    for kernel in args.arch.kernels() {
        let package = store.package(kernel.name).unwrap_or_else(|| "not fetched yet".to_owned());
        let v1 = match kernel.v1 {
            V1::Packaged => "; cgroup v1 too",
            V1::Built => "; for cgroup v1 one is built of Debian's source",
            V1::Nowhere => "",
        };
        writeln!(stdout, "  {:5} {package}{v1}", kernel.name)?;
    }
    writeln!(stdout, "scenarios:")?;
    let runs = args.arch.is_this_machine();
    for scenario in programs::scenarios(args.scenarios.as_deref().filter(|_| runs))? {
        writeln!(stdout, "  {scenario}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The value as written on the command line.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_path_that_leads_to_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("vmlinuz");
        assert!(readable(&file).unwrap_err().to_string().ends_with("vmlinuz cannot be read"));
        assert!(readable(directory.path()).unwrap_err().to_string().ends_with("is not a file"));
        fs::write(&file, "").unwrap();
        readable(&file).unwrap();
    }
}

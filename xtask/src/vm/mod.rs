//! `cargo xtask vm`: the scenarios of `tests/` on other kernels, each in a guest of its own.
//!
//! In: which kernels, which layout of cgroups, which hooks, which scenarios. Out: one table, and whether all of it passed. Guests run under
//! full emulation, two at a time. A kernel that cannot be fetched, and a guest that does not answer, are failures.

mod build_kernel;
mod debian;
mod docker;
mod guest;
mod initramfs;
mod kernels;
mod programs;
mod qemu;
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

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::ValueEnum;

use self::{
    guest::{Guest, Kit},
    kernels::{Arch, Store, V1},
    programs::Programs,
    table::Table,
};
use crate::page::Place;

/// Where what was found is written if nothing else is said.
pub const PAGE: &str = "docs/KERNELS.md";

/// The kernels of a run that names none: the oldest, the two that most machines have, and the newest.
const MAIN: [&str; 4] = ["5.10", "6.1", "6.12", "7.3"];

/// Scenarios that need another machine than the rest, and which.
const SPECIAL: [(&str, Special); 7] = [
    ("cpuset", Special::Numa),
    ("mempolicy", Special::Numa),
    ("swap", Special::Swap),
    ("lockdown", Special::Lockdown),
    ("without_btf", Special::Without(Missing::Btf)),
    ("without_tracefs", Special::Without(Missing::Tracefs)),
    ("without_bpffs", Special::Without(Missing::Bpffs)),
];

/// What to boot and what to run there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A kernel by name (see --list), or `all`; without one: 5.10, 6.1, 6.12 and 7.3
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
    /// All kernels, with any hook, on cgroup v2 and, where they have it, v1
    #[arg(long, conflicts_with_all = ["kernel", "kernel_image", "cgroup", "hook", "command"])]
    matrix: bool,
    /// A scenario by name (see --list); without one: all
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// The machine's architecture
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// List the kernels and the scenarios, and end
    #[arg(long)]
    list: bool,
    /// Run this shell command in the guest instead of the scenarios, and show the console; `oomtrace` and
    /// `oomtrace-scenarios` are there
    #[arg(long, value_name = "COMMAND", conflicts_with = "scenario")]
    command: Option<String>,
    /// Boot one guest with systemd, Docker and Podman instead; only --scenario counts besides
    #[arg(long, conflicts_with_all = ["command", "kernel", "kernel_image", "list", "write"])]
    docker: bool,
    /// What the guest does not have
    #[arg(long, value_enum)]
    without: Vec<Missing>,
    /// Memory of the guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: u32,
    /// Two NUMA nodes, whatever the scenario
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
    /// Also put what was found into its place on this page of the checkout [default: docs/KERNELS.md]
    #[arg(long, value_name = "PAGE", num_args = 0..=1, default_missing_value = PAGE, conflicts_with = "command")]
    write: Option<PathBuf>,
    /// A static oomtrace; without one it is built
    #[arg(long, value_name = "PATH")]
    oomtrace: Option<PathBuf>,
    /// A static scenario program; without one it is built
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    Numa,
    Swap,
    Lockdown,
    Without(Missing),
}

impl Special {
    /// The machine lacks something: what is said then is the same with any hook and layout of cgroups.
    fn lacks(self) -> bool {
        matches!(self, Self::Lockdown | Self::Without(_))
    }
}

/// Boots every guest that `args` ask for.
///
/// # Errors
/// If a program cannot be built or a kernel cannot be fetched: before the first guest runs.
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
    let ways = ways(args, &store)?;
    let directory = programs::target_directory().join("vm");
    fs::create_dir_all(&directory)?;
    let mut kit = Kit {
        arch: args.arch,
        qemu: store.qemu()?,
        programs: vec![("busybox", store.busybox()?)],
        directory,
        timeout: Duration::from_secs(args.timeout),
    };
    let Programs { oomtrace, scenarios } = programs(args, &store)?;
    let names = match &args.command {
        Some(_) => Vec::new(),
        // Only a program of this machine's architecture runs here; of another, one is built that lists the same.
        None => {
            let runs = args.arch.is_this_machine();
            selected(&args.scenario, &programs::scenarios(runs.then_some(&*scenarios))?)?
        }
    };
    kit.programs.extend([("oomtrace", oomtrace), ("oomtrace-scenarios", scenarios)]);

    let table = Mutex::new(Table::default());
    let started = Instant::now();
    let mut guests = Vec::new();
    for Way { cgroup, hook, kernels } in &ways {
        for (kernel, image) in kernels {
            for (special, scenarios) in by_machine(&names) {
                let said_before =
                    guests.iter().any(|guest: &Guest<'_>| guest.special == special && guest.image == image);
                if special.is_some_and(Special::lacks) && said_before {
                    continue;
                }
                guests.push(Guest {
                    column: format!("{kernel} {} {}", word(*cgroup), word(*hook)),
                    image,
                    cgroup: word(*cgroup),
                    hook: word(*hook),
                    special,
                    scenarios,
                    args,
                });
            }
        }
    }
    for guest in &guests {
        table.lock().unwrap_or_else(PoisonError::into_inner).guest(&guest.column);
    }
    boot(&guests, &kit, &table, args.jobs)?;
    let table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = started.elapsed().as_secs();
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "\n{table}")?;
    writeln!(stdout, "\n{seconds} s; consoles in {}", kit.directory.display())?;
    if let Some(place) = place {
        let took = format!("{} guests, {} at a time, took {seconds} s.", guests.len(), args.jobs.max(1));
        place.fill(&format!("\n{table}\n{took} The kernels say of themselves:\n\n{}\n", table.offered()))?;
    }
    Ok(if table.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// One way to test kernels.
struct Way {
    cgroup: Cgroup,
    hook: Hook,
    /// What they are called, and their images.
    kernels: Vec<(String, PathBuf)>,
}

/// Every way that is asked for, all kernels fetched.
fn ways(args: &Args, store: &Store) -> Result<Vec<Way>> {
    let (cgroups, hooks): (&[Cgroup], &[Hook]) = if args.matrix {
        (&[Cgroup::V2, Cgroup::V1], &[Hook::Auto, Hook::Kprobe, Hook::None])
    } else {
        (&args.cgroup, &args.hook)
    };
    let mut ways = Vec::new();
    for cgroup in cgroups {
        let kernels = kernels(args, store, *cgroup)?;
        ways.extend(hooks.iter().map(|hook| Way { cgroup: *cgroup, hook: *hook, kernels: kernels.clone() }));
    }
    Ok(ways)
}

/// The kernels to boot with that layout of cgroups, all of them fetched. One that is not asked for by its name is left out
/// where it cannot have that layout, and said to be.
fn kernels(args: &Args, store: &Store, cgroup: Cgroup) -> Result<Vec<(String, PathBuf)>> {
    let named = !args.matrix && !args.kernel.is_empty() && !args.kernel.iter().any(|name| name == "all");
    let mut names: Vec<&str> = Vec::new();
    if named {
        names.extend(args.kernel.iter().map(String::as_str));
    } else if args.matrix || !args.kernel.is_empty() || args.kernel_image.is_empty() {
        let all = args.matrix || !args.kernel.is_empty();
        for kernel in args.arch.kernels().iter().filter(|kernel| all || MAIN.contains(&kernel.name)) {
            if cgroup == Cgroup::V1 && kernel.v1 == V1::Nowhere {
                eprintln!("vm: {} is left out: no memory controller for cgroup v1", kernel.name);
            } else {
                names.push(kernel.name);
            }
        }
    }
    let mut kernels = Vec::new();
    for name in names {
        kernels.push(match cgroup {
            Cgroup::V1 => store.kernel_with_v1(name)?,
            Cgroup::V2 => (name.to_owned(), store.kernel(name)?),
        });
    }
    for image in &args.kernel_image {
        let name = image.file_name().context("--kernel-image is not a file")?.to_string_lossy().into_owned();
        kernels.push((name, image.clone()));
    }
    Ok(kernels)
}

/// The programs to pack: those given; the others are built.
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

/// Refuses what could not be packed or booted, before anything is built.
fn readable(path: &Path) -> Result<()> {
    let cannot = || format!("{} cannot be read", path.display());
    let file = File::open(path).with_context(cannot)?;
    ensure!(file.metadata().with_context(cannot)?.is_file(), "{} is not a file", path.display());
    Ok(())
}

/// The scenarios to run: those asked for, or all that there are.
fn selected(asked: &[String], known: &[String]) -> Result<Vec<String>> {
    if let Some(name) = asked.iter().find(|name| !known.contains(name)) {
        bail!("no scenario {name}; there are: {}", known.join(", "));
    }
    Ok(if asked.is_empty() { known } else { asked }.to_vec())
}

/// The scenarios grouped by the machine that they need; one empty group if there are none (a command to run).
fn by_machine(scenarios: &[String]) -> Vec<(Option<Special>, Vec<&str>)> {
    let mut groups: Vec<(Option<Special>, Vec<&str>)> = Vec::new();
    for scenario in scenarios {
        let special = SPECIAL.iter().find(|(name, _)| name == scenario).map(|(_, special)| *special);
        match groups.iter_mut().find(|(known, _)| *known == special) {
            Some((_, group)) => group.push(scenario),
            None => groups.push((special, vec![scenario])),
        }
    }
    if groups.is_empty() {
        groups.push((None, Vec::new()));
    }
    groups
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

/// How a value is written on the command line.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn scenarios_share_a_guest_unless_they_need_another_machine() {
        let names = ["memcg-limit", "cpuset", "burst", "mempolicy"].map(str::to_owned);
        assert_eq!(
            by_machine(&names),
            [(None, vec!["memcg-limit", "burst"]), (Some(Special::Numa), vec!["cpuset", "mempolicy"])]
        );
        assert_eq!(by_machine(&[]), [(None, Vec::new())]);
    }

    #[test]
    fn a_path_that_leads_to_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("vmlinuz");
        assert!(readable(&file).unwrap_err().to_string().ends_with("vmlinuz cannot be read"));
        assert!(readable(directory.path()).unwrap_err().to_string().ends_with("is not a file"));
        fs::write(&file, "").unwrap();
        readable(&file).unwrap();
    }

    #[test]
    fn an_unknown_scenario_is_refused() {
        let known = ["burst".to_owned()];
        assert_eq!(selected(&[], &known).unwrap(), known);
        assert!(selected(&["brust".to_owned()], &known).is_err());
    }
}

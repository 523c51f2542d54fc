//! `cargo xtask vm`: the scenarios of `tests/` on other kernels, each in a guest of its own.
//!
//! In: which kernels, which layout of cgroups, which hooks, which scenarios. Out: one table, and whether all of it passed. Guests run in
//! sequence under full emulation. A kernel that cannot be fetched, and a guest that does not answer, are failures.

mod debian;
mod initramfs;
mod kernels;
mod programs;
mod qemu;
mod table;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use self::{
    initramfs::Contents,
    kernels::{Arch, Store},
    programs::Programs,
    qemu::{Budget, End, Machine},
    table::{Outcome, Table},
};

/// The kernels of a run that names none: the oldest, the two that most machines have, and the newest.
const MAIN: [&str; 4] = ["5.10", "6.1", "6.12", "7.3"];

/// Scenarios that need another machine than the rest, and which.
const SPECIAL: [(&str, Special); 3] =
    [("cpuset", Special::Numa), ("mempolicy", Special::Numa), ("lockdown", Special::Lockdown)];

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
    /// A scenario by name (see --list); without one: all
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// The machine's architecture
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// List the kernels and the scenarios, and end
    #[arg(long)]
    list: bool,
    /// Run this shell command in the guest instead of the scenarios, and show the console
    #[arg(long, value_name = "COMMAND", conflicts_with = "scenario")]
    command: Option<String>,
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
    /// A static oomtrace; without one it is built
    #[arg(long, value_name = "PATH", requires = "scenarios")]
    oomtrace: Option<PathBuf>,
    /// A static scenario program; without one it is built
    #[arg(long, value_name = "PATH", requires = "oomtrace")]
    scenarios: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Missing {
    Btf,
    Tracefs,
    Bpffs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    Numa,
    Lockdown,
}

/// Boots every guest that `args` ask for.
///
/// # Errors
/// If a program cannot be built or a kernel cannot be fetched: before the first guest runs.
pub fn run(args: &Args) -> Result<ExitCode> {
    let store = Store::open(args.arch)?;
    if args.list {
        return list(args, &store);
    }
    let kernels = kernels(args, &store)?;
    let qemu = store.qemu()?;
    let busybox = store.busybox()?;
    let job = match &args.command {
        Some(command) => Job::Command(command),
        None => Job::Scenarios(programs(args)?),
    };
    let scenarios = match &job {
        Job::Command(_) => Vec::new(),
        Job::Scenarios(programs) => selected(&args.scenario, &programs.list()?)?,
    };
    let directory = programs::target_directory().join("vm");
    fs::create_dir_all(&directory)?;

    let mut table = Table::default();
    let started = Instant::now();
    for cgroup in &args.cgroup {
        for hook in &args.hook {
            for (kernel, image) in &kernels {
                for (special, group) in by_machine(&scenarios) {
                    let guest = Guest {
                        args,
                        kernel,
                        image,
                        cgroup: word(*cgroup),
                        hook: word(*hook),
                        special,
                        scenarios: group,
                    };
                    guest.run(&qemu, &busybox, &job, &directory, &mut table)?;
                }
            }
        }
    }
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "\n{table}")?;
    writeln!(stdout, "\n{} s; consoles in {}", started.elapsed().as_secs(), directory.display())?;
    Ok(if table.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a guest is to do.
enum Job<'a> {
    Command(&'a str),
    Scenarios(Programs),
}

/// One boot.
struct Guest<'a> {
    args: &'a Args,
    kernel: &'a str,
    image: &'a Path,
    cgroup: String,
    hook: String,
    special: Option<Special>,
    scenarios: Vec<&'a str>,
}

impl Guest<'_> {
    fn run(
        &self,
        qemu: &Path,
        busybox: &Path,
        job: &Job<'_>,
        directory: &Path,
        table: &mut Table,
    ) -> Result<()> {
        let column = format!("{} {} {}", self.kernel, self.cgroup, self.hook);
        let special = self.special.map(|special| format!("-{special:?}").to_lowercase()).unwrap_or_default();
        let stem = format!("{}{special}", column.replace(' ', "-"));

        let mut programs = vec![("busybox", busybox)];
        if let Job::Scenarios(built) = job {
            programs.extend([("oomtrace", &*built.oomtrace), ("oomtrace-scenarios", &*built.scenarios)]);
        }
        let initramfs = tempfile::NamedTempFile::new_in(directory)?;
        fs::write(&initramfs, initramfs::pack(&Contents { programs: &programs, job: &self.job(job) })?)?;
        let swap = match self.args.swap {
            Some(mib) => {
                let file = tempfile::NamedTempFile::new_in(directory)?;
                File::options().write(true).open(&file)?.set_len(mib << 20)?;
                Some(file)
            }
            None => None,
        };
        let lockdown = if self.special == Some(Special::Lockdown) { " lockdown=confidentiality" } else { "" };
        let machine = Machine {
            arch: self.args.arch,
            qemu,
            kernel: self.image,
            initramfs: initramfs.path(),
            memory: self.args.memory,
            numa: self.args.numa || self.special == Some(Special::Numa),
            swap: swap.as_ref().map(tempfile::NamedTempFile::path),
            command_line: &format!("{}{lockdown}", self.args.cmdline_extra),
        };
        let total = Duration::from_secs(self.args.timeout);
        let budget = Budget { total, silence: total.min(Duration::from_secs(150)) };
        let log = directory.join(format!("{stem}.log"));
        eprintln!("vm: {stem}");
        let started = Instant::now();
        let mut failed = false;
        let console = machine.boot(&log, &budget, |line| {
            if let Some((scenario, outcome)) = table::told_by(line) {
                eprintln!("vm:   {line}");
                failed |= matches!(outcome, Outcome::Fail(_));
                table.add(&column, scenario, outcome);
            } else if matches!(job, Job::Command(_)) {
                eprintln!("{line}");
            }
        })?;
        eprintln!("vm:   {:?} after {} s", console.end, started.elapsed().as_secs());

        let failure = match &console.end {
            End::Exit(0) => None,
            End::Exit(code) => Some(format!("ended with code {code}")),
            End::Refused(reason) | End::TimedOut(reason) => Some(reason.clone()),
            End::Crashed => Some("the guest stopped without a result".to_owned()),
        };
        if self.scenarios.is_empty() {
            table.add(&column, "command", failure.map_or(Outcome::Pass, Outcome::Fail));
            return Ok(());
        }
        let silent: Vec<&str> =
            self.scenarios.iter().copied().filter(|scenario| !table.has(&column, scenario)).collect();
        for scenario in &silent {
            let reason = failure.clone().unwrap_or_else(|| "the guest ended well".to_owned());
            table.add(&column, scenario, Outcome::Fail(format!("did not tell how it ended: {reason}")));
        }
        // The code of a guest in which a scenario failed only repeats that; any other bad end is a failure of its own.
        let repeated = failed && matches!(console.end, End::Exit(_));
        if let Some(reason) = failure.filter(|_| silent.is_empty() && !repeated) {
            table.add(&column, "guest", Outcome::Fail(reason));
        }
        if !silent.is_empty() || !matches!(console.end, End::Exit(_)) {
            eprintln!("vm: the end of the console of {stem}:");
            for line in console.tail() {
                eprintln!("    {line}");
            }
        }
        Ok(())
    }

    /// What init.sh reads.
    fn job(&self, job: &Job<'_>) -> String {
        let command = match job {
            Job::Command(command) => (*command).to_owned(),
            Job::Scenarios(_) => {
                let names: String = self.scenarios.iter().map(|name| format!(" --scenario {name}")).collect();
                format!("/bin/oomtrace-scenarios --oomtrace /bin/oomtrace --hook {}{names}", self.hook)
            }
        };
        let without: Vec<String> = self.args.without.iter().map(|missing| word(*missing)).collect();
        format!("CGROUP={}\nWITHOUT='{}'\njob() {{\n{command}\n}}\n", self.cgroup, without.join(" "))
    }
}

/// The kernels to boot, all of them fetched.
fn kernels(args: &Args, store: &Store) -> Result<Vec<(String, PathBuf)>> {
    let known = || args.arch.kernels().iter().map(|(name, _)| *name);
    let mut names: Vec<&str> = args.kernel.iter().map(String::as_str).collect();
    if names.contains(&"all") {
        names = known().collect();
    } else if names.is_empty() && args.kernel_image.is_empty() {
        names = known().filter(|name| MAIN.contains(name)).collect();
    }
    let mut kernels = Vec::new();
    for name in names {
        kernels.push((name.to_owned(), store.kernel(name)?));
    }
    for image in &args.kernel_image {
        let name = image.file_name().context("--kernel-image is not a file")?.to_string_lossy().into_owned();
        kernels.push((name, image.clone()));
    }
    Ok(kernels)
}

fn programs(args: &Args) -> Result<Programs> {
    match (&args.oomtrace, &args.scenarios) {
        (Some(oomtrace), Some(scenarios)) => {
            Ok(Programs { oomtrace: oomtrace.clone(), scenarios: scenarios.clone() })
        }
        _ => Programs::build(args.arch),
    }
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
    for (name, _) in args.arch.kernels() {
        let package = store.package(name).unwrap_or_else(|| "not fetched yet".to_owned());
        writeln!(stdout, "  {name:5} {package}")?;
    }
    writeln!(stdout, "scenarios:")?;
    for scenario in programs(args)?.list()? {
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
    fn an_unknown_scenario_is_refused() {
        let known = ["burst".to_owned()];
        assert_eq!(selected(&[], &known).unwrap(), known);
        assert!(selected(&["brust".to_owned()], &known).is_err());
    }
}

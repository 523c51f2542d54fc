//! One guest: packs it, boots it, and adds its results to the table.
//!
//! Takes a kernel, a layout of cgroups, a hook and scenarios. Progress goes to stderr, and for a guest that
//! failed also the end of its console. A scenario without a result has failed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

use super::{
    Args, Condition,
    budget::{self, VerifierCosts},
    initramfs,
    kernels::Arch,
    plan::Special,
    qemu::{Budget, Console, End, Machine},
    table::{self, Outcome, Table},
    word,
};

/// How long a guest with scenarios may print nothing. A stock kernel boots in 5 to 10 s, much longer on a
/// busy machine.
const SILENCE: Duration = Duration::from_secs(150);

/// Swap for a scenario that needs it, in MiB.
const SWAP: u64 = 64;

/// What all guests of a run share.
pub struct Kit {
    /// Their architecture.
    pub arch: Arch,
    /// The emulator.
    pub qemu: PathBuf,
    /// The packed programs, with their names in the guest.
    pub programs: Vec<(&'static str, PathBuf)>,
    /// Where consoles are written.
    pub directory: PathBuf,
    /// How long one guest may take.
    pub timeout: Duration,
    /// The recorded costs of the verifier.
    pub recorded: VerifierCosts,
}

/// One boot.
pub struct Guest<'a> {
    /// Its column in the table.
    pub column: String,
    /// The kernel's image.
    pub image: &'a Path,
    /// `v1` or `v2`.
    pub cgroup: String,
    /// The value of oomtrace's `--hook`.
    pub hook: String,
    /// What is wrong with the machine.
    pub condition: Option<Condition>,
    /// What this machine has or lacks, unlike others.
    pub special: Option<Special>,
    /// The scenarios to run; none if a command runs.
    pub scenarios: Vec<&'a str>,
    /// The options of the command line.
    pub args: &'a Args,
}

impl Guest<'_> {
    /// Boots it.
    ///
    /// # Errors
    /// If it cannot be packed or the emulator cannot be started. Everything else is a failure in the table.
    pub fn run(&self, kit: &Kit, table: &Mutex<Table>) -> Result<()> {
        let table = || table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = self.column.replace(' ', "-");
        match self.special {
            Some(Special::Without(missing)) => name.push_str(&format!("-without-{}", word(missing))),
            Some(special) => name.push_str(&format!("-{special:?}").to_lowercase()),
            None => {}
        }
        eprintln!("vm: {name}");
        let started = Instant::now();
        let mut failed = false;
        let (mut verified, mut too_high) = (0, Vec::new());
        let console = self.boot(kit, &format!("{name}.log"), |line| {
            if let Some((scenario, outcome)) = table::reported_by(line) {
                eprintln!("vm:   {name}: {line}");
                failed |= matches!(outcome, Outcome::Fail(_));
                table().add(&self.column, scenario, outcome);
            } else if let Some((name, value)) = table::offered_by(line) {
                table().offers(&self.column, name, value);
            } else if let Some((program, cost)) = budget::verified_by(line) {
                let (kernel, _) = table::parts(&self.column);
                too_high.extend(kit.recorded.too_high(kernel, program, cost));
                verified += 1;
                table().verified.add(kernel, program, cost);
            } else if self.args.command.is_some() {
                eprintln!("{line}");
            }
        })?;
        eprintln!("vm:   {name}: {:?} after {} s", console.end, started.elapsed().as_secs());
        if self.measures_programs() {
            let outcome = match (verified, &*too_high) {
                (0, _) => Outcome::Fail("the guest named no program".to_owned()),
                // With `--write`, the new costs become the recorded ones.
                (_, []) => Outcome::Pass,
                _ if self.args.write.is_some() => Outcome::Pass,
                (_, grown) => Outcome::Fail(grown.join("; ")),
            };
            table().add(&self.column, "verifier_budget", outcome);
        }
        let show = self.enter(&console.end, failed, &mut table());
        if show {
            eprintln!("vm: the end of the console of {name}:");
            for line in console.tail() {
                eprintln!("    {line}");
            }
        }
        Ok(())
    }

    /// Costs are measured once for each kernel and way. A condition or a special machine changes no program.
    fn measures_programs(&self) -> bool {
        self.args.command.is_none() && self.special.is_none() && self.condition.is_none()
    }

    /// Packs the file system, makes the swap, boots.
    fn boot(&self, kit: &Kit, log: &str, each: impl FnMut(&str)) -> Result<Console> {
        let initramfs = NamedTempFile::new_in(&kit.directory)?;
        fs::write(&initramfs, initramfs::pack(&kit.programs, &[], &self.job())?)?;
        let mib = self.args.swap.or((self.special == Some(Special::Swap)).then_some(SWAP));
        let swap = match mib {
            Some(mib) => {
                let file = NamedTempFile::new_in(&kit.directory)?;
                let bytes = mib.checked_mul(1 << 20).context("--swap is too large")?;
                File::options().write(true).open(&file)?.set_len(bytes)?;
                Some(file)
            }
            None => None,
        };
        let lockdown = if self.special == Some(Special::Lockdown) { " lockdown=confidentiality" } else { "" };
        let disabled = if self.condition == Some(Condition::NoMemcg) { " cgroup_disable=memory" } else { "" };
        let command_line = format!("{}{lockdown}{disabled}", self.args.cmdline_extra);
        let machine = Machine {
            arch: kit.arch,
            qemu: &kit.qemu,
            kernel: self.image,
            initramfs: initramfs.path(),
            memory: self.args.memory,
            numa: self.args.numa || self.special == Some(Special::Numa),
            swap: swap.as_ref().map(NamedTempFile::path),
            command_line: &command_line,
        };
        // A command may print nothing for long.
        let silence = if self.args.command.is_some() { kit.timeout } else { SILENCE };
        let budget = Budget { total: kit.timeout, silence };
        machine.boot(&kit.directory.join(log), &budget, each)
    }

    /// The file that init.sh reads.
    fn job(&self) -> String {
        let command = self.args.command.clone().unwrap_or_else(|| {
            let names: String = self.scenarios.iter().map(|name| format!(" --scenario {name}")).collect();
            let offers = if self.args.write.is_some() { " --offers" } else { "" };
            let verifier = if self.measures_programs() { " --verifier" } else { "" };
            let later = self.condition == Some(Condition::FtraceOffLater);
            let later = if later { " --ftrace-off-later" } else { "" };
            format!("oomtrace-scenarios --hook {}{offers}{verifier}{later}{names}", self.hook)
        });
        let mut without: Vec<String> = self.args.without.iter().map(|missing| word(*missing)).collect();
        if let Some(Special::Without(missing)) = self.special {
            without.push(word(missing));
        }
        without.extend(match self.condition {
            Some(Condition::FtraceOff) => Some("ftrace".to_owned()),
            Some(Condition::NoMemcg) => Some("memcg".to_owned()),
            Some(Condition::FtraceOffLater) | None => None,
        });
        format!("CGROUP={}\nWITHOUT='{}'\njob() {{\n{command}\n}}\n", self.cgroup, without.join(" "))
    }

    /// Adds to the table what the end of the guest means. `failed`: a scenario failed. Returns whether to
    /// show the console.
    fn enter(&self, end: &End, failed: bool, table: &mut Table) -> bool {
        let reason = match end {
            End::Exit(0) => None,
            End::Exit(code) => Some(format!("ended with code {code}")),
            End::Refused(reason) | End::TimedOut(reason) => Some(reason.clone()),
            End::Crashed => Some("stopped without a result".to_owned()),
        };
        if self.scenarios.is_empty() {
            table.add(&self.column, "command", reason.map_or(Outcome::Pass, Outcome::Fail));
            return false;
        }
        let silent: Vec<&str> =
            self.scenarios.iter().copied().filter(|scenario| !table.has(&self.column, scenario)).collect();
        for scenario in &silent {
            let reason = reason.as_deref().unwrap_or("ended well");
            let text = format!("no result; the guest: {reason}");
            table.add(&self.column, scenario, Outcome::Fail(text));
        }
        // If a scenario failed, the guest's exit code only repeats that. Any other bad end is a failure of
        // its own.
        let repeated = failed && matches!(end, End::Exit(_));
        if let Some(reason) = reason.filter(|_| silent.is_empty() && !repeated) {
            table.add(&self.column, "guest", Outcome::Fail(reason));
        }
        !silent.is_empty() || !matches!(end, End::Exit(_))
    }
}

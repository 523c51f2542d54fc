//! Boots one guest and reads its serial console until it reports its end.
//!
//! Returns the console's lines and how the guest ended. The console is also written to a file as it arrives.
//! A guest has a limit for the total time and a limit for silence, so this never waits for ever.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::kernels::Arch;

/// How many lines of its console a failed guest shows.
const TAIL: usize = 40;

/// init.sh starts its lines for the host with this.
const MARK: &str = "@@ ";

/// A machine to emulate.
pub struct Machine<'a> {
    /// Its architecture.
    pub arch: Arch,
    /// The emulator.
    pub qemu: &'a Path,
    /// The kernel's image.
    pub kernel: &'a Path,
    /// The packed file system.
    pub initramfs: &'a Path,
    /// Memory in MiB.
    pub memory: u32,
    /// Memory and processors in two NUMA nodes.
    pub numa: bool,
    /// A raw file to swap to.
    pub swap: Option<&'a Path>,
    /// Words added to the kernel's command line.
    pub command_line: &'a str,
}

/// How long a guest may take.
pub struct Budget {
    /// From power-on to the end.
    pub total: Duration,
    /// Between two lines on the console.
    pub silence: Duration,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Its job ended with this code.
    Exit(i32),
    /// It could not run its job, for this reason.
    Refused(String),
    /// It was silent, or not done, for too long: which of the two.
    TimedOut(String),
    /// It stopped without a result: a panic, or an emulator that did not start.
    Crashed,
}

/// The output of a guest.
pub struct Console {
    /// Every line, without its end.
    pub lines: Vec<String>,
    /// How it ended.
    pub end: End,
}

impl Console {
    /// The last lines, to be shown if the guest failed.
    pub fn tail(&self) -> &[String] {
        self.lines.get(self.lines.len().saturating_sub(TAIL)..).unwrap_or_default()
    }
}

impl Machine<'_> {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |words: &str| arguments.extend(words.split(' ').map(OsString::from));
        // Always emulated: KVM inside a virtual machine does not reliably run a stock kernel. All processors
        // are in one thread. With more threads, a guest that patches its own code (attaching does this) may
        // hit its own breakpoint. Also, two guests at a time then use one thread each.
        add("-accel tcg,thread=single");
        let console = match self.arch {
            Arch::X86_64 => {
                // QEMU 7.2 emulates cmpxchg16b wrongly: kernels since 6.12 crash at random with it.
                add("-cpu max,-cx16");
                // On a busy machine the emulated timer may be late, and the kernel's check of it would panic.
                format!("ttyS0 mitigations=off no_timer_check tsc=reliable{}", time_stamp_counter())
            }
            Arch::Arm64 => {
                add("-machine virt -cpu cortex-a72");
                "ttyAMA0".to_owned()
            }
        };
        add("-smp 2 -nodefaults -no-user-config -display none -no-reboot -serial stdio");
        add(&format!("-m {}", self.memory));
        if self.numa {
            for node in 0..2 {
                let half = self.memory / 2;
                add(&format!("-object memory-backend-ram,id=m{node},size={half}M"));
                add(&format!("-numa node,nodeid={node},memdev=m{node},cpus={node}"));
            }
        }
        if let Some(swap) = self.swap {
            // NVMe is the only disk for which the cloud kernels have a built-in driver.
            add(&format!("-drive if=none,id=swap,format=raw,file={}", swap.display()));
            add("-device nvme,drive=swap,serial=swap");
        }
        let command_line = format!(
            "console={console} panic=-1 quiet nokaslr random.trust_cpu=on log_buf_len=4M oomtrace.guest=1 {}",
            self.command_line
        );
        for (flag, value) in [
            ("-kernel", self.kernel.as_os_str()),
            ("-initrd", self.initramfs.as_os_str()),
            ("-append", command_line.trim().as_ref()),
        ] {
            arguments.push(flag.into());
            arguments.push(value.into());
        }
        arguments
    }

    /// Runs the guest to its end. `each` gets every line as it arrives.
    ///
    /// # Errors
    /// If the emulator cannot be started or the log cannot be written. What the guest does is never an error
    /// here.
    pub fn boot(&self, log: &Path, budget: &Budget, each: impl FnMut(&str)) -> Result<Console> {
        watch(Command::new(self.qemu).args(self.arguments()), log, budget, each)
    }
}

/// The rate of the guest's time stamp counter, which is this machine's, as a word for its command line. A
/// guest that measures it with an emulated timer on a busy machine may be wrong by a large factor, and then
/// all its times are wrong.
#[cfg(target_arch = "x86_64")]
fn time_stamp_counter() -> String {
    let both = || {
        loop {
            let before = Instant::now();
            // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
            let ticks = unsafe { std::arch::x86_64::_rdtsc() };
            // Nothing interrupted the two reads.
            if before.elapsed() < Duration::from_micros(5) {
                return (before, ticks);
            }
        }
    };
    let (began, first) = both();
    thread::sleep(Duration::from_millis(50));
    let (ended, last) = both();
    let microseconds = u64::try_from(ended.duration_since(began).as_micros()).unwrap_or(u64::MAX).max(1);
    format!(" tsc_early_khz={}", last.wrapping_sub(first).saturating_mul(1000) / microseconds)
}

/// The counter of another architecture is emulated: the guest must measure it.
#[cfg(not(target_arch = "x86_64"))]
fn time_stamp_counter() -> String {
    String::new()
}

/// Runs an emulator whose serial console is its output, until the guest reports its end. `each` gets every
/// line as it arrives.
///
/// # Errors
/// If it cannot be started or the log cannot be written.
pub fn watch(
    emulator: &mut Command,
    log: &Path,
    budget: &Budget,
    mut each: impl FnMut(&str),
) -> Result<Console> {
    let mut file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let mut child = emulator
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file.try_clone()?)
        .spawn()
        .with_context(|| format!("{} cannot be started", emulator.get_program().display()))?;
    let stdout = child.stdout.take().context("the emulator has an output")?;
    let _guest = Guest(child);

    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });

    let started = Instant::now();
    let mut lines = Vec::new();
    let end = loop {
        let left = budget.total.saturating_sub(started.elapsed());
        match receiver.recv_timeout(left.min(budget.silence)) {
            Ok(line) => {
                writeln!(file, "{line}")?;
                each(&line);
                let end = end_reported_by(&line);
                lines.push(line);
                if let Some(end) = end {
                    break end;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break End::Crashed,
            Err(RecvTimeoutError::Timeout) => {
                break End::TimedOut(if left < budget.silence {
                    format!("not done after {} s", budget.total.as_secs())
                } else {
                    format!("silent for {} s", budget.silence.as_secs())
                });
            }
        }
    };
    Ok(Console { lines, end })
}

/// The end in a line of init.sh, if it is such a line.
fn end_reported_by(line: &str) -> Option<End> {
    let words = line.strip_prefix(MARK)?;
    if let Some(reason) = words.strip_prefix("refused: ") {
        return Some(End::Refused(reason.to_owned()));
    }
    words.strip_prefix("exit ")?.parse().ok().map(End::Exit)
}

/// An emulator that is killed when this is dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Either may fail, because it may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_marked_line_tells_the_end() {
        assert_eq!(end_reported_by("@@ exit 3"), Some(End::Exit(3)));
        assert_eq!(end_reported_by("@@ refused: no v1"), Some(End::Refused("no v1".to_owned())));
        assert_eq!(end_reported_by("@@ booted 6.12"), None);
        assert_eq!(end_reported_by("echo @@ exit 0"), None);
    }
}

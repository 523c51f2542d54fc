//! Measures what each program of oomtrace costs the kernel's verifier.
//!
//! Returns instructions and time for each program that oomtrace loads here, from the verifier's own log. A
//! loader must ask for that log, and oomtrace does not. So oomtrace runs under ptrace, and each of its calls
//! of `bpf(BPF_PROG_LOAD)` gets a log buffer on entry, which is read on exit. Works since 5.3.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Error;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// `BPF_PROG_LOAD`, of include/uapi/linux/bpf.h.
const PROG_LOAD: u64 = 5;
/// `BPF_LOG_STATS`: only the statistics.
const LOG_STATS: u32 = 4;
/// More than the statistics take.
const LOG_BYTES: u32 = 4096;
/// Below the used stack: further than the red zone and the frame of a signal handler.
const BELOW_STACK: u64 = 64 << 10;
/// Programs that only test the kernel's features are smaller than any real program.
const SMALLEST: u32 = 12;

// Offsets in `union bpf_attr` of what a load is given.
const TYPE: u64 = 0;
const COUNT: u64 = 4;
const LOG: u64 = 24;
const NAME: u64 = 48;
const ATTACH_TYPE: u64 = 68;

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, of which the kernel keeps 15 bytes, and its kind. If another has the same name, it gets a
    /// number.
    pub name: String,
    /// Instructions that the verifier processed.
    pub instructions: u64,
    /// How long the load took, including the compilation to machine code.
    pub took: Duration,
}

/// A load that has started.
struct Load {
    name: String,
    log_at: u64,
    since: Instant,
}

/// Every program that `oomtrace run` loads, in order.
///
/// # Errors
/// If it cannot be traced, or loads nothing.
pub fn programs(binary: &Path, hook: &str) -> Result<Vec<Program>> {
    let mut command = Command::new(binary);
    command.args(["run", "-o", "json", "--timeout", "100ms", "--hook", hook]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: one system call without memory, which is all that may be done between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME) {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        });
    }
    let child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
    let traced = Traced { process: child.id().try_into()? };
    let programs = traced.watch().context("trace oomtrace")?;
    ensure!(!programs.is_empty(), "{} loaded no program with --hook {hook}", binary.display());
    Ok(numbered(programs))
}

/// Numbers the programs whose cut names are equal.
fn numbered(mut programs: Vec<Program>) -> Vec<Program> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for program in &mut programs {
        let times = seen.entry(program.name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            program.name = format!("{} {times}", program.name);
        }
    }
    programs
}

/// A process that stops at each of its system calls.
struct Traced {
    process: libc::pid_t,
}

impl Traced {
    /// Follows it and its threads until they end.
    fn watch(&self) -> Result<Vec<Program>> {
        let mut programs = Vec::new();
        let mut loads: BTreeMap<libc::pid_t, Load> = BTreeMap::new();
        let memory = File::options().read(true).write(true).open(format!("/proc/{}/mem", self.process));
        let memory = memory.context("its memory")?;
        let mut memory = Some(memory);
        loop {
            let mut status = 0;
            // SAFETY: the status is alive through the call. Only a child that is traced is waited for: the caller has no other.
            let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
            if thread < 0 {
                return Ok(programs);
            }
            if !libc::WIFSTOPPED(status) {
                if thread == self.process {
                    return Ok(programs);
                }
                continue;
            }
            let mut signal = libc::WSTOPSIG(status);
            if signal == libc::SIGTRAP | 0x80 {
                signal = 0;
                if let Some(memory) = &memory {
                    self.system_call(thread, memory, &mut loads, &mut programs);
                }
            } else if signal == libc::SIGTRAP || signal == libc::SIGSTOP {
                // Its exec, the first stop of a new thread, or an event.
                signal = 0;
                let options =
                    libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
                // SAFETY: numbers only; the thread is stopped.
                unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, thread, 0, options) };
                if thread == self.process && programs.is_empty() {
                    // After the exec it has a new memory.
                    memory = File::options().read(true).write(true).open(format!("/proc/{thread}/mem")).ok();
                }
            }
            // SAFETY: numbers only; the thread is stopped.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, signal) };
        }
    }

    /// Handles the entry or the exit of a system call.
    fn system_call(
        &self,
        thread: libc::pid_t,
        memory: &File,
        loads: &mut BTreeMap<libc::pid_t, Load>,
        programs: &mut Vec<Program>,
    ) {
        // SAFETY: all zero is a valid value of the struct, which is numbers only.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::ptrace_syscall_info>();
        // SAFETY: the struct is alive through the call, which is told its size.
        let told = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info) };
        if told <= 0 {
            return;
        }
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: `op` says which part of the union is there.
            let entry = unsafe { info.u.entry };
            let [command, attributes, size, ..] = entry.args;
            // The part of the union that a log needs.
            if entry.nr.try_into() == Ok(libc::SYS_bpf) && command == PROG_LOAD && size >= ATTACH_TYPE + 4 {
                let at = info.stack_pointer.saturating_sub(BELOW_STACK) & !7;
                loads.extend(ask_for_log(memory, attributes, at).map(|load| (thread, load)));
            }
        } else if info.op == libc::PTRACE_SYSCALL_INFO_EXIT
            && let Some(load) = loads.remove(&thread)
        {
            // SAFETY: as above.
            let result = unsafe { info.u.exit.sval };
            if result >= 0 {
                programs.extend(read_log(memory, load));
            }
        }
    }
}

/// Adds a buffer for the verifier's log to a load that is about to start.
fn ask_for_log(memory: &File, attributes: u64, log_at: u64) -> Option<Load> {
    let number = |at: u64| {
        let mut bytes = [0; 4];
        memory.read_exact_at(&mut bytes, attributes + at).ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    if number(COUNT)? < SMALLEST || number(LOG)? != 0 {
        return None;
    }
    let mut name = [0; 16];
    memory.read_exact_at(&mut name, attributes + NAME).ok()?;
    let name: Vec<u8> = name.into_iter().take_while(|byte| *byte != 0).collect();
    // Types and attach types of include/uapi/linux/bpf.h.
    let kind = match (number(TYPE)?, number(ATTACH_TYPE)?) {
        (2, _) => "kprobe",
        (17, _) => "raw_tracepoint",
        (26, 24) => "fentry",
        (26, 25) => "fexit",
        _ => "other",
    };
    // Zeros, so that a log that was not written is empty. The pages must exist before the kernel writes to
    // them.
    memory.write_all_at(&vec![0; usize::try_from(LOG_BYTES).ok()?], log_at).ok()?;
    let log = [LOG_STATS.to_ne_bytes(), LOG_BYTES.to_ne_bytes()].concat();
    memory.write_all_at(&[log, log_at.to_ne_bytes().to_vec()].concat(), attributes + LOG).ok()?;
    let name = format!("{} ({kind})", String::from_utf8_lossy(&name));
    Some(Load { name, log_at, since: Instant::now() })
}

/// Reads the verifier's log.
fn read_log(memory: &File, load: Load) -> Option<Program> {
    let took = load.since.elapsed();
    let mut log = vec![0; usize::try_from(LOG_BYTES).ok()?];
    memory.read_exact_at(&mut log, load.log_at).ok()?;
    Some(Program { name: load.name, instructions: processed(&String::from_utf8_lossy(&log))?, took })
}

/// N of `processed N insns (limit 1000000) ...`.
fn processed(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.strip_prefix("processed ")?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_of_a_log() {
        let log = "verification time 9421 usec\nstack depth 512\n\
            processed 17042 insns (limit 1000000) max_states_per_insn 24 total_states 700 peak_states 52 mark_read 38\n";
        assert_eq!(processed(log), Some(17_042));
        assert_eq!(processed("\0\0"), None);
    }

    #[test]
    fn names_that_are_cut_to_the_same_are_numbered() {
        let program = |name: &str| Program { name: name.to_owned(), instructions: 1, took: Duration::ZERO };
        let numbered = numbered(vec![program("a"), program("b"), program("a")]);
        assert_eq!(numbered.into_iter().map(|program| program.name).collect::<Vec<_>>(), ["a", "b", "a 2"]);
    }
}

//! Which programs are attached to which hooks.
//!
//! The raw tracepoints are the base: without them nothing can be said. The function hooks
//! enrich: the best kind that this kernel takes is found by trying.

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{FEntry, KProbe, ProgramError, RawTracePoint},
};

use super::{ProbeError, error::chain};
use crate::{event::HookStatus, kernel::btf::Btf};

/// Which kind of function hook to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HookChoice {
    /// fentry, else kprobe, else none.
    #[default]
    Auto,
    /// fentry, or fail.
    Fentry,
    /// kprobe, or fail.
    Kprobe,
    /// None: the kernel log, else the cgroup limits, tell what the tracepoint does not.
    None,
}

/// The tracepoints. The killer's last: what it is told with must be in place before.
const TRACEPOINTS: [&str; 5] =
    ["cgroup_mkdir", "cgroup_rmdir", "cgroup_rename", "signal_generate", "mark_victim"];

/// The functions, each with a program `<function>_<kind>`. The last is the one whose facts count.
const FUNCTIONS: [&str; 2] = ["out_of_memory", "oom_kill_process"];

/// Attaches all that this kernel takes.
pub(super) fn all(ebpf: &mut Ebpf, choice: HookChoice, btf: &Btf) -> Result<Vec<HookStatus>, ProbeError> {
    let mut hooks = Vec::new();
    // Function hooks first: a victim marked before they are in place would lack their facts.
    hooks.extend(functions(ebpf, choice, btf)?);
    for name in TRACEPOINTS {
        raw_tracepoint(ebpf, name)?;
        hooks.push(HookStatus { name: name.into(), attached: "raw_tracepoint".into(), reason: None });
    }
    Ok(hooks)
}

fn functions(ebpf: &mut Ebpf, choice: HookChoice, btf: &Btf) -> Result<Vec<HookStatus>, ProbeError> {
    let kinds: &[&str] = match choice {
        HookChoice::Auto => &["fentry", "kprobe"],
        HookChoice::Fentry => &["fentry"],
        HookChoice::Kprobe => &["kprobe"],
        HookChoice::None => &[],
    };
    let mut reasons = Vec::new();
    for kind in kinds {
        let attached = match *kind {
            "fentry" => fentry(ebpf, btf),
            _ => kprobe(ebpf),
        };
        match attached {
            Ok(()) => return Ok(statuses(kind, None)),
            Err(error) if choice == HookChoice::Auto => reasons.push(format!("{kind}: {error}")),
            Err(error) => return Err(error),
        }
    }
    let reason = if reasons.is_empty() { "not asked for".into() } else { reasons.join("; ") };
    Ok(statuses("none", Some(reason)))
}

fn statuses(attached: &str, reason: Option<String>) -> Vec<HookStatus> {
    FUNCTIONS
        .iter()
        .map(|name| HookStatus { name: (*name).into(), attached: attached.into(), reason: reason.clone() })
        .collect()
}

fn raw_tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<(), ProbeError> {
    let program: &mut RawTracePoint = program(ebpf, name)?;
    program.load().map_err(|error| load_error(name, &error))?;
    let hook = || format!("raw_tracepoint/{name}");
    program.attach(name).map(drop).map_err(|error| attach_error(hook(), &error))
}

fn fentry(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProbeError> {
    for function in FUNCTIONS {
        if btf.function(function).is_none() {
            let reason = "this kernel has no such function".into();
            return Err(ProbeError::Attach { hook: format!("fentry/{function}"), reason, os: None });
        }
    }
    let btf = AyaBtf::from_sys_fs().map_err(|error| ProbeError::Maps(chain(&error).0))?;
    for function in FUNCTIONS {
        let name = format!("{function}_fentry");
        let program: &mut FEntry = program(ebpf, &name)?;
        program.load(function, &btf).map_err(|error| load_error(&name, &error))?;
    }
    for function in FUNCTIONS {
        let program: &mut FEntry = program(ebpf, &format!("{function}_fentry"))?;
        program.attach().map_err(|error| attach_error(format!("fentry/{function}"), &error))?;
    }
    Ok(())
}

fn kprobe(ebpf: &mut Ebpf) -> Result<(), ProbeError> {
    for function in FUNCTIONS {
        let name = format!("{function}_kprobe");
        let program: &mut KProbe = program(ebpf, &name)?;
        program.load().map_err(|error| load_error(&name, &error))?;
        program.attach(function, 0).map_err(|error| attach_error(format!("kprobe/{function}"), &error))?;
    }
    Ok(())
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProbeError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let missing = || ProbeError::Load { program: name.into(), reason: "not in the object".into(), os: None };
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    program.try_into().map_err(|error| load_error(name, &error))
}

fn load_error(program: &str, error: &ProgramError) -> ProbeError {
    let (reason, os) = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            // The verifier says why in its last lines; all of it would bury the message.
            let tail: Vec<&str> = log.lines().rev().filter(|line| !line.is_empty()).take(3).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let log = if tail.is_empty() { String::new() } else { format!(" ({})", tail.join(" | ")) };
            (format!("{io_error}{log}"), io_error.raw_os_error())
        }
        other => chain(other),
    };
    ProbeError::Load { program: program.into(), reason, os }
}

fn attach_error(hook: String, error: &ProgramError) -> ProbeError {
    let (reason, os) = chain(error);
    ProbeError::Attach { hook, reason, os }
}

//! Attaches the programs to their hooks.
//!
//! The raw tracepoints are the base: without them nothing can be reported. The function hooks add facts. The
//! best kind that this kernel accepts is found by trying.

use std::{io, os::fd::AsFd};

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{FEntry, FExit, KProbe, ProgramError, RawTracePoint, kprobe::KProbeLink, links::FdLink},
};

use crate::{
    event::HookStatus,
    kernel::btf::Btf,
    sources::probe::{
        Generation, MissedRuns, ProbeError, SAMPLER,
        error::chain,
        fentry, functions,
        load::{self, For, Refused, load_error},
    },
};

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
    /// None: what the tracepoint does not tell is found in the killer's kernel stack, else in the kernel log.
    None,
}

/// The tracepoints. The OOM killer's comes last: everything that its line needs must be in place first.
const TRACEPOINTS: [&str; 5] =
    ["cgroup_mkdir", "cgroup_rmdir", "cgroup_rename", "signal_generate", "mark_victim"];

/// A function hook: its program is `<function>_<kind>`.
#[derive(Clone, Copy)]
struct Hook {
    function: &'static str,
    /// How many parameters it must have. The programs read them by position, and the return value after them.
    parameters: usize,
    /// Hooks the return of the function, not its entry.
    returns: bool,
    /// Without it the other hooks of its kind are useless.
    essential: bool,
    /// Useful only for memory on cgroup v1.
    v1: bool,
}

/// The function hooks, in the order in which they are attached.
const HOOKS: [Hook; 7] = [
    Hook { essential: true, ..entry("out_of_memory", 1) },
    Hook { essential: true, ..entry("oom_kill_process", 2) },
    exit("out_of_memory", 1),
    entry("mem_cgroup_out_of_memory", 3),
    exit("mem_cgroup_out_of_memory", 3),
    Hook { v1: true, ..entry("mem_cgroup_oom_synchronize", 1) },
    Hook { v1: true, ..exit("mem_cgroup_oom_synchronize", 1) },
];

const fn entry(function: &'static str, parameters: usize) -> Hook {
    Hook { function, parameters, returns: false, essential: false, v1: false }
}

const fn exit(function: &'static str, parameters: usize) -> Hook {
    Hook { returns: true, ..entry(function, parameters) }
}

/// Why a function cannot be hooked: the programs were written for other parameters.
fn unfit(btf: &Btf, hook: &Hook) -> Option<String> {
    let Some(function) = btf.function(hook.function) else {
        return Some("this kernel has no such function".into());
    };
    let parameters = btf.parameters(function).map_or(0, |parameters| parameters.len());
    let expected = hook.parameters;
    (parameters != expected).then(|| {
        format!("this kernel's function has {parameters} parameters, not the {expected} that oomtrace knows")
    })
}

/// A kind of function hook.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fentry,
    Kprobe,
}

impl Kind {
    /// Its name, as in the name of a program.
    fn name(self, returns: bool) -> &'static str {
        match (self, returns) {
            (Self::Fentry, false) => "fentry",
            (Self::Fentry, true) => "fexit",
            (Self::Kprobe, false) => "kprobe",
            (Self::Kprobe, true) => "kretprobe",
        }
    }

    /// The program of a hook.
    fn program(self, hook: &Hook) -> String {
        format!("{}_{}", hook.function, self.name(hook.returns))
    }
}

/// The hooks of an earlier run, from its pinned links; `None` if a tracepoint is missing.
pub(super) fn pinned(pins: &Generation) -> Option<Vec<HookStatus>> {
    let links = pins.links();
    let status = |(kind, name): &(String, String)| HookStatus {
        name: name.clone(),
        attached: kind.clone(),
        reason: None,
    };
    let whole = TRACEPOINTS.iter().all(|name| links.iter().any(|link| link.1 == *name));
    let mut hooks: Vec<HookStatus> = HOOKS
        .iter()
        .filter(|hook| hook.essential && links.iter().all(|link| link.1 != hook.function))
        .map(|hook| HookStatus {
            name: hook.function.into(),
            attached: "none".into(),
            reason: Some("the run that left the programs did not attach it".into()),
        })
        .collect();
    hooks.extend(links.iter().map(status));
    whole.then_some(hooks)
}

/// The program that follows signals. What it did not see is missing in a mark.
pub(super) const SIGNALS: &str = "signal_generate";

/// Skipped runs of [`SIGNALS`], after it is loaded.
pub(super) fn missed_signals(ebpf: &Ebpf) -> Option<MissedRuns> {
    let fd = ebpf.program(SIGNALS)?.fd().ok()?.as_fd().try_clone_to_owned().ok()?;
    Some(MissedRuns::of(fd))
}

/// Keeps a program attached while it exists.
pub(super) enum Link {
    /// A link that can be pinned.
    Fd(FdLink),
    /// The link of a kprobe, which cannot be pinned before Linux 5.15.
    Kprobe(KProbeLink),
}

impl Link {
    fn into_fd(self) -> Result<FdLink, ProgramError> {
        let unpinned = "before Linux 5.15 a kprobe cannot be pinned, only attached without --pin";
        match self {
            Self::Fd(link) => Ok(link),
            Self::Kprobe(link) => {
                link.try_into().map_err(|_| ProgramError::IOError(io::Error::other(unpinned)))
            }
        }
    }
}

/// Attaches the programs of an object.
pub(super) struct Attach<'a> {
    ebpf: &'a mut Ebpf,
    btf: &'a Btf,
    v1: bool,
    pins: Option<&'a Generation>,
    /// The links that are not pinned.
    links: Vec<Link>,
    refused: Refused,
}

/// What is attached.
pub(super) struct Done {
    pub(super) hooks: Vec<HookStatus>,
    /// The links that are not pinned.
    pub(super) links: Vec<Link>,
    /// Whether the program that reads all memory cgroups is loaded. It is attached to nothing.
    pub(super) sampler: Result<(), ProbeError>,
}

impl<'a> Attach<'a> {
    /// For an object whose maps exist. `v1`: memory is on cgroup v1. With `pins`, links stay after the end of
    /// the process; without, they end when the result of [`Self::all`] is dropped.
    pub(super) fn new(ebpf: &'a mut Ebpf, btf: &'a Btf, v1: bool, pins: Option<&'a Generation>) -> Self {
        Self { ebpf, btf, v1, pins, links: Vec::new(), refused: Refused::default() }
    }

    /// Attaches everything that this kernel accepts.
    pub(super) fn all(mut self, choice: HookChoice) -> Result<Done, ProbeError> {
        // Function hooks first: a victim that is marked before them would lack their facts.
        let mut hooks = self.functions(choice)?;
        let wanted = |name: &str| TRACEPOINTS.contains(&name) || name == SAMPLER;
        self.refused = load::all(self.ebpf, |name| wanted(name).then_some(For::Itself));
        for name in TRACEPOINTS {
            self.raw_tracepoint(name)?;
            hooks.push(HookStatus { name: name.into(), attached: "raw_tracepoint".into(), reason: None });
        }
        Ok(Done { hooks, links: self.links, sampler: self.refused.take(SAMPLER) })
    }

    fn functions(&mut self, choice: HookChoice) -> Result<Vec<HookStatus>, ProbeError> {
        let kinds: &[Kind] = match choice {
            HookChoice::Auto => &[Kind::Fentry, Kind::Kprobe],
            HookChoice::Fentry => &[Kind::Fentry],
            HookChoice::Kprobe => &[Kind::Kprobe],
            HookChoice::None => &[],
        };
        let mut reasons = Vec::new();
        for kind in kinds {
            let attached = self.all_of(*kind);
            if let (Err(_), Some(pins)) = (&attached, self.pins) {
                for hook in HOOKS {
                    pins.unpin_link(kind.name(hook.returns), hook.function);
                }
            }
            if attached.is_err() {
                self.links.clear();
            }
            match attached {
                Ok(statuses) => return Ok(statuses),
                Err(error) if choice == HookChoice::Auto => reasons.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let reason = if reasons.is_empty() { "not asked for".into() } else { reasons.join("; ") };
        let none = |hook: &Hook| HookStatus {
            name: hook.function.into(),
            attached: "none".into(),
            reason: Some(reason.clone()),
        };
        Ok(HOOKS.iter().filter(|hook| hook.essential).map(none).collect())
    }

    /// Attaches the function hooks as one kind. A hook that is not essential may fail.
    fn all_of(&mut self, kind: Kind) -> Result<Vec<HookStatus>, ProbeError> {
        for hook in HOOKS.iter().filter(|hook| hook.essential) {
            fits(self.btf, hook, kind)?;
        }
        let aya_btf = match kind {
            Kind::Fentry => Some(ask(self.btf).and_then(|()| aya_types(self.btf))?),
            Kind::Kprobe => None,
        };
        // Where the kernel refuses these, the large programs of the others are not loaded in vain.
        let mut statuses = self.some_of(kind, aya_btf.as_ref(), true)?;
        statuses.extend(self.some_of(kind, aya_btf.as_ref(), false)?);
        Ok(statuses)
    }

    /// The essential function hooks, or the others.
    fn some_of(
        &mut self,
        kind: Kind,
        types: Option<&AyaBtf>,
        essential: bool,
    ) -> Result<Vec<HookStatus>, ProbeError> {
        let (v1, btf) = (self.v1, self.btf);
        let hooks = || HOOKS.into_iter().filter(move |hook| hook.essential == essential && (v1 || !hook.v1));
        self.refused = load::all(self.ebpf, |name| {
            let hook = hooks().find(|hook| name == kind.program(hook) && fits(btf, hook, kind).is_ok())?;
            Some(types.map_or(For::Itself, |types| For::Function(hook.function, types)))
        });
        let mut statuses = Vec::new();
        for hook in hooks() {
            let attached = fits(btf, &hook, kind).and_then(|()| self.function(hook, kind));
            let (attached, reason) = match attached {
                Ok(()) => (kind.name(hook.returns), None),
                Err(error) if essential => return Err(error),
                Err(error) => ("none", Some(error.to_string())),
            };
            statuses.push(HookStatus { name: hook.function.into(), attached: attached.into(), reason });
        }
        Ok(statuses)
    }

    /// Attaches a program that was to be loaded.
    fn function(&mut self, hook: Hook, kind: Kind) -> Result<(), ProbeError> {
        let Hook { function, returns, .. } = hook;
        let name = kind.program(&hook);
        self.refused.take(&name)?;
        let link: Result<Link, ProgramError> = match (kind, returns) {
            (Kind::Fentry, false) => {
                let program: &mut FEntry = program(self.ebpf, &name)?;
                program.attach().and_then(|id| program.take_link(id)).map(|link| Link::Fd(link.into()))
            }
            (Kind::Fentry, true) => {
                let program: &mut FExit = program(self.ebpf, &name)?;
                program.attach().and_then(|id| program.take_link(id)).map(|link| Link::Fd(link.into()))
            }
            (Kind::Kprobe, _) => {
                let program: &mut KProbe = program(self.ebpf, &name)?;
                program.attach(function, 0).and_then(|id| program.take_link(id)).map(Link::Kprobe)
            }
        };
        self.keep(kind.name(returns), function, link)
    }

    fn raw_tracepoint(&mut self, name: &str) -> Result<(), ProbeError> {
        self.refused.take(name)?;
        let program: &mut RawTracePoint = program(self.ebpf, name)?;
        if let (Some(pins), SIGNALS) = (self.pins, name) {
            pins.pin_program(name, |path| program.pin(path))?;
        }
        let link = program.attach(name).and_then(|id| program.take_link(id));
        self.keep("raw_tracepoint", name, link.map(|link| Link::Fd(link.into())))
    }

    /// Pins a link, or keeps it with the others.
    fn keep(&mut self, kind: &str, name: &str, link: Result<Link, ProgramError>) -> Result<(), ProbeError> {
        let failed = |error| attach_error(format!("{kind}/{name}"), &error);
        let link = link.map_err(failed)?;
        match self.pins {
            Some(pins) => pins.pin_link(kind, name, link.into_fd().map_err(failed)?)?,
            None => self.links.push(link),
        }
        Ok(())
    }
}

fn fits(btf: &Btf, hook: &Hook, kind: Kind) -> Result<(), ProbeError> {
    let name = format!("{}/{}", kind.name(hook.returns), hook.function);
    unfit(btf, hook).map_or(Ok(()), |reason| Err(ProbeError::Attach { hook: name, reason, os: None }))
}

/// Asks the kernel with the smallest possible fentry program.
fn ask(btf: &Btf) -> Result<(), ProbeError> {
    let Hook { function, .. } = HOOKS[0];
    let asked = btf.function(function).map_or_else(|| Err(io::ErrorKind::NotFound.into()), fentry::is_taken);
    asked.map_err(|error| ProbeError::Load {
        program: format!("a fentry program for {function}"),
        reason: error.to_string(),
        os: error.raw_os_error(),
        verifier: false,
    })
}

fn aya_types(btf: &Btf) -> Result<AyaBtf, ProbeError> {
    functions::of(btf, &HOOKS.map(|hook| hook.function)).map_err(|error| ProbeError::maps(&error))
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProbeError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let missing = || ProbeError::Load {
        program: name.into(),
        reason: "not in the object".into(),
        os: None,
        verifier: false,
    };
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    program.try_into().map_err(|error| load_error(name, &error))
}

fn attach_error(hook: String, error: &ProgramError) -> ProbeError {
    let (reason, os) = chain(error);
    ProbeError::Attach { hook, reason, os }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The types of a kernel with one function that has this many parameters.
    fn kernel_with(function: &str, parameters: u32) -> Btf {
        let names = format!("\0{function}\0");
        let prototype = [0, (13 << 24) | parameters, 0];
        let function = [1, 12 << 24, 1];
        let types: Vec<u32> = [&prototype[..], &vec![0; 2 * parameters as usize], &function].concat();
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_le_bytes).collect();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_default();
        let header = [0x0001_eb9f, 24, 0, len(&types), len(&types), len(names.as_bytes())];
        let header = header.into_iter().flat_map(u32::to_le_bytes).collect();
        Btf::parse([header, types, names.into_bytes()].concat())
            .unwrap_or_else(|error| unreachable!("{error}"))
    }

    #[test]
    fn every_hooked_function_is_found_on_the_one_way_through_the_types() {
        for hook in HOOKS {
            assert!(crate::kernel::layout::NAMES.contains(&hook.function), "{}", hook.function);
        }
    }

    #[test]
    fn a_function_with_other_parameters_is_not_hooked() {
        let hook = exit("mem_cgroup_out_of_memory", 3);
        assert_eq!(unfit(&kernel_with(hook.function, 3), &hook), None);
        let said = unfit(&kernel_with(hook.function, 4), &hook).unwrap_or_default();
        assert!(said.contains("4 parameters"), "{said}");
        assert!(unfit(&kernel_with("out_of_memory", 3), &hook).is_some());
    }
}

//! `oomtrace check`: what this host offers and lacks, found by trying.

mod sampler;

use serde::Serialize;

use crate::{
    cli::{Check, Form, RingSize},
    commands::{
        print::print,
        run::{FTRACE_OFF, NO_MEMORY_CGROUPS, as_they_run, attach, nothing_there},
        simulate,
    },
    containers::Runtimes,
    enrich::enricher::ftrace_enabled,
    event::{CgroupVersion, HookStatus},
    failure::Failure,
    host::{identity, kernel_log::KernelLog, protection, root::Root},
    kernel::{Kernel, KernelError, privilege, tracefs},
    outputs::encode::json,
    run::setup::OTHER_PID_NAMESPACE,
    sources::probe::{HookChoice, bpffs},
};

/// The result of one check.
#[derive(Debug, Serialize)]
struct Finding {
    /// Its name.
    name: &'static str,
    /// Its result.
    state: State,
    /// The result in words.
    detail: String,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Everything is there.
    Ok,
    /// oomtrace works without it, but knows less.
    Limited,
    /// Nothing works without it.
    Missing,
}

/// What `check` prints with `-o json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether `oomtrace run` can work here.
    usable: bool,
    /// The findings.
    findings: Vec<Finding>,
    /// The hooks as `run` would attach them.
    hooks: Vec<HookStatus>,
}

/// `oomtrace check`.
///
/// # Errors
/// With the exit code that `run` would have.
pub fn check(args: &Check) -> Result<(), Failure> {
    let root = Root::host().guarded();
    let mut findings = vec![capabilities(&root), lockdown(&root)];
    let mut hooks = Vec::new();
    let mut failure = None;
    match Kernel::read(&root) {
        Ok(kernel) => {
            findings.push(btf(&kernel));
            findings.push(mark_victim(&kernel));
            findings.push(memory_cgroups(&kernel));
            match attach(&kernel, HookChoice::Auto, RingSize::default()) {
                Ok(mut probe) => {
                    findings.extend(sampler::finding(&kernel, probe.sampler(&kernel.resolved.layout)));
                    let ftrace = ftrace_enabled(&root) != Some(false);
                    hooks = as_they_run(probe.hooks(), ftrace);
                    findings.push(Finding {
                        name: "attach",
                        state: State::Ok,
                        detail: "ring buffers, tracepoint programs: loaded and attached".into(),
                    });
                    let tried = args.kill.then(|| simulate::hooks_run(&kernel, &mut probe));
                    findings.push(function_hook(&hooks, tried));
                }
                Err(error) => {
                    findings.push(Finding { name: "attach", state: State::Missing, detail: error.text() });
                    failure = Some(error);
                }
            }
        }
        Err(error) => {
            let name = if matches!(error, KernelError::Hierarchy(_)) { "memory cgroups" } else { "btf" };
            let error = Failure::from(error);
            findings.push(Finding { name, state: State::Missing, detail: error.text() });
            failure = Some(error);
        }
    }
    findings.push(tracefs());
    findings.push(kernel_log(&root));
    findings.push(processes(&root));
    findings.push(bpffs(&root));
    findings.push(runtimes(&root, args));
    findings.push(under_pressure());
    let report = Report { usable: failure.is_none(), findings, hooks };
    print(|out| match args.output {
        Form::Json => json::print(&report, out),
        Form::Text => text(&report, out),
    })?;
    failure.map_or(Ok(()), Err)
}

fn text(report: &Report, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let mark = |state| match state {
        State::Ok => "ok     ",
        State::Limited => "limited",
        State::Missing => "MISSING",
    };
    for finding in &report.findings {
        writeln!(out, "{}  {:<16} {}", mark(finding.state), finding.name, finding.detail)?;
    }
    for hook in &report.hooks {
        // Where all were refused for one reason, it is that of the first.
        let first = report.hooks.iter().find(|other| other.reason == hook.reason).unwrap_or(hook);
        let reason = match hook.reason.as_deref() {
            None => String::new(),
            Some(_) if first.name != hook.name => format!(": as for {}", first.name),
            Some(reason) => format!(": {reason}"),
        };
        let state = if hook.attached == "none" { State::Limited } else { State::Ok };
        writeln!(out, "{}  hook {:<24} {}{reason}", mark(state), hook.name, hook.attached)?;
    }
    writeln!(out, "{}", if report.usable { "oomtrace can run here." } else { "oomtrace cannot run here." })
}

fn capabilities(root: &Root) -> Finding {
    let name = "capabilities";
    let Some(missing) = privilege::missing(root) else {
        return Finding { name, state: State::Limited, detail: "/proc/self/status does not tell".into() };
    };
    let state = match missing.iter().any(|capability| capability.needed) {
        true => State::Missing,
        false if missing.is_empty() => State::Ok,
        false => State::Limited,
    };
    let lacks: Vec<String> =
        missing.iter().map(|capability| format!("no {}: {}", capability.name, capability.without)).collect();
    let detail = if lacks.is_empty() { "all that tracing requires".into() } else { lacks.join("; ") };
    Finding { name, state, detail }
}

fn lockdown(root: &Root) -> Finding {
    let mode = privilege::lockdown(root);
    let state = if mode.as_deref() == Some("confidentiality") { State::Missing } else { State::Ok };
    Finding {
        name: "lockdown",
        state,
        detail: mode.unwrap_or_else(|| "off, or this kernel does not show it".into()),
    }
}

fn btf(kernel: &Kernel) -> Finding {
    let absent = &kernel.resolved.absent;
    let (state, detail) = if absent.is_empty() {
        (State::Ok, "describes all that is read".into())
    } else {
        (State::Limited, format!("has no {}: absent in events", absent.join(", ")))
    };
    Finding { name: "btf", state, detail }
}

fn mark_victim(kernel: &Kernel) -> Finding {
    let detail = match kernel.resolved.layout.mark_victim {
        oomtrace_common::layout::MARK_VICTIM_PID => {
            "the tracepoint passes a pid only: the task is found by its SIGKILL"
        }
        _ => "the tracepoint passes the victim's task",
    };
    Finding { name: "mark_victim", state: State::Ok, detail: detail.into() }
}

fn memory_cgroups(kernel: &Kernel) -> Finding {
    let hierarchy = &kernel.hierarchy;
    if hierarchy.version == CgroupVersion::None {
        return Finding { name: "memory cgroups", state: State::Limited, detail: NO_MEMORY_CGROUPS.into() };
    }
    let version = format!("{:?}", hierarchy.version).to_lowercase();
    let (state, detail) = match &hierarchy.mount {
        Some(mount) => (State::Ok, format!("{version} at {}", mount.display())),
        None => (
            State::Limited,
            format!("{version}, not mounted: cgroups made before the start have no known path"),
        ),
    };
    Finding { name: "memory cgroups", state, detail }
}

/// `tried`: whether a test kill ran the hooks, if there was one.
fn function_hook(hooks: &[HookStatus], tried: Option<Result<bool, Failure>>) -> Finding {
    let name = "function hook";
    let hooked = hooks.iter().find(|hook| hook.name == "oom_kill_process");
    let Some(hook) = hooked.filter(|hook| hook.attached != "none") else {
        let off =
            hooked.and_then(|hook| hook.reason.as_deref()).filter(|reason| reason.ends_with(FTRACE_OFF));
        let detail = format!(
            "{}: the limit that was reached is found in the OOM killer's kernel stack, else in the kernel log; a cgroup that runs \
             out without a kill is found late",
            off.unwrap_or("refused by this kernel")
        );
        return Finding { name, state: State::Limited, detail };
    };
    let attached = &hook.attached;
    let (state, detail) = match tried {
        None => (State::Ok, format!("{attached}, not tried (--kill tries it by a kill)")),
        Some(Ok(true)) => (State::Ok, format!("{attached}, and a test kill ran it")),
        Some(Ok(false)) => (
            State::Limited,
            format!(
                "{attached} is attached, but a test kill did not reach it: `run` notices this at the first kill, and then uses the \
                 kernel stack and the kernel log"
            ),
        ),
        Some(Err(error)) => (State::Limited, format!("{attached}, not tried: {}", error.text())),
    };
    Finding { name, state, detail }
}

fn tracefs() -> Finding {
    let (state, detail) = match tracefs::read("events/oom/mark_victim/format") {
        Ok(_) => (State::Ok, "can be read (at a mount of its own)".into()),
        Err(error) => (State::Limited, format!("{error}: allocation flags are named by the kernel's types")),
    };
    Finding { name: "tracefs", state, detail }
}

fn kernel_log(root: &Root) -> Finding {
    let (state, detail) = match KernelLog::open(root) {
        Ok(_) => (State::Ok, "/dev/kmsg can be read".into()),
        Err(error) => (State::Limited, format!("/dev/kmsg: {error}")),
    };
    Finding { name: "kernel log", state, detail }
}

fn processes(root: &Root) -> Finding {
    let (state, detail) = match identity::proc_has_kernel_pids(root) {
        true => (State::Ok, "/proc has the kernel's own pids"),
        false => (State::Limited, OTHER_PID_NAMESPACE),
    };
    Finding { name: "processes", state, detail: detail.into() }
}

fn bpffs(root: &Root) -> Finding {
    let usual = bpffs::USUAL;
    let detail = if bpffs::is_bpffs(&root.path(usual)) {
        format!("mounted at {usual}")
    } else {
        format!(
            "{usual} is no bpffs: only `run --pin` needs one. It mounts one, but may not in a systemd unit: there, first mount -t bpf bpf {usual}"
        )
    };
    Finding { name: "bpffs", state: State::Ok, detail }
}

/// Checked last, because this process then has the settings of `run`, and keeps them.
fn under_pressure() -> Finding {
    let mut refused = protection::hold(true);
    refused.extend(protection::lock_memory());
    let state = if refused.is_empty() { State::Ok } else { State::Limited };
    let detail = if refused.is_empty() {
        "memory is locked, scheduling is real-time, and oomtrace itself cannot be a victim".to_owned()
    } else {
        refused.join("; ")
    };
    Finding { name: "under pressure", state, detail }
}

fn runtimes(root: &Root, args: &Check) -> Finding {
    let runtimes = Runtimes::discover(root.clone(), &args.runtime_root);
    let found = runtimes.found();
    let mut wrong = nothing_there(&args.runtime_root, &found);
    wrong.extend(runtimes.closed().map(str::to_owned));
    let state = if wrong.is_empty() { State::Ok } else { State::Limited };
    let mut detail = if found.is_empty() { vec!["no state of any found".to_owned()] } else { found };
    detail.extend(wrong);
    Finding { name: "runtimes", state, detail: detail.join(", ") }
}

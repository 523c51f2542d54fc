//! The start of a run: late, under a service manager, with few privileges.

use oomtrace_tests::tracer::at;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use oomtrace_tests::patience::{PATIENCE, until};
use serde_json::Value;

use crate::world::{Dir, World, comm, text};

/// Kills from before the start, then live ones, each only once.
pub fn since_boot(world: &World) -> Result<()> {
    let mut names = world.kill(20)?;
    let mut run = world.run(&["--since", "boot"], |_| {})?;
    let mut lines = run.lines_until(names.last().context("a kill")?)?;
    let live = world.kill(5)?;
    lines.extend(run.lines_until(live.last().context("a kill")?)?);
    lines.extend(run.stop()?.0);
    names.extend(live.clone());
    let ours: Vec<&Value> = lines
        .iter()
        .filter(|line| comm(line).is_some_and(|comm| names.iter().any(|name| name == comm)))
        .collect();
    let told: Vec<&str> = ours.iter().filter_map(|line| comm(line)).collect();
    ensure!(told == names, "reported {told:?}, not {names:?}");
    for (line, name) in ours.iter().zip(&names) {
        let source = if live.contains(name) { "ebpf" } else { "kmsg" };
        ensure!(text(line, "origin") == source, "not from {source}: {line}");
        if source == "ebpf" {
            continue;
        }
        ensure!(line.get("seq").is_none(), "a number from before oomtrace counted: {line}");
        let anon = line.pointer("/victim/memory/anon_rss_bytes").and_then(Value::as_u64);
        ensure!(anon.is_some_and(|anon| (1 << 20..=9 << 20).contains(&anon)), "memory: {line}");
        ensure!(line.pointer("/oom/scope") == Some(&"memcg".into()), "scope: {line}");
        // Above its rate limit the kernel did not log the cgroup.
        let whole = format!("{}/{name}", String::from_utf8_lossy(&world.scratch.cgroup().place().path));
        match line.pointer("/victim/cgroup/path").and_then(Value::as_str) {
            Some(path) => {
                ensure!(path == whole, "cgroup: {line}");
                ensure!(line.pointer("/oom/cgroup/limit_bytes") == Some(&(8 << 20).into()), "limit: {line}");
                ensure!(line.pointer("/victim/pid") == line.pointer("/victim/tid"), "pid: {line}");
            }
            None => ensure!(
                at(line, "missing.victim.cgroup.path").is_some_and(|why| why == "log_rate_limited"),
                "no cgroup: {line}"
            ),
        }
    }
    Ok(())
}

/// A start during a storm of kills: each kill is reported once, from the log or live, in order.
pub fn since_boot_amid_kills(world: &World) -> Result<()> {
    for _ in 0..2 {
        let mut names = world.kill(2)?;
        let (rest, mut run) = std::thread::scope(|scope| {
            let kills = scope.spawn(|| world.kill(40));
            let run = world.run(&["--since", "10m"], |_| {});
            (kills.join(), run)
        });
        names.extend(rest.map_err(|_| anyhow!("the killing panicked"))??);
        names.extend(world.kill(1)?);
        let mut lines = run
            .as_mut()
            .map_err(|error| anyhow!("{error:#}"))?
            .lines_until(names.last().context("a kill")?)?;
        lines.extend(run?.stop()?.0);
        let told: Vec<&str> =
            lines.iter().filter_map(comm).filter(|comm| names.iter().any(|name| name == comm)).collect();
        ensure!(told == names, "reported {told:?}, not {names:?}");
        let sources: Vec<&str> = lines
            .iter()
            .filter(|line| text(line, "type") == "oom_kill")
            .map(|line| text(line, "origin"))
            .collect();
        let live = sources.iter().position(|source| *source == "ebpf").unwrap_or(sources.len());
        ensure!(sources.iter().skip(live).all(|source| *source == "ebpf"), "mixed: {sources:?}");
    }
    Ok(())
}

/// The messages that a service manager gets, through a path and through an abstract address.
pub fn service_manager(world: &World) -> Result<()> {
    for abstract_name in [false, true] {
        let dir = Dir::make()?;
        let (address, name) = if abstract_name {
            let name = format!("oomtrace-faults-{}", std::process::id());
            (SocketAddr::from_abstract_name(&name)?, format!("@{name}"))
        } else {
            let path = dir.0.join("notify");
            (SocketAddr::from_pathname(&path)?, path.to_string_lossy().into_owned())
        };
        let socket = UnixDatagram::bind_addr(&address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let hear = || {
            let mut buffer = [0; 512];
            let len = socket.recv(&mut buffer).context("nothing was said")?;
            Ok::<_, anyhow::Error>(
                String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned(),
            )
        };
        let mut run = world.run(&[], |command| {
            command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
        })?;
        let ready = hear()?;
        ensure!(ready.starts_with("READY=1\n"), "{ready:?}");
        let names = world.kill(1)?;
        run.lines_until(names.last().context("a kill")?)?;
        let mut heard = BTreeSet::new();
        until("status and watchdog", || {
            heard.insert(hear()?);
            let told =
                heard.iter().any(|said| said.starts_with("STATUS=") && said.ends_with("reported, 0 lost"));
            Ok((told && heard.contains("WATCHDOG=1")).then_some(()))
        })?;
        // A process that is stuck must not feed the watchdog.
        run.signal(libc::SIGSTOP)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        while hear().is_ok() {}
        run.signal(libc::SIGCONT)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // Kills of others on this host change the status too.
        let but_status = || {
            loop {
                let said = hear()?;
                if !said.starts_with("STATUS=") {
                    return Ok::<_, anyhow::Error>(said);
                }
            }
        };
        ensure!(but_status()? == "WATCHDOG=1", "no sign of life after SIGCONT");
        run.stop()?;
        let mut last = but_status()?;
        while last == "WATCHDOG=1" {
            last = but_status()?;
        }
        ensure!(last == "STOPPING=1", "{last:?}");
    }
    Ok(())
}

/// include/uapi/linux/capability.h
const DAC_READ_SEARCH: u32 = 2;
const SYS_PTRACE: u32 = 19;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Five capabilities are enough, and two of them already report each kill. The first line says what is
/// missing.
pub fn least_privilege(world: &World) -> Result<()> {
    for keep in [vec![BPF, PERFMON, SYSLOG, DAC_READ_SEARCH, SYS_PTRACE], vec![BPF, PERFMON]] {
        let kept = keep.clone();
        let mut run = world.run(&[], move |command| {
            // SAFETY: system calls only. Root's new program gets what is left in the bounding set.
            unsafe {
                command.pre_exec(move || {
                    for capability in 0..64 {
                        if !kept.contains(&capability) {
                            // For a number above the kernel's last capability this fails, and nothing is left
                            // to drop.
                            libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0);
                        }
                    }
                    Ok(())
                });
            }
        })?;
        let status = fs::read_to_string(format!("/proc/{}/status", run.child.id()))?;
        let wanted: u64 = keep.iter().map(|capability| 1u64 << capability).sum();
        let start = match run.line() {
            Ok(start) => start,
            Err(error) => {
                let mut said = String::new();
                run.child.stderr.take().context("no stderr")?.read_to_string(&mut said)?;
                bail!("{error:#}: {said}");
            }
        };
        ensure!(
            status.contains(&format!("CapBnd:\t{wanted:016x}")),
            "capabilities were not dropped: {status}"
        );
        eprintln!("with {keep:?}: {}", start.get("limits").unwrap_or(&Value::Null));
        let names = world.kill(1)?;
        let lines = run.lines_until(names.last().context("a kill")?)?;
        let kill = lines.last().context("no line")?;
        for key in ["/victim/pid", "/victim/memory/anon_rss_bytes", "/victim/cgroup/path", "/oom/scope"] {
            ensure!(kill.pointer(key).is_some(), "no {key}: {kill}");
        }
        let limits = start.get("limits").map(ToString::to_string).unwrap_or_default();
        for (capability, sentence) in
            [(DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"), (SYS_PTRACE, "CAP_SYS_PTRACE")]
        {
            ensure!(
                limits.contains(sentence) != keep.contains(&capability),
                "{sentence} in the start line's limits: {limits}"
            );
        }
        run.stop()?;
    }
    Ok(())
}

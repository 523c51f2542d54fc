//! `--pin`: the second run reports what happened between the two runs, once, with the facts of the hooks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LIMIT, MIB, Outcome, not_applicable};
use crate::cgroup::Version;
use crate::counters::wall_clock_ns;
use crate::patience::until;
use crate::process::send_signal;
use crate::session::Session;
use crate::tracer::{Hook, at};

pub(super) fn pinned(session: &mut Session) -> Result<Outcome> {
    let (binary, hook) = session.program();
    let (binary, hook) = (binary.to_owned(), *hook);
    let links = links()?;
    let files = Files::make()?;
    let mut first = files.run(&binary, hook)?;
    let start = match files.started(&mut first, 1) {
        Ok(start) => start,
        // Links of kprobes exist since 5.15.
        Err(error) if hook == Hook::Kprobe && format!("{error:#}").contains("cannot be pinned") => {
            ensure!(fs::read_dir(&files.pins)?.count() == 0, "something is left in {}", files.pins);
            return not_applicable(&format!("{error:#}"));
        }
        Err(error) => return Err(error),
    };
    let killer = attached(&start);
    first.kill()?;
    first.wait()?;

    let between = victims(session, "between")?;
    let mut second = files.run(&binary, hook)?;
    let start = files.started(&mut second, 2)?;
    ensure!(start.get("resumed") == Some(&true.into()), "not resumed: {start}");
    ensure!(attached(&start) == killer, "the hook was {killer}, and is {start}");
    let after = victims(session, "after")?;
    let all: BTreeSet<u64> = between.iter().chain(&after).copied().collect();
    files.wait("each victim", |lines| told(lines).into_iter().collect::<BTreeSet<_>>().is_superset(&all))?;
    let unseen = unseen(session, &files)?;
    send_signal(second.id(), libc::SIGTERM)?;
    ensure!(second.wait()?.success(), "the second run");

    let lines = files.lines()?;
    let ours: Vec<u64> = told(&lines).into_iter().filter(|tid| all.contains(tid)).collect();
    ensure!(ours.len() == all.len(), "told {ours:?}, killed {all:?}: one twice");
    let mut last = 0;
    for line in &lines {
        let kind = word(line, "type");
        ensure!(kind != "lost", "{line}");
        if let Some(seq) = line.get("seq").and_then(Value::as_u64) {
            ensure!(seq == last + 1, "after seq {last}: {line}");
            last = seq;
        }
        if kind == "oom_kill" {
            let evidence = if [session.hook(), &killer].contains(&"none") { "stack" } else { &killer };
            ensure!(at(line, "oom.evidence") == Some(&evidence.into()), "evidence: {line}");
        }
    }
    gap(session, &lines, unseen)?;
    let detach = Command::new(&binary).arg("detach").arg(&files.pins).output()?;
    ensure!(detach.status.success(), "detach: {}", String::from_utf8_lossy(&detach.stderr));
    ensure!(!Path::new(&files.pins).exists(), "{} is still there", files.pins);
    // On a host there may be links of others.
    if session.guest() {
        until("the end of all links", || Ok((self::links()? == links).then_some(())))?;
    }
    Ok(Outcome::Passed)
}

/// Makes kills that no program sees, because the hook was removed. Returns how many.
fn unseen(session: &mut Session, files: &Files) -> Result<u64> {
    let mut pinned = fs::read_dir(&files.pins)?.flatten();
    let set = pinned.find(|entry| entry.path().is_dir()).context("nothing is pinned")?;
    let there = links()?;
    fs::remove_file(set.path().join("link-raw_tracepoint-mark_victim"))?;
    // The kernel removes the link later, on a busy machine after seconds.
    until("the end of the link", || Ok((!links()?.is_superset(&there)).then_some(())))?;
    let released = wall_clock_ns();
    let cgroup = session.cgroup(b"pinned-unseen")?;
    cgroup.limit(LIMIT)?;
    for _ in 0..3 {
        let mut hog = session.hog_in(&cgroup, b"hog-unseen")?;
        hog.grow("anon")?;
        hog.killed()?;
        session.line_of(hog.pid(), released)?;
    }
    Ok(3)
}

/// They are reported as a gap, and on v2 the topmost cgroup is named.
fn gap(session: &Session, lines: &[Value], unseen: u64) -> Result<()> {
    let gaps: Vec<&Value> = lines.iter().filter(|line| word(line, "type") == "gap").collect();
    let missing = |of: &Value| {
        let number = |key| of.get(key).and_then(Value::as_u64).unwrap_or(0);
        number("kernel_kills").saturating_sub(number("reported"))
    };
    ensure!(gaps.iter().map(|gap| missing(gap)).sum::<u64>() == unseen, "{unseen} were not seen: {gaps:?}");
    if session.hierarchy.version == Version::V2 {
        let path = String::from_utf8_lossy(&session.scratch().place().path).into_owned();
        let cgroups = gaps.iter().filter_map(|gap| gap.get("cgroups")?.as_array()).flatten();
        let found = cgroups.filter(|cgroup| word(cgroup, "path") == path).map(missing).sum::<u64>();
        // Its counter also includes the second pass of the group kill.
        ensure!((unseen..=unseen + 1).contains(&found), "{path} is not named: {gaps:?}");
    }
    Ok(())
}

/// One process killed by its limit and, if there are group kills, three in one group. Returns their ids.
fn victims(session: &mut Session, name: &str) -> Result<BTreeSet<u64>> {
    let released = wall_clock_ns();
    let mut hogs = Vec::new();
    let cgroup = session.cgroup(format!("pinned-{name}").as_bytes())?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-pinned")?;
    hog.grow("anon")?;
    hogs.push(hog);
    let group = session.cgroup(format!("pinned-group-{name}").as_bytes())?;
    if session.hierarchy.version == Version::V2 {
        group.limit(LIMIT)?;
        group.write(&group.file("memory.oom.group"), "1")?;
        for _ in 0..3 {
            let mut hog = session.hog_in(&group, b"hog-pinned-g")?;
            hog.hold(MIB)?;
            hogs.push(hog);
        }
        if let Some(last) = hogs.last_mut() {
            last.grow("anon")?;
        }
    }
    let mut victims = BTreeSet::new();
    for hog in &mut hogs {
        hog.killed()?;
        // The other tracer, which still runs, reports it too.
        session.line_of(hog.pid(), released)?;
        victims.insert(hog.pid().into());
    }
    Ok(victims)
}

/// Pins and an output for this scenario only.
struct Files {
    pins: String,
    lines: PathBuf,
    said: PathBuf,
}

impl Files {
    fn make() -> Result<Self> {
        let name = format!("oomtrace-pinned-{}", std::process::id());
        let of = |end: &str| std::env::temp_dir().join(format!("{name}.{end}"));
        let files = Self { pins: format!("/sys/fs/bpf/{name}"), lines: of("lines"), said: of("stderr") };
        fs::create_dir_all(std::env::temp_dir())?;
        fs::write(&files.said, "")?;
        Ok(files)
    }

    fn run(&self, binary: &Path, hook: Hook) -> Result<Child> {
        let said = fs::File::options().append(true).open(&self.said)?;
        let mut command = Command::new(binary);
        command.args(["run", "-o", "json", "--no-verdict", "--hook", hook.word()]);
        command.arg(format!("--pin={}", self.pins)).arg("--file").arg(&self.lines);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().context("start a pinned run")
    }

    /// The start line of run `number`.
    fn started(&self, run: &mut Child, number: usize) -> Result<Value> {
        until("a start line", || {
            if let Some(status) = run.try_wait()? {
                anyhow::bail!("{status}: {}", fs::read_to_string(&self.said)?.trim().replace('\n', "; "));
            }
            Ok(self.lines()?.into_iter().filter(|line| word(line, "type") == "start").nth(number - 1))
        })
    }

    fn lines(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.lines).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    fn wait(&self, what: &str, done: impl Fn(&[Value]) -> bool) -> Result<()> {
        until(what, || Ok(done(&self.lines()?).then_some(())))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ignored = fs::remove_file(&self.lines).and_then(|()| fs::remove_file(&self.said));
    }
}

fn word<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn told(lines: &[Value]) -> Vec<u64> {
    let kills = lines.iter().filter(|line| word(line, "type") == "oom_kill");
    kills.filter_map(|line| at(line, "victim.pid")?.as_u64()).collect()
}

fn attached(start: &Value) -> String {
    let hooks = start.get("hooks").and_then(Value::as_array);
    let killer = hooks.into_iter().flatten().find(|hook| word(hook, "name") == "oom_kill_process");
    killer.map_or("none", |hook| word(hook, "attached")).to_owned()
}

/// The ids of all links that the kernel has.
fn links() -> Result<BTreeSet<u32>> {
    const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
    let mut links = BTreeSet::new();
    let mut attributes = [0_u32; 4];
    loop {
        // SAFETY: the attributes are alive through the call, which writes the second of them.
        let status = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_LINK_GET_NEXT_ID, &raw mut attributes, size_of_val(&attributes))
        };
        let [start, next, ..] = &mut attributes;
        if status != 0 {
            return Ok(links);
        }
        links.insert(*next);
        *start = *next;
    }
}

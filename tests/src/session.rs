//! One run: the tracer, the kernel log and the cgroups that all scenarios share, and the checks for every
//! scenario. Scenarios run one after another, because there is one log and one machine.

mod ending;
mod incidents;
mod logs;
mod setup;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cgroup::{Cgroup, Hierarchy, Place, Scratch, Version};
use crate::compare::{self, Expected, ExpectedTrigger, HostFacts};
use crate::counters;
use crate::hog::Hog;
use crate::kernel_log::{Chosen, KernelLog, LoggedKill, Reports};
use crate::patience::until;
use crate::process::ProcessFacts;
use crate::trace_event::TraceEvents;
use crate::tracer::{Hook, Line, Tracer};

pub use setup::{fired_limit, start_hog};
use setup::{protect, start_tracer};

/// How many reports the kernel writes before it suppresses further ones, minus one for a kill of somebody
/// else.
const REPORTS: usize = 9;
/// How long this limit lasts.
const REPORT_WINDOW: Duration = Duration::from_millis(5100);

/// A run.
#[derive(Debug)]
pub struct Session {
    tracer: Tracer,
    /// How the tracer was started.
    program: (PathBuf, Hook),
    log: KernelLog,
    events: Option<TraceEvents>,
    scratch: Scratch,
    /// The memory hierarchy.
    pub hierarchy: Hierarchy,
    host: HostFacts,
    hook: String,
    guest: bool,
    /// A tracer has died, so some lines are missing.
    restarted: bool,
    /// `oom_kill` of `/proc/vmstat` at the start.
    counted_before: u64,
    /// Lines that a scenario has claimed, by their index.
    claimed: BTreeSet<usize>,
    /// The ids of cgroups that may run out without a kill although no scenario asks for the line.
    unasked: BTreeSet<String>,
    /// Kills that were compared, of which no incident was compared yet.
    told: Vec<(Line, LoggedKill)>,
    /// Kills in the log when the last report window ended.
    window_from: usize,
    /// Kills in the log when the running scenario began.
    scenario_from: usize,
    /// Line read minus `time`, ns, of every kill checked.
    pub latencies_ns: Vec<i128>,
}

/// Whether scenarios that harm the machine may run. Only in a guest made for this, which says so twice.
pub fn is_guest() -> bool {
    let told = std::env::var_os("TEST_OOMTRACE_GUEST").is_some_and(|value| value == "1");
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    told && cmdline.split_whitespace().any(|word| word == "oomtrace.guest=1")
}

/// The switch of all function hooks: at 0 they attach but never run.
const FTRACE_ENABLED: &str = "/proc/sys/kernel/ftrace_enabled";

/// Whether an attached function hook also runs. Kprobes do not have this switch.
fn hooks_fire() -> bool {
    std::fs::read_to_string(FTRACE_ENABLED).map_or(true, |value| value.trim() != "0")
}

impl Session {
    /// Starts everything.
    pub fn start(binary: &Path, hook: Hook) -> Result<Self> {
        // SAFETY: takes nothing, cannot fail.
        ensure!(unsafe { libc::geteuid() } == 0, "real kills need root");
        let hierarchy = Hierarchy::find()?;
        let host = HostFacts::read()?;
        let guest = is_guest();
        protect(guest, true)?;
        let scratch = Scratch::make(&hierarchy)?;
        let log = KernelLog::follow()?;
        let events = TraceEvents::follow()?;
        let counted_before = counters::oom_kills()?;
        let tracer = start_tracer(binary, hook, guest)?;
        let session = Self {
            hook: if hooks_fire() { tracer.attached() } else { "none".to_owned() },
            program: (binary.to_owned(), hook),
            tracer,
            log,
            events,
            scratch,
            hierarchy,
            host,
            guest,
            restarted: false,
            counted_before,
            claimed: BTreeSet::new(),
            unasked: BTreeSet::new(),
            told: Vec::new(),
            window_from: 0,
            scenario_from: 0,
            latencies_ns: Vec::new(),
        };
        session.check_start_line()?;
        Ok(session)
    }

    fn check_start_line(&self) -> Result<()> {
        if !self.hierarchy.memory {
            return Ok(());
        }
        let line = self.tracer.start_line();
        let told = line.get("cgroup_version").and_then(serde_json::Value::as_str).unwrap_or_default();
        let unified = crate::cgroup::mount_of("cgroup2", "")?.is_some();
        let right = match self.hierarchy.version {
            Version::V2 => "v2",
            Version::V1 if unified => "hybrid",
            Version::V1 => "v1",
        };
        ensure!(told == right, "field cgroup_version: expected {right}, oomtrace {told}: {}", line.text);
        let sampler = self.tracer.attached_as("sample_cgroups");
        ensure!(sampler == "test_run", "not all memory cgroups can be read: {}", line.text);
        Ok(())
    }

    /// After this no function hook runs, whatever is attached. Returns false if this kernel refuses that.
    pub fn turn_hooks_off(&mut self) -> Result<bool> {
        ensure!(self.guest, "only in a guest");
        match std::fs::write(FTRACE_ENABLED, "0") {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EBUSY)) => {
                return Ok(false);
            }
            written => written.with_context(|| format!("write {FTRACE_ENABLED}"))?,
        }
        self.hook = "none".to_owned();
        Ok(true)
    }

    /// How the tracer reads the OOM killer's state: `fentry`, `kprobe`, `none`.
    pub fn hook(&self) -> &str {
        &self.hook
    }

    /// The program under test, and its `--hook`.
    pub fn program(&self) -> &(PathBuf, Hook) {
        &self.program
    }

    /// The cgroup that holds all others of this run.
    pub fn scratch(&self) -> &Cgroup {
        self.scratch.cgroup()
    }

    /// The program under test.
    pub fn tracer(&mut self) -> &mut Tracer {
        &mut self.tracer
    }

    /// The machine.
    pub fn host(&self) -> &HostFacts {
        &self.host
    }

    /// A new cgroup for a scenario.
    pub fn cgroup(&self, name: &[u8]) -> Result<Cgroup> {
        self.scratch().child(name)
    }

    /// A hog that has entered a cgroup and has a name.
    pub fn hog_in(&self, cgroup: &Cgroup, comm: &[u8]) -> Result<Hog> {
        let mut hog = self.hog(comm)?;
        hog.join(&cgroup.procs())?;
        Ok(hog)
    }

    /// A hog with a name in the cgroup of this process.
    pub fn hog(&self, comm: &[u8]) -> Result<Hog> {
        start_hog(self.guest, comm)
    }

    /// Whether this is a guest, where a hog must be allowed to be killed.
    pub fn guest(&self) -> bool {
        self.guest
    }

    /// Waits until the kernel will write a whole report again.
    pub fn wait_for_report_room(&mut self) -> Result<()> {
        let kills = self.log.look(|reports| reports.kills.len())?;
        if kills.saturating_sub(self.window_from) >= REPORTS {
            std::thread::sleep(REPORT_WINDOW);
            self.window_from = self.log.look(|reports| reports.kills.len())?;
        }
        Ok(())
    }

    /// Begins a scenario. If the tracer died in the last scenario, that scenario has failed, and a new tracer
    /// is started.
    pub fn begin(&mut self) -> Result<()> {
        if self.tracer.has_ended()? {
            let (binary, hook) = &self.program;
            self.tracer = start_tracer(binary, *hook, self.guest)?;
            self.claimed.clear();
            self.told.clear();
            self.restarted = true;
        }
        self.scenario_from = self.log.look(|reports| reports.kills.len())?;
        self.wait_for_report_room()
    }

    /// What the line of a kill by a cgroup's limit must contain, if the victim itself allocated. To be called
    /// after the kill.
    pub fn killed_by_limit(
        &self,
        victim: ProcessFacts,
        cgroup: &Cgroup,
        (fired, limit_bytes): (&Cgroup, u64),
        released_ns: i128,
    ) -> Result<Expected> {
        let fired = fired_limit(fired, limit_bytes)?;
        let mut expected = self.killed_by_host(victim, cgroup.place(), released_ns);
        expected.scope = "memcg";
        expected.fired = Some(fired);
        Ok(expected)
    }

    /// What the line of a kill must contain if the machine is full and the victim itself allocated.
    pub fn killed_by_host(&self, victim: ProcessFacts, cgroup: &Place, released_ns: i128) -> Expected {
        Expected {
            host: self.host.clone(),
            version: self.hierarchy.version,
            memory_cgroups: self.hierarchy.memory,
            hook: self.hook.clone(),
            trigger: ExpectedTrigger::Victim(victim.comm.clone()),
            victim,
            cgroup: cgroup.clone(),
            scope: "host",
            kill: "selected",
            fired: None,
            released_ns,
        }
    }

    /// Waits for the log and the line of each kill, compares them, and claims the lines. In the given order.
    pub fn check(&mut self, expected: &[Expected]) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut differences = Vec::new();
        let mut head = None;
        for expected in expected {
            let tid = expected.victim.tid;
            let mut logged = self.logged_kill(tid)?;
            if let Some(events) = &mut self.events {
                logged.marked = Some(events.of(tid)?.with_context(|| format!("no trace event of {tid}"))?);
            }
            // The report of a group kill names only the first victim.
            if expected.kill == "group" {
                logged.invoked = logged.invoked.or(head);
                head = logged.invoked.clone();
            }
            let line = self.line_of(tid, expected.released_ns)?;
            let found = expected.differences(&line, &logged);
            if !found.is_empty() {
                let found: Vec<String> = found.iter().map(ToString::to_string).collect();
                differences.push(format!("{}; the line: {}", found.join("; "), line.text));
            }
            self.told.push((line.clone(), logged));
            lines.push(line);
        }
        // The first of many kills are enough to find the cause.
        let (count, first) =
            (differences.len(), differences.iter().take(3).cloned().collect::<Vec<_>>().join("\n"));
        ensure!(
            count == 0,
            "{}{first}",
            if count > 1 { format!("{count} lines differ; ") } else { String::new() }
        );
        Ok(lines)
    }

    /// The log of a thread's kill in this scenario. If a group kill logs it twice, the first one.
    pub fn logged_kill(&self, tid: u32) -> Result<LoggedKill> {
        let from = self.scenario_from;
        self.wait_for_log(&format!("\"Killed process {tid}\" in the kernel log"), |reports| {
            reports.kills.get(from..)?.iter().find(|kill| kill.killed.tid == tid).cloned()
        })
    }

    /// Hogs killed in this scenario, from the log: their names begin with `hog-`. Another suite may have hogs too; if
    /// the kernel reported where, it was in a cgroup of this one. A process that was logged twice is returned twice.
    pub fn logged_tids(&self) -> Result<Vec<u32>> {
        let (from, ours) = (self.scenario_from, &self.scratch().place().path);
        let is_here = |chosen: &Chosen| chosen.place.windows(ours.len()).any(|part| part == ours.as_slice());
        self.log.look(|reports| {
            let hogs = reports.kills.iter().skip(from).filter(|kill| kill.killed.comm.starts_with(b"hog-"));
            let here = hogs.filter(|kill| kill.chosen.as_ref().is_none_or(is_here));
            here.map(|kill| kill.killed.tid).collect()
        })
    }

    /// Waits until `find` finds something in the log.
    pub fn wait_for_log<T>(&self, what: &str, find: impl Fn(&Reports) -> Option<T>) -> Result<T> {
        until(what, || self.log.look(&find))
    }

    /// Waits for the `oom_kill` line of a thread, and claims it.
    pub fn line_of(&mut self, tid: u32, since_ns: i128) -> Result<Line> {
        let line = self.claim(&format!("a line for the kill of {tid}"), |line| {
            line.kind() == "oom_kill"
                && line.number("victim.tid") == Some(tid.into())
                && line.read_at_ns >= since_ns
        })?;
        if let Some(time) = line.get("time").and_then(serde_json::Value::as_str).and_then(compare::moment) {
            self.latencies_ns.push(line.read_at_ns - time);
        }
        Ok(line)
    }

    /// Waits for a line that was not claimed yet, and claims it.
    pub fn claim(&mut self, what: &str, wanted: impl Fn(&Line) -> bool) -> Result<Line> {
        let claimed = &self.claimed;
        let (place, line) = self.tracer.wait_for(what, |lines| {
            let free = |(place, _): &(usize, &Line)| !claimed.contains(place);
            let mut events = lines.iter().enumerate().filter(|(_, line)| line.is_event()).filter(free);
            events.find(|(_, line)| wanted(line)).map(|(place, line)| (place, line.clone()))
        })?;
        self.claimed.insert(place);
        Ok(line)
    }

    /// After this the cgroup may run out without a kill. These lines need no claim, and they may be late.
    pub fn may_run_out_unasked(&mut self, cgroup: &Cgroup) {
        self.unasked.insert(cgroup.place().id.to_string());
    }
}

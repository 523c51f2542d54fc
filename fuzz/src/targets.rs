//! The targets of the inputs, and what must hold for each besides that nothing panics.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oomtrace::accounting::Account;
use oomtrace::cgroups::tree::{CgroupTree, Seen, TreeLimits};
use oomtrace::commands::log;
use oomtrace::containers::discover::StateDirs;
use oomtrace::containers::files::StateDir;
use oomtrace::containers::{Runtime, Runtimes, Texts, docker, oci, podman, unit};
use oomtrace::enrich::enricher::{Enricher, HookState, Knowledge, LogOrigin, RunFacts};
use oomtrace::event::{CgroupVersion, Event, Host};
use oomtrace::facts::kernel_log::LoggedKill;
use oomtrace::facts::kernel_log::{Lines, OomLine, RunReports};
use oomtrace::facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId, OomControlLayout};
use oomtrace::filter::Filter;
use oomtrace::host::clock::ClockOffset;
use oomtrace::host::process::{CommandLineChoice, Reason};
use oomtrace::host::root::Root;
use oomtrace::kernel::btf::Btf;
use oomtrace::kernel::gfp::GfpNames;
use oomtrace::kernel::layout;
use oomtrace::outputs::encode::{MAX_LINE_BYTES, Render, text::Palette};
use oomtrace::outputs::transport::{Sink, SinkError, Wait};
use oomtrace::outputs::{Durable, Outputs};
use oomtrace::recorded::{Recorded, Twice};
use oomtrace::run::reporter::Reporter;
use oomtrace::sources::earlier_kills::kills_of;
use oomtrace::sources::saved_log::{SavedKill, SavedLog};
use oomtrace::sources::{Next, kills::Records};
use oomtrace_common::layout::KernelLayout;

/// A parser of bytes from outside.
pub struct Target {
    /// Its name, and its directory in the corpus.
    pub name: &'static str,
    /// Its share of all inputs. Targets that read files are slower.
    pub share: u64,
    /// Makes the target for one batch, with a directory of its own.
    pub make: fn(&Path) -> Result<Check>,
}

/// Takes one input.
pub type Check = Box<dyn FnMut(&[u8])>;

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target { name: "record", share: 25, make: record },
    Target { name: "btf", share: 10, make: btf },
    Target { name: "kmsg", share: 15, make: kmsg },
    Target { name: "saved-log", share: 10, make: saved_log },
    Target { name: "recorded", share: 5, make: recorded },
    Target { name: "cgroup", share: 15, make: cgroup },
    Target { name: "docker", share: 5, make: docker_files },
    Target { name: "oci", share: 5, make: oci_files },
    Target { name: "podman", share: 3, make: podman_files },
    Target { name: "config", share: 2, make: config },
    Target { name: "flags", share: 5, make: flags },
];

/// An id of the form that Docker and Podman use.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Where `struct oom_control` has its members on most kernels.
const OOM_CONTROL: KernelLayout = KernelLayout {
    oc_zonelist: 0,
    oc_nodemask: 8,
    oc_memcg: 16,
    oc_gfp_mask: 24,
    oc_order: 28,
    oc_totalpages: 32,
    oc_chosen: 40,
    oc_chosen_points: 48,
    oc_constraint: 56,
    oc_size: 64,
    ..KernelLayout::UNKNOWN
};

fn knowledge(root: Root) -> Knowledge {
    Knowledge {
        tree: CgroupTree::new(Runtimes::discover(root.clone(), &[]), TreeLimits::default()),
        root: Some(root),
        processes: Err(Reason::NotRead),
        command_line: CommandLineChoice::Full,
        log: None,
        oom_control: OomControlLayout::of(&OOM_CONTROL),
        gfp: None,
        version: CgroupVersion::V2,
        clock: Some(ClockOffset::default()),
        hooks: HookState::None,
        run: RunFacts {
            host: Host { name: Some("fuzz".into()), boot_id: None, kernel: Some("fuzz".into()) },
            tags: BTreeMap::new(),
            instance: "fuzz".into(),
            stream: "fuzz".into(),
        },
    }
}

/// Checks that each line is one JSON object of the contract, and short enough for a pipe.
struct OneLineEach;

impl Sink for OneLineEach {
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError> {
        check_line(line);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn waits_for(&self) -> Option<Wait<'_>> {
        None
    }

    fn waiting_lines(&self) -> usize {
        0
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn check_line(line: &[u8]) {
    assert!(line.len() <= MAX_LINE_BYTES, "a line of {} bytes", line.len());
    assert!(line.iter().position(|byte| *byte < b' ') == Some(line.len() - 1), "not one line");
    let read: Result<Event, _> = serde_json::from_slice(line);
    assert!(read.is_ok(), "{:?}: {}", read.err(), String::from_utf8_lossy(line));
}

fn record(dir: &Path) -> Result<Check> {
    let mut enricher = Enricher::new(knowledge(Root::at(dir)));
    let mut account = Account::new(None, false);
    let records = Records::new(4096, None);
    let outputs = Outputs::new(Durable::new(Render::Json, Box::new(OneLineEach)), Vec::new());
    let mut reporter = Reporter::new(Filter::default(), outputs);
    Ok(Box::new(move |bytes| {
        records.cgroup(bytes, &mut enricher);
        if let Next::Event(event) = records.event(bytes, None, &mut enricher, &mut account) {
            // The sink refuses no line.
            assert!(reporter.report(&event, &mut account).is_ok());
        }
    }))
}

fn btf(_: &Path) -> Result<Check> {
    Ok(Box::new(|bytes| {
        if let Ok(btf) = Btf::parse(bytes.to_vec()) {
            let _found_or_not = layout::resolve(&btf, Some(4));
            let _names = btf.enumeration_with("A");
            for name in ["task_struct", "mm_struct", "mem_cgroup", "f"] {
                let _size = btf.structure(name).and_then(|id| btf.size(id));
                let _member = btf.structure(name).and_then(|id| btf.member(id, "comm"));
                let _parameters = btf.function(name).and_then(|id| btf.parameters(id));
            }
        }
    }))
}

/// An empty line separates the records.
fn kmsg(dir: &Path) -> Result<Check> {
    let mut enricher = Enricher::new(knowledge(Root::at(dir)));
    let mut line = Vec::new();
    Ok(Box::new(move |bytes| {
        let mut reports = RunReports::new(4096);
        bytes.split(|byte| *byte == b'\n').for_each(|raw| reports.push(raw));
        while reports.take(|_| true).is_some() {}
        let mut lines = Lines::default();
        let found: Vec<_> = bytes.split(|byte| *byte == b'\n').filter_map(|raw| lines.push(raw)).collect();
        let killed = found.iter().filter(|(_, line)| matches!(line, OomLine::Killed(_))).count();
        for (_, line) in &found {
            if let OomLine::Chosen(chosen) = line
                && let Some(split) = chosen.split()
            {
                // If a line can be split, splitting it with its own parts gives the same result.
                assert_eq!(chosen.split_with(&split.task_memcg), Some(split));
            }
        }
        let kills: Vec<LoggedKill> =
            kills_of(found.into_iter().map(|line| Ok(Some(line)))).into_iter().flatten().collect();
        assert!(kills.len() <= killed, "{} kills of {killed} lines", kills.len());
        for kill in kills {
            let event = Event::OomKill(Box::new(enricher.logged_kill(&kill, &LogOrigin::BeforeStart)));
            assert!(Render::Json.line(&event, &mut line).is_ok());
            check_line(&line);
        }
    }))
}

/// Saved logs, and everything that `oomtrace log` makes from them.
fn saved_log(dir: &Path) -> Result<Check> {
    let mut enricher = Enricher::new(knowledge(Root::at(dir)));
    let mut line = Vec::new();
    Ok(Box::new(move |bytes| {
        let mut kills = 0;
        // Reading from memory cannot fail.
        for SavedKill { kill, stamp, host } in SavedLog::new(bytes, 1_800_000_000_000_000_000).flatten() {
            kills += 1;
            let origin = log::origin(stamp, host);
            let event = Event::OomKill(Box::new(enricher.logged_kill(&kill, &origin)));
            assert!(Render::Json.line(&event, &mut line).is_ok());
            check_line(&line);
            assert!(Render::Text(Palette::default()).line(&event, &mut line).is_ok());
        }
        let said = bytes.windows(14).filter(|window| *window == b"Killed process").count();
        // A journal in JSON may escape each letter.
        assert!(kills <= said || bytes.contains(&b'\\'), "{kills} kills of {said} lines");
    }))
}

/// Lines that a run wrote, whole or not: what is understood is written again as one line, and as text.
fn recorded(_: &Path) -> Result<Check> {
    let mut line = Vec::new();
    let mut twice = Twice::default();
    Ok(Box::new(move |bytes| {
        for recorded in bytes.split(|byte| *byte == b'\n').filter_map(Recorded::of) {
            let _again = twice.is_again(&recorded.head);
            let Some(event) = recorded.event() else { continue };
            assert_eq!(event.kind(), recorded.head.r#type);
            assert!(Render::Json.line(&event, &mut line).is_ok());
            assert!(line.len() <= MAX_LINE_BYTES, "a line of {} bytes", line.len());
            assert!(Render::Text(Palette::default()).line(&event, &mut line).is_ok());
        }
    }))
}

fn cgroup(dir: &Path) -> Result<Check> {
    let runtimes = Runtimes::discover(Root::at(dir), &[]);
    let mut tree = CgroupTree::new(runtimes, TreeLimits { live: 256, dead: 64, ..TreeLimits::default() });
    let mut now = 0;
    Ok(Box::new(move |bytes| {
        for path in bytes.split(|byte| *byte == b'\n') {
            now += 1;
            let id = CgroupId(u64::try_from(path.len() % 32).unwrap_or_default());
            let kind = match path.len() % 5 {
                0 => CgroupChangeKind::Removed,
                1 => CgroupChangeKind::Renamed,
                _ => CgroupChangeKind::Made,
            };
            tree.apply(&CgroupChange { time: BootTime(now), id, kind, path: path.to_vec() });
            let names: Vec<&[u8]> =
                path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
            let _unit = unit::innermost(&names);
            let whole = path.len() % 3 != 0;
            let seen = tree.identify(Seen { ids: &[id], path, path_is_whole: whole }, BootTime(now));
            assert!(
                seen.container.is_none_or(|container| !container.id.is_empty()),
                "a container without an id"
            );
        }
        while tree.resolve_next() {}
        let (live, dead) = tree.counts();
        assert!(live <= 256 + 64 && dead <= 256 + 64, "{live} live, {dead} dead");
    }))
}

/// A file below `dir` to which each input is written.
fn file(dir: &Path, below: &[&str]) -> Result<PathBuf> {
    let file = below.iter().fold(dir.to_owned(), |path, name| path.join(name));
    let parent = file.parent().context("a file has a directory")?;
    fs::create_dir_all(parent)?;
    Ok(file)
}

fn docker_files(dir: &Path) -> Result<Check> {
    let config = file(dir, &["containers", ID, "config.v2.json"])?;
    let host = file(dir, &["containers", ID, "hostconfig.json"])?;
    let (dir, mut texts) = (StateDir::system(dir), Texts::default());
    Ok(Box::new(move |bytes| {
        if fs::write(&config, bytes).is_ok() && fs::write(&host, bytes).is_ok() {
            let _facts = docker::container(&dir, ID, &mut texts);
            let _cgroup = docker::runtime_cgroup(&dir, &[], ID, b"/docker/0123");
        }
    }))
}

fn oci_files(dir: &Path) -> Result<Check> {
    let containerd = file(dir, &["io.containerd.runtime.v2.task", "k8s.io", "name", "config.json"])?;
    let crio = file(dir, &["overlay-containers", ID, "userdata", "config.json"])?;
    let root = Root::at(dir);
    let (dir, mut texts) = (StateDir::system(dir), Texts::default());
    Ok(Box::new(move |bytes| {
        if fs::write(&containerd, bytes).is_ok() && fs::write(&crio, bytes).is_ok() {
            let _facts = oci::containerd(&root, &dir, (None, "name"), b"/kubepods/pod1/name", &mut texts);
            let _facts = oci::crio(&dir, ID, b"/kubepods/pod1/name", &mut texts);
        }
    }))
}

fn podman_files(dir: &Path) -> Result<Check> {
    let list = file(dir, &["overlay-containers", "containers.json"])?;
    let (dir, mut texts) = (StateDir::system(dir), Texts::default());
    Ok(Box::new(move |bytes| {
        if fs::write(&list, bytes).is_ok() {
            let _facts = podman::container(&dir, ID, &mut podman::Lists::default(), &mut texts);
        }
    }))
}

fn config(dir: &Path) -> Result<Check> {
    let files = [
        file(dir, &["etc", "docker", "daemon.json"])?,
        file(dir, &["etc", "containerd", "config.toml"])?,
        file(dir, &["etc", "containers", "storage.conf"])?,
        file(dir, &["run", "docker.pid"])?,
    ];
    let root = Root::at(dir);
    Ok(Box::new(move |bytes| {
        if files.iter().all(|file| fs::write(file, bytes).is_ok()) {
            let extra = [(Runtime::Docker, PathBuf::from("/x"))];
            assert!(
                !StateDirs::configured(&root, &extra).docker.is_empty(),
                "the operator's directory is missing"
            );
        }
    }))
}

fn flags(_: &Path) -> Result<Check> {
    let bits = [("___GFP_DMA_BIT".to_owned(), 0), ("___GFP_IO_BIT".to_owned(), 6)];
    Ok(Box::new(move |bytes| {
        if let Some(names) = GfpNames::from_format(&String::from_utf8_lossy(bytes), &bits) {
            assert!(!names.names(0xcc0).is_empty());
        }
    }))
}

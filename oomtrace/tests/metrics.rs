//! Metrics: lines in, Prometheus's text out; what one run keeps for the next; and that no name makes too many series.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "no line is printed here")]
mod samples;

use std::{cell::RefCell, rc::Rc};

use oomtrace::{
    event::*,
    facts::RingFill,
    outputs::{
        BestEffort, Condition,
        metrics::{BYTES, Metrics, Store, Value, places},
    },
};
use samples::{envelope, oom_kill, oom_kill_in_a_pod};

const FULL: Condition = Condition { blocked: false, ring: Some(RingFill { used: 1024, size: 512 << 10 }) };

fn page(metrics: &Metrics) -> String {
    metrics.page(&FULL)
}

/// The value of a series, by its name and labels; `None` if there is no such series.
fn value(metrics: &Metrics, series: &str) -> Option<u64> {
    let page = page(metrics);
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = lines.next().map(|value| value.parse().unwrap());
    assert_eq!(lines.next(), None, "{series} is there twice");
    value
}

fn kill(seq: u64) -> Event {
    let mut kill = oom_kill();
    kill.envelope.seq = Some(seq);
    Event::OomKill(Box::new(kill))
}

/// In a container of this name; a user's own if there is one.
fn kill_in(seq: u64, name: &str, user: Option<u32>) -> Event {
    let mut kill = oom_kill();
    kill.envelope.seq = Some(seq);
    let container = kill.container.as_mut().unwrap();
    (container.name, container.runtime.user) = (Some(name.into()), user);
    Event::OomKill(Box::new(kill))
}

fn lost(reason: LossReason, count: u64, total: u64) -> Event {
    Event::Lost(Box::new(Lost { reason, count, total, ..samples::lost() }))
}

#[test]
fn the_page_of_the_docs() {
    let mut metrics = Metrics::new(512);
    for (seq, (_, mut event)) in (1..).zip(samples::all()) {
        if let Event::OomKill(kill) = &mut event {
            kill.envelope.seq = Some(seq);
        }
        metrics.take(&event);
    }
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/prometheus/example.prom");
    let page = page(&metrics);
    if std::env::var_os("TEST_OOMTRACE_WRITE_DOCS").is_some() {
        std::fs::write(docs, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(docs).unwrap(), page, "TEST_OOMTRACE_WRITE_DOCS=1 writes it");
}

#[test]
fn totals_are_there_at_zero_before_anything_happened() {
    let metrics = Metrics::new(512);
    for scope in ["memcg", "host", "cpuset", "mempolicy", "unknown"] {
        assert_eq!(value(&metrics, &format!("oomtrace_kills_total{{scope=\"{scope}\"}}")), Some(0));
    }
    for reason in LossReason::ALL {
        let series = format!("oomtrace_lost_events_total{{reason=\"{}\"}}", reason.word());
        assert_eq!(value(&metrics, &series), Some(0));
    }
    assert_eq!(value(&metrics, "oomtrace_unreported_kills_total"), Some(0));
    assert!(!page(&metrics).contains("process_"), "node_exporter has these names itself");
}

#[test]
fn every_reason_of_the_schema_has_a_series() {
    let schema = schema::schema().to_string();
    let words: Vec<String> = LossReason::ALL.iter().map(|reason| reason.word()).collect();
    let at = schema.find("\"LossReason\"").unwrap();
    let end = at + schema[at..].find("\"Lost\"").unwrap_or(schema.len() - at);
    let in_schema = schema[at..end].matches("\"const\":\"").count();
    assert_eq!(in_schema, words.len());
    assert!(words.iter().all(|word| schema[at..end].contains(&format!("\"const\":\"{word}\""))));
}

#[test]
fn what_is_no_kill_of_this_run_is_not_counted() {
    let mut metrics = Metrics::new(512);
    let mut exiting = oom_kill();
    exiting.oom.kill = Some(Kill::AlreadyExiting);
    metrics.take(&Event::OomKill(Box::new(exiting)));
    let mut earlier = oom_kill();
    (earlier.envelope.origin, earlier.envelope.seq) = (Origin::Kmsg, None);
    metrics.take(&Event::OomKill(Box::new(earlier)));
    assert_eq!(value(&metrics, "oomtrace_kills_total{scope=\"memcg\"}"), Some(0));
    assert!(!page(&metrics).contains("api-service"));
}

#[test]
fn labels_are_those_of_kube_state_metrics() {
    let mut metrics = Metrics::new(512);
    metrics.take(&Event::OomKill(Box::new(oom_kill_in_a_pod())));
    let pod = "oomtrace_container_kills_total{runtime=\"containerd\",namespace=\"shop\",pod=\"api-7d9f\",container=\"api\"}";
    assert_eq!(value(&metrics, pod), Some(1));
    // Outside of containers, by unit; and outside of both.
    let mut unit = oom_kill();
    unit.envelope.seq = Some(43);
    unit.container = None;
    unit.systemd = Some(Systemd { unit: "db.service".into(), user: None });
    metrics.take(&Event::OomKill(Box::new(unit.clone())));
    assert_eq!(value(&metrics, "oomtrace_container_kills_total{unit=\"db.service\"}"), Some(1));
    (unit.systemd, unit.envelope.seq) = (None, Some(44));
    metrics.take(&Event::OomKill(Box::new(unit)));
    assert_eq!(value(&metrics, "oomtrace_container_kills_total{container=\"_none\"}"), Some(1));
}

#[test]
fn no_name_breaks_the_format_or_grows_without_a_bound() {
    let mut metrics = Metrics::new(512);
    metrics.take(&kill_in(1, "a\"b\\c\nd\u{1b}[31m\u{2028}é", None));
    metrics.take(&kill_in(2, &"x".repeat(100_000), None));
    let page = page(&metrics);
    assert!(page.contains("container=\"a\\\"b\\\\c\u{fffd}d\u{fffd}[31m\u{fffd}é\""), "{page}");
    assert!(page.len() < 16 << 10, "{}", page.len());
    assert!(page.lines().all(|line| !line.contains(|char: char| char.is_control())));
}

#[test]
fn users_and_hosts_series_are_bounded_each() {
    let mut metrics = Metrics::new(64);
    for seq in 1..=500 {
        metrics.take(&kill_in(seq, &format!("hers-{seq}"), Some(1000)));
    }
    let count =
        |metrics: &Metrics, with: &str| page(metrics).lines().filter(|line| line.contains(with)).count();
    // A quarter of a quarter.
    assert_eq!(count(&metrics, "1000/hers-"), 4);
    assert_eq!(value(&metrics, "oomtrace_container_kills_total{container=\"_other\"}"), Some(496));
    for seq in 501..=548 {
        metrics.take(&kill_in(seq, &format!("own-{seq}"), None));
    }
    assert_eq!(count(&metrics, "own-"), 48);
    metrics.take(&kill_in(549, "one-more", None));
    assert_eq!(count(&metrics, "one-more"), 0, "no series makes room within an hour of its kill");
    assert_eq!(value(&metrics, "oomtrace_container_kills_total{container=\"_other\"}"), Some(497));
    // A scope of a login has a new name each time.
    for seq in 550..=560 {
        let mut kill = oom_kill();
        (kill.envelope.seq, kill.container) = (Some(seq), None);
        kill.victim.cgroup.path = Some(format!("/user.slice/user-1001.slice/session-{seq}.scope"));
        kill.systemd = Some(Systemd { unit: format!("session-{seq}.scope"), user: None });
        metrics.take(&Event::OomKill(Box::new(kill)));
    }
    assert_eq!(count(&metrics, "session-"), 4);
    assert_eq!(value(&metrics, "oomtrace_kills_total{scope=\"memcg\"}"), Some(560));
}

#[test]
fn a_loss_that_is_reported_twice_is_counted_once() {
    let mut metrics = Metrics::new(16);
    let ring_full = "oomtrace_lost_events_total{reason=\"ring_full\"}";
    metrics.take(&lost(LossReason::RingFull, 3, 3));
    metrics.take(&lost(LossReason::RingFull, 3, 3));
    metrics.take(&lost(LossReason::RingFull, 2, 5));
    assert_eq!(value(&metrics, ring_full), Some(5));
    // Other programs begin at 0.
    let stream = Some("0123456789abcdef0123456789abcdef".into());
    let envelope = Envelope { stream, ..envelope(Origin::Oomtrace, None) };
    let of_others = Lost { envelope, reason: LossReason::RingFull, count: 1, total: 1, ..samples::lost() };
    metrics.take(&Event::Lost(Box::new(of_others)));
    assert_eq!(value(&metrics, ring_full), Some(6));
}

/// Places that outlive the run.
#[derive(Clone)]
struct Places(Rc<RefCell<Vec<Value>>>);

impl Places {
    fn for_series(series: u16) -> Self {
        Self(Rc::new(RefCell::new(vec![[0; BYTES]; places(series)])))
    }
}

impl Store for Places {
    fn places(&self) -> usize {
        self.0.borrow().len()
    }

    fn get(&self, place: usize) -> Option<Value> {
        self.0.borrow().get(place).copied()
    }

    fn put(&mut self, place: usize, value: &Value) -> Result<(), String> {
        self.0.borrow_mut()[place] = *value;
        Ok(())
    }
}

#[test]
fn the_next_run_goes_on_and_counts_nothing_twice() {
    let store = Places::for_series(16);
    let mut first = Metrics::new(16).kept_in(Box::new(store.clone()));
    first.take(&kill_in(1, "a", None));
    first.take(&kill_in(2, "b", None));
    first.take(&lost(LossReason::Sink, 4, 4));
    first.hand_over();
    // Killed before it was handed over: the record of this one is still there.
    first.take(&kill_in(3, "a", None));
    let mut next = Metrics::new(16).kept_in(Box::new(store.clone()));
    for again in [kill_in(2, "b", None), kill_in(3, "a", None)] {
        next.take(&again);
    }
    next.take(&lost(LossReason::Sink, 4, 4));
    let series =
        |name: &str| format!("oomtrace_container_kills_total{{runtime=\"docker\",container=\"{name}\"}}");
    assert_eq!(value(&next, &series("a")), Some(2));
    assert_eq!(value(&next, &series("b")), Some(1));
    assert_eq!(value(&next, "oomtrace_kills_total{scope=\"memcg\"}"), Some(3));
    assert_eq!(value(&next, "oomtrace_lost_events_total{reason=\"sink\"}"), Some(4));
    let time = |metrics: &Metrics| {
        page(metrics).lines().find(|line| line.starts_with("oomtrace_last_kill")).map(str::to_owned)
    };
    assert_eq!(time(&next), time(&first));
}

#[test]
fn hosts_that_ran_out_and_victims_that_stay_are_counted_from_zero_and_by_the_next_run() {
    let store = Places::for_series(16);
    let mut first = Metrics::new(16).kept_in(Box::new(store.clone()));
    let counts = |metrics: &Metrics| {
        let victims = ["largest", "other", "unknown"].map(|victim| {
            value(metrics, &format!("oomtrace_host_ooms_total{{victim=\"{victim}\"}}")).unwrap()
        });
        let late = ["5s", "60s"].map(|after| {
            value(metrics, &format!("oomtrace_stuck_victims_total{{after=\"{after}\"}}")).unwrap()
        });
        (victims, late)
    };
    assert_eq!(counts(&first), ([0; 3], [0; 2]));
    for killed_largest in [Some(true), Some(false), Some(false), None] {
        let host = HostMemory { killed_largest, ..samples::host_memory() };
        first.take(&Event::HostMemory(Box::new(host)));
    }
    for (after_ns, still_there) in [(5_003_218_441, 3), (60_001_000_000, 1)] {
        let stuck = Stuck { after_ns, still_there, ..samples::stuck() };
        first.take(&Event::Stuck(Box::new(stuck)));
    }
    assert_eq!(counts(&first), ([1, 2, 1], [3, 1]));
    first.hand_over();
    let next = Metrics::new(16).kept_in(Box::new(store));
    assert_eq!(counts(&next), ([1, 2, 1], [3, 1]));
}

#[test]
fn what_another_version_kept_is_not_taken() {
    let store = Places::for_series(16);
    store.0.borrow_mut().iter_mut().for_each(|value| value.fill(0xff));
    let metrics = Metrics::new(16).kept_in(Box::new(store));
    assert_eq!(page(&metrics), page(&Metrics::new(16)));
}

#[test]
fn hooks_that_do_not_run_are_not_attached() {
    let mut metrics = Metrics::new(16);
    let hook = |name: &str, attached: &str| HookStatus {
        name: name.into(),
        attached: attached.into(),
        reason: None,
    };
    let hooks = vec![hook("mark_victim", "raw_tracepoint"), hook("oom_kill_process", "fentry")];
    metrics.take(&Event::Start(Box::new(Start { hooks, ..samples::start() })));
    let fentry = "oomtrace_hook_attached{hook=\"oom_kill_process\",kind=\"fentry\"}";
    let tracepoint = "oomtrace_hook_attached{hook=\"mark_victim\",kind=\"raw_tracepoint\"}";
    assert_eq!((value(&metrics, fentry), value(&metrics, tracepoint)), (Some(1), Some(1)));
    metrics.take(&Event::Hooks(Box::new(samples::hooks())));
    assert_eq!((value(&metrics, fentry), value(&metrics, tracepoint)), (Some(0), Some(1)));
}

#[test]
fn the_file_is_due_at_once_then_after_a_second_and_after_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("oomtrace.prom");
    let mut metrics = Metrics::new(16).to_file(path.clone()).unwrap();
    assert_eq!(metrics.due(), None);
    metrics.take(&kill(1));
    assert!(metrics.due().unwrap() <= std::time::Instant::now());
    metrics.write(&FULL);
    let seldom = metrics.due().unwrap();
    metrics.take(&kill(2));
    assert_eq!(seldom - metrics.due().unwrap(), std::time::Duration::from_secs(59));
    metrics.end(&FULL);
    let text = page(&metrics);
    drop(metrics);
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}

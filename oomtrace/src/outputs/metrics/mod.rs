//! Metrics for Prometheus: counts events and writes pages in the text format, to a file for node_exporter and
//! to HTTP clients.
//!
//! Only reported events are counted, so the filters of the run apply. Names that a process, a container or a
//! user can choose make only a limited number of series (workloads.rs).

mod endpoint;
mod file;
mod kept;
mod near;
mod page;
mod totals;
mod workloads;

use std::{
    fmt, io,
    os::fd::BorrowedFd,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use endpoint::Endpoint;
use file::Writer;
use near::NearLimits;
use page::{gauge, label_value};
use totals::Totals;
use workloads::Workloads;

pub use endpoint::Address;
pub use kept::{BYTES, Store, Value};

use crate::{
    event::{Event, HookStatus, HooksState},
    outputs::{BestEffort, Condition},
    stderr::say,
};

/// The shortest time between two writes of the file.
const OFTEN: Duration = Duration::from_secs(1);
/// The longest time between two writes of the file: its age shows if the tracer is dead.
const SELDOM: Duration = Duration::from_secs(60);

/// The default number of workload series.
pub const SERIES: u16 = 512;

/// How many places the store needs for this many series.
pub fn places(series: u16) -> usize {
    usize::from(series) + workloads::FIRST_PLACE
}

/// Counts events and writes pages.
pub struct Metrics {
    totals: Totals,
    workloads: Workloads,
    near: NearLimits,
    version: String,
    hooks: Vec<HookStatus>,
    hooks_run: bool,
    file: Option<Writer>,
    endpoint: Option<Endpoint>,
    store: Option<Box<dyn Store>>,
    /// When the file was last written, and when it must be written next. It is not written before the first
    /// event, which says what is attached.
    written: Option<Instant>,
    due: Option<Instant>,
    /// Something changed since it was written.
    news: bool,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Starts at zero. At most `series` workloads get their own series.
    pub fn new(series: u16) -> Self {
        Self {
            totals: Totals::default(),
            workloads: Workloads::new(usize::from(series)),
            near: NearLimits::default(),
            version: String::new(),
            hooks: Vec::new(),
            hooks_run: true,
            file: None,
            endpoint: None,
            store: None,
            written: None,
            due: None,
            news: false,
        }
    }

    /// Writes to this file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn to_file(self, path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: Some(Writer::start(path)?), ..self })
    }

    /// Serves at this address.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn listening(self, at: &Address) -> io::Result<Self> {
        Ok(Self { endpoint: Some(Endpoint::start(at)?), ..self })
    }

    /// Continues the counters in the store, and keeps new ones there.
    pub fn kept_in(mut self, store: Box<dyn Store>) -> Self {
        self.totals.resume(&*store);
        self.workloads.resume(&*store);
        self.store = Some(store);
        self
    }

    /// The file must be written soon.
    fn changed(&mut self) {
        self.news = true;
        if self.file.is_some() {
            let soon = self.written.and_then(|written| written.checked_add(OFTEN));
            self.due = Some(soon.unwrap_or_else(Instant::now));
        }
    }

    /// All series with their current values.
    pub fn page(&self, condition: &Condition) -> String {
        let mut out = String::with_capacity(8 << 10);
        let mut version = String::from("{version=\"");
        label_value(&self.version, &mut version);
        version.push_str("\"}");
        gauge(&mut out, "oomtrace_build_info", "The version that writes these.", [(version, 1)]);
        self.totals.write_kills(&mut out);
        page::head(
            &mut out,
            "oomtrace_container_kills_total",
            "The same by workload; those without a series of their own are in container=\"_other\".",
            "counter",
        );
        self.workloads.write("oomtrace_container_kills_total", &mut out);
        self.totals.write(&mut out);
        self.near.write(&mut out);
        let blocked = u64::from(condition.blocked);
        let help = "Whether the output takes no lines now, so that kills wait in the ring.";
        gauge(&mut out, "oomtrace_output_blocked", help, [(String::new(), blocked)]);
        if let Some(ring) = condition.ring {
            let help = "Bytes that wait in the ring of kills.";
            gauge(&mut out, "oomtrace_ring_used_bytes", help, [(String::new(), ring.used)]);
            let help = "Size of the ring of kills. What does not fit is lost.";
            gauge(&mut out, "oomtrace_ring_size_bytes", help, [(String::new(), ring.size)]);
        }
        let hooks = self.hooks.iter().map(|hook| {
            let runs = hook.attached != "none" && (self.hooks_run || !hook.is_on_function());
            let mut labels = String::from("{hook=\"");
            label_value(&hook.name, &mut labels);
            labels.push_str("\",kind=\"");
            label_value(&hook.attached, &mut labels);
            labels.push_str("\"}");
            (labels, u64::from(runs))
        });
        gauge(&mut out, "oomtrace_hook_attached", "Whether a kernel hook is attached and runs.", hooks);
        out
    }
}

impl BestEffort for Metrics {
    fn take(&mut self, event: &Event) {
        let envelope = event.envelope();
        let stream = envelope.stream.as_deref().and_then(|stream| u128::from_str_radix(stream, 16).ok());
        let number =
            workloads::Event { stream: stream.unwrap_or_default(), seq: envelope.seq.unwrap_or_default() };
        match event {
            Event::Start(start) => {
                self.version.clone_from(&start.version);
                self.hooks.clone_from(&start.hooks);
                self.hooks_run = true;
            }
            Event::Hooks(hooks) => self.hooks_run = hooks.state == HooksState::Running,
            _ => {}
        }
        self.near.saw(event);
        if self.totals.saw(event, number)
            && let Event::OomKill(kill) = event
        {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.workloads.saw(kill, number, now.as_secs());
        }
        self.changed();
    }

    fn blocked(&mut self) {
        self.changed();
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn write(&mut self, condition: &Condition) {
        let Some(file) = &self.file else { return };
        self.news = !file.write(self.page(condition));
        let now = Instant::now();
        self.written = Some(now);
        self.due = now.checked_add(if self.news { OFTEN } else { SELDOM });
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.endpoint.as_ref().map(Endpoint::descriptor)
    }

    fn answer(&mut self, condition: &Condition) {
        if let Some(endpoint) = self.endpoint.as_ref().filter(|endpoint| endpoint.is_asked()) {
            endpoint.answer(self.page(condition));
        }
    }

    fn hand_over(&mut self) {
        let Some(store) = &mut self.store else { return };
        // Workloads first: if the totals have an event, the workloads have it too.
        let kept = self.workloads.keep(&mut **store).and_then(|()| self.totals.keep(&mut **store));
        if let Err(why) = kept {
            say(&format!("oomtrace: counters are no longer kept for the next run: {why}"));
            self.store = None;
        }
    }

    fn end(&mut self, condition: &Condition) {
        // The thread may still have the last page.
        for _ in 0..10 {
            if !self.news || self.file.is_none() {
                return;
            }
            self.write(condition);
            if self.news {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

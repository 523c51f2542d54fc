//! One line for each run of the OOM killer, when its victims are gone: takes `oom_kill` events, returns an
//! `incident` event.
//!
//! - `watch`: the thread that waits for the victims, reads the kernel's log, and says when a run is complete.
//! - `victims`: waits for processes without asking for them again and again.
//! - `memory`: the files of the cgroup that ran out.
//! - `first_process`: whether the victim's container lives on.
//! - `evidence`: what the log and the files said, and why there is nothing.
//! - `told`: the event.
//! - `late`: victims that are still there when the run is complete, and what their `threads` do: a `stuck` event.
//!
//! An incident must not delay a kill: the event path adds a note to a queue and goes on. If the queue is full,
//! the kill is in no incident.

mod evidence;
mod first_process;
mod late;
mod memory;
mod room;
mod stuck;
mod threads;
mod told;
mod victims;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use evidence::Evidence;
use room::{NOTES_MAX, Room};
use rustix::event::{EventfdFlags, eventfd};
use stuck::StuckRun;
use told::Run;

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, LastVictim},
    event::Event,
    host::{identity, kernel_log::ReportLog, root::Root},
    sources::{Next, Source, history::Shared, host_memory::HostRuns},
};

/// The thread reads small files and parses lines. What it keeps is on the heap.
const STACK_BYTES: usize = 128 << 10;

/// A process that the OOM killer killed.
#[derive(Debug)]
enum Note {
    /// A victim.
    Victim { run: Box<Run>, victim: LastVictim, room: room::Part },
    /// A process that shares the memory of the victim `of`. It takes no room: the thread keeps few of them.
    Sharer { stream: Option<String>, of: u64, victim: LastVictim },
}

/// What became of a run.
#[derive(Debug)]
struct Ended {
    run: Box<Run>,
    evidence: Box<Evidence>,
    room: Vec<room::Part>,
}

/// What the thread sends.
#[derive(Debug)]
enum News {
    /// A run is complete.
    Ended(Ended),
    /// Victims are still there.
    Stuck(Box<StuckRun>, late::Found),
}

/// Incidents that are not complete yet.
#[derive(Debug)]
pub struct Incidents {
    /// Boxed: all places are made at the start, and most stay empty.
    notes: SyncSender<Box<Note>>,
    news: Receiver<News>,
    /// Becomes readable when a run is complete.
    wake: Arc<OwnedFd>,
    /// Wakes the thread.
    call: Arc<OwnedFd>,
    room: Room,
    /// How memory went before; `None` if that is not kept.
    history: Option<Shared>,
    hosts: HostRuns,
    /// The line of the host's memory, after that of its incident.
    host: Option<Event>,
}

/// The kernel log, or why it cannot be read.
type Log = Result<ReportLog, String>;

/// What the thread reads.
struct Host {
    root: Root,
    log: Log,
    /// Where the memory cgroups are mounted.
    mount: Option<PathBuf>,
    v1: bool,
    /// Whether a pid means the same process here as in the kernel.
    has_kernel_pids: bool,
}

impl Incidents {
    /// Starts the thread that watches. What cannot be read becomes a limit of the run.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        root: &Root,
        mount: Option<PathBuf>,
        v1: bool,
        (history, hosts): (Option<Shared>, HostRuns),
        limits: &mut Vec<String>,
    ) -> std::io::Result<Self> {
        let log = ReportLog::open(root, identity::page_bytes()).map_err(|error| error.to_string());
        if let Err(error) = &log {
            limits.push(format!(
                "the kernel log cannot be read ({error}): an incident line has no process table, and the memory of its cgroup only \
                 where the cgroup's file still had it"
            ));
        }
        let has_kernel_pids = identity::is_first_pid_namespace(root, "self");
        let host = Host { root: root.clone(), log, mount, v1, has_kernel_pids };
        let (notes, theirs) = sync_channel(NOTES_MAX);
        // The room of the victims bounds it: a run has one incident and is told twice as stuck.
        let (to, news) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let call = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let line = Line { notes: theirs, call: Arc::clone(&call), to, wake: Arc::clone(&wake) };
        std::thread::Builder::new()
            .name("oomtrace-end".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || watch::watch(&line, host))?;
        Ok(Self { notes, news, wake, call, room: Room::default(), history, hosts, host: None })
    }

    /// Sends a victim to the thread. Returns false if there is no room.
    fn victim(&mut self, run: Run, victim: LastVictim) -> bool {
        let Some(room) = self.room.take(&run.key(), run.bytes()) else { return false };
        let part = room.clone();
        let sent = self.send(Note::Victim { run: Box::new(run), victim, room });
        if !sent {
            self.room.give_back(&part);
        }
        sent
    }

    fn send(&self, note: Note) -> bool {
        let sent = self.notes.try_send(Box::new(note)).is_ok();
        // This fails only if the thread is woken already.
        let _ignored = rustix::io::write(&*self.call, &1u64.to_ne_bytes());
        sent
    }
}

impl Source for Incidents {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn learn(&mut self, _: &mut Enricher, _: &mut Account) -> bool {
        let _may_be_empty = rustix::io::read(&*self.wake, &mut [0; 8]);
        false
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        if let Some(host) = self.host.take() {
            return Next::Event(host);
        }
        let Ended { run, evidence, room } = match self.news.try_recv() {
            Ok(News::Ended(ended)) => ended,
            Ok(News::Stuck(run, found)) => {
                let envelope = enricher.own_envelope();
                return Next::Event(Event::Stuck(Box::new(run.told(found, envelope))));
            }
            Err(_) => return Next::Nothing,
        };
        room.iter().for_each(|part| self.room.give_back(part));
        let host = run.host(&evidence).and_then(|told| self.hosts.told(told, enricher));
        self.host = host.map(|host| Event::HostMemory(Box::new(host)));
        Next::Event(Event::Incident(Box::new(run.told(*evidence, enricher.own_envelope()))))
    }

    fn saw(&mut self, event: &Event, _: bool, enricher: &Enricher, account: &mut Account) {
        let victim = enricher.last_victim();
        let sent = match event {
            Event::OomKill(kill) if kill.is_live_kill() => {
                let history = self.history.as_ref();
                let past = history.map(|history| history.borrow_mut().killed(kill, enricher));
                let run = Run::of(kill, enricher.tree());
                self.victim(past.into_iter().fold(run, Run::with), victim)
            }
            Event::SharedMmKill(kill) => {
                let Some(of) = kill.of.first().copied() else { return };
                self.send(Note::Sharer { stream: kill.envelope.stream.clone(), of, victim })
            }
            _ => return,
        };
        if !sent {
            account.no_incident();
        }
    }
}

/// How the thread and the loop talk.
struct Line {
    notes: Receiver<Box<Note>>,
    call: Arc<OwnedFd>,
    to: Sender<News>,
    wake: Arc<OwnedFd>,
}

impl Line {
    /// Sends what became of a run. Returns false if the receiver is gone.
    fn send(&self, news: News) -> bool {
        let sent = self.to.send(news).is_ok();
        // This fails only if the reader is woken already.
        let _ignored = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        sent
    }
}

//! What a container's runtime says about a kill, some seconds later: takes an `oom_kill` event, returns a
//! `verdict` event. A verdict is evidence about the runtime, never about the kill.
//!
//! - `state`: reads the runtimes' files and, if these do not answer, asks the runtimes.
//! - `api`: asks a daemon.
//! - `program`: runs a program and reads its answer.
//! - `watch`: decides when. Its thread sleeps while there is nothing to ask.
//! - `shares`: how much of the queue one container or one user can take.
//!
//! Verdicts must not delay a kill: the event path adds a note to a queue and goes on. If the queue is full,
//! the kill gets no verdict.

mod api;
mod program;
mod shares;
mod state;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{EventfdFlags, eventfd};
use shares::{Killed, Waiting, key};

use crate::{
    accounting::Account,
    cgroups::tree::CgroupTree,
    containers::{Runtime, discover::StateDirs},
    enrich::enricher::Enricher,
    event::{
        Absence, Container, Envelope, Event, Kill, Missing, OomKill, Origin, Reason, RuntimeSays, Verdict,
        Why, name_of_user,
    },
    host::root::Root,
    sources::{Next, Source},
};

/// The most containers below the cgroup whose limit fired that are checked.
const BYSTANDERS_MAX: usize = 64;
/// The thread reads files of up to a megabyte, but these are on the heap.
const STACK_BYTES: usize = 256 << 10;

/// A kill that needs a verdict.
#[derive(Debug)]
struct Note {
    of: u64,
    /// Names the programs that count `of`.
    stream: Option<String>,
    /// The time of the kill, in nanoseconds since 1970.
    time_ns: i128,
    runtime: Runtime,
    container: Container,
    /// Other containers below the cgroup whose limit fired.
    bystanders: Vec<Bystander>,
    dirs: Arc<StateDirs>,
    root: Root,
    /// The size of this note in bytes.
    bytes: usize,
}

/// Another container.
#[derive(Clone, Debug)]
struct Bystander {
    runtime: Runtime,
    id: String,
    name: String,
    /// The user, if the runtime is a user's own.
    user: Option<u32>,
}

impl Bystander {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.name.len()
    }
}

/// Why there is no statement of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// The runtime does not know the container any more, so it will never show the kill.
    Gone,
    /// The runtime's state could not be read, so it is not known whether it shows the kill.
    Unknown(String),
}

/// What a runtime says about a kill.
#[derive(Debug)]
pub struct Answer {
    /// The `seq` of the kill.
    pub of: u64,
    /// Names the programs that count this `seq`.
    pub stream: Option<String>,
    /// The container.
    pub container: Container,
    /// The runtime's view, or why there is none.
    pub says: Result<RuntimeSays, Unsaid>,
    /// Bystanders that are flagged now and were not before the kill.
    flagged: Vec<Bystander>,
    /// The size of the note in bytes.
    bytes: usize,
}

impl Answer {
    /// True if the runtime does not show an OOM kill; `None` if that is not known.
    pub fn missed(&self) -> Option<bool> {
        match &self.says {
            Ok(says) => says.oom_killed.map(|shown| !shown),
            Err(Unsaid::Gone) => Some(true),
            Err(Unsaid::Unknown(_)) => None,
        }
    }

    /// Why the runtime says nothing.
    pub fn missing(&self) -> Missing {
        match &self.says {
            Ok(_) => Missing::new(),
            Err(Unsaid::Gone) => {
                vec![Absence::new("runtime_says", Reason::ContainerGone)]
            }
            Err(Unsaid::Unknown(why)) => {
                let why = Why::with(Reason::RuntimeUnreadable, why.clone());
                vec![Absence::new("missed", Reason::RuntimeUnreadable), Absence::new("runtime_says", why)]
            }
        }
    }
}

/// Verdicts that are not there yet.
#[derive(Debug)]
pub struct Verdicts {
    notes: Sender<Box<Note>>,
    answers: Receiver<Box<Answer>>,
    /// Becomes readable when there is an answer.
    wake: Arc<OwnedFd>,
    /// Notes without an answer yet.
    waiting: Waiting,
    killed: Killed,
}

impl Verdicts {
    /// Starts the thread that asks.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start() -> std::io::Result<Self> {
        // What is waited for is bounded, so both queues are.
        let (notes, theirs) = channel();
        let (to, answers) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let answer = Answers { to, wake: Arc::clone(&wake) };
        std::thread::Builder::new()
            .name("oomtrace-verdict".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || watch::watch(&theirs, &answer))?;
        Ok(Self { notes, answers, wake, waiting: Waiting::default(), killed: Killed::default() })
    }

    /// Remembers that this container had a kill, so that it is not called a false positive.
    fn remember(&mut self, kill: &OomKill) {
        let Some(container) = kill.container.as_ref().filter(|_| was_made(kill)) else { return };
        self.killed.saw(key(container));
    }

    /// Asks for the verdict of a printed kill. Reads no file. Returns false if too many verdicts are waited
    /// for.
    fn want(&mut self, kill: &OomKill, tree: &CgroupTree) -> bool {
        let (Some(container), Some(of)) = (&kill.container, kill.envelope.seq) else { return true };
        if !was_made(kill) {
            return true;
        }
        let Some(runtime) = Runtime::with_files(&container.runtime.name) else { return true };
        let Ok(time) = kill.envelope.time.parse::<jiff::Timestamp>() else { return true };
        // Only Docker says how the sandbox of a pod ended.
        let sandbox = kill.k8s.as_ref().is_some_and(|k8s| k8s.pod.name.is_some() && k8s.container.is_none())
            && runtime != Runtime::Docker;
        if !state::has_verdicts(runtime, kill.k8s.is_some()) || sandbox {
            return true;
        }
        let Some(root) = tree.runtimes().root() else { return true };
        let key = key(container);
        if !self.waiting.has_room(&key) {
            return false;
        }
        // If the limit is the container's own, there are no bystanders.
        let fired = kill.oom.cgroup.as_ref().and_then(|fired| fired.cgroup.path.as_deref());
        let above = fired.filter(|path| !path.contains(container.id.as_str()));
        let bystanders = above.map(|path| bystanders(tree, path, container)).unwrap_or_default();
        let bytes =
            size_of::<Note>() + bytes_of(container) + bystanders.iter().map(Bystander::bytes).sum::<usize>();
        if !self.waiting.add(&key, bytes) {
            return false;
        }
        let note = Note {
            of,
            stream: kill.envelope.stream.clone(),
            time_ns: time.as_nanosecond(),
            runtime,
            container: container.clone(),
            bystanders,
            dirs: Arc::clone(tree.runtimes().dirs()),
            root: root.clone(),
            bytes,
        };
        let taken = self.notes.send(Box::new(note)).is_ok();
        if !taken {
            self.waiting.remove(&key, bytes);
        }
        taken
    }

    /// The flagged containers of the answer that had no kill of their own.
    fn false_positives(&self, answer: &Answer) -> Vec<String> {
        let own_kill = |one: &&Bystander| self.killed.contains(&(one.id.clone(), one.user));
        let others = answer.flagged.iter().filter(|one| !own_kill(one));
        others.map(|one| name_of_user(one.user, &one.name).into_owned()).collect()
    }
}

impl Source for Verdicts {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn learn(&mut self, _: &mut Enricher, _: &mut Account) -> bool {
        let _may_be_empty = rustix::io::read(&*self.wake, &mut [0; 8]);
        false
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        let Ok(answer) = self.answers.try_recv() else { return Next::Nothing };
        self.waiting.remove(&key(&answer.container), answer.bytes);
        let false_positive = self.false_positives(&answer);
        Next::Event(Event::Verdict(Box::new(Verdict {
            envelope: Envelope {
                // The next run may report the kill again, and then its verdict too.
                id: answer.stream.as_ref().map(|stream| format!("{stream}-verdict-{}", answer.of)),
                stream: answer.stream.clone(),
                origin: Origin::Runtime,
                ..enricher.own_envelope()
            },
            of: vec![answer.of],
            missed: answer.missed(),
            missing: answer.missing(),
            container: answer.container,
            runtime_says: answer.says.ok(),
            false_positive,
            truncated: Vec::new(),
        })))
    }

    fn saw(&mut self, event: &Event, printed: bool, enricher: &Enricher, account: &mut Account) {
        let Event::OomKill(kill) = event else { return };
        // A kill that is only in the log is old: its runtime was not watched then.
        if kill.envelope.seq.is_none() {
            return;
        }
        self.remember(kill);
        if printed && !self.want(kill, enricher.tree()) {
            account.no_verdict();
        }
    }
}

/// Where the thread sends its answers.
struct Answers {
    to: Sender<Box<Answer>>,
    wake: Arc<OwnedFd>,
}

impl Answers {
    /// Sends an answer. Returns false if the receiver is gone.
    fn send(&self, answer: Answer) -> bool {
        let sent = self.to.send(Box::new(answer)).is_ok();
        // This fails only if the reader is woken already.
        let _ignored = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        sent
    }
}

/// A kill that did not happen has no verdict.
fn was_made(kill: &OomKill) -> bool {
    kill.oom.kill != Some(Kill::AlreadyExiting)
}

fn bystanders(tree: &CgroupTree, fired: &str, victim: &Container) -> Vec<Bystander> {
    tree.containers_below(fired.as_bytes())
        .filter(|known| known.id != victim.id || known.user != victim.runtime.user)
        .filter(|known| state::has_flags(known.facts.runtime, known.facts.pod.is_some()))
        .map(|known| {
            let name = known.facts.name.as_deref().unwrap_or(&known.id).to_owned();
            Bystander { runtime: known.facts.runtime, name, user: known.user, id: known.id }
        })
        .take(BYSTANDERS_MAX)
        .collect()
}

/// The bytes of a container's texts.
fn bytes_of(container: &Container) -> usize {
    let image = container.image.as_ref().map_or(0, |image| image.name.len());
    let labels = container.label.iter().map(|(key, value)| key.len() + value.len() + 2 * size_of::<String>());
    let nested = container.nested.iter().map(|id| id.len() + size_of::<String>());
    let name = container.name.as_ref().map_or(0, String::len);
    container.id.len() + name + image + labels.sum::<usize>() + nested.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_had_is_neither_missed_nor_shown() {
        let answer = |says| Answer {
            of: 1,
            stream: None,
            container: Container::default(),
            says,
            flagged: Vec::new(),
            bytes: 0,
        };
        let keys =
            |answer: &Answer| answer.missing().into_iter().map(|absence| absence.key).collect::<Vec<_>>();
        let unknown = answer(Err(Unsaid::Unknown("no answer".to_owned())));
        assert_eq!(unknown.missed(), None);
        assert_eq!(keys(&unknown), ["missed", "runtime_says"]);
        let gone = answer(Err(Unsaid::Gone));
        assert_eq!(gone.missed(), Some(true));
        assert_eq!(keys(&gone), ["runtime_says"]);
        for shown in [true, false] {
            let says = RuntimeSays { oom_killed: Some(shown), ..RuntimeSays::default() };
            assert_eq!(answer(Ok(says)).missed(), Some(!shown));
        }
    }

    #[test]
    fn a_kill_in_a_users_container_is_none_in_the_hosts_of_that_id() {
        let (notes, _theirs) = channel();
        let (_answer, answers) = channel();
        let wake =
            Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap_or_else(|error| unreachable!("{error}")));
        let mut killed = Killed::default();
        killed.saw(("ab".to_owned(), Some(4242)));
        let verdicts = Verdicts { notes, answers, wake, waiting: Waiting::default(), killed };
        let bystander =
            |user| Bystander { runtime: Runtime::Docker, id: "ab".into(), name: "db".into(), user };
        let flagged = vec![bystander(None), bystander(Some(4242)), bystander(Some(7))];
        let answer = Answer {
            of: 1,
            stream: None,
            container: Container::default(),
            says: Err(Unsaid::Gone),
            flagged,
            bytes: 0,
        };
        assert_eq!(verdicts.false_positives(&answer), ["db", "7/db"]);
    }
}

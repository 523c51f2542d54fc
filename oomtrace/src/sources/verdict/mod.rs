//! What a container's runtime says of a kill, once it has settled: an `oom_kill` event in, a
//! `verdict` event out seconds later. It is evidence about the runtime, never about the kill.
//!
//! - `state`: what the runtimes' files and, where these leave it open, the runtimes themselves say.
//! - `api`: how a daemon is asked.
//! - `watch`: when; a thread of its own, which sleeps while there is nothing to ask.
//!
//! It must not delay a kill: the event path hands over a note and goes on. A queue that is full
//! takes no more notes.

mod api;
mod state;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::mpsc::{Receiver, channel};

use crate::{
    cgroups::tree::CgroupTree,
    containers::{Runtime, discover::StateDirs},
    event::{Absence, Container, Kill, Missing, OomKill, Reason, RuntimeSays, Why, name_of_user},
    host::root::Root,
};

/// Kills that wait for their verdict, at most. Each takes about a kilobyte.
const PENDING_MAX: usize = 1024;
/// Containers of the latest kills that are remembered: none of them is flagged without a kill of its own.
const KILLED_MAX: usize = 4096;
/// Containers below the cgroup whose limit fired that are looked at.
const BYSTANDERS_MAX: usize = 64;
/// The thread reads files of up to a megabyte, onto the heap.
const STACK_BYTES: usize = 256 << 10;

/// A kill whose verdict is wanted.
#[derive(Debug)]
struct Note {
    of: u64,
    /// When the kernel killed: nanoseconds since 1970.
    time_ns: i128,
    runtime: Runtime,
    container: Container,
    /// Other containers below the cgroup whose limit fired.
    bystanders: Vec<Bystander>,
    dirs: StateDirs,
    root: Root,
}

/// Another container.
#[derive(Clone, Debug)]
struct Bystander {
    runtime: Runtime,
    id: String,
    name: String,
    /// The user whose runtime it is of.
    user: Option<u32>,
}

/// Why there is no word of a runtime's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// The runtime does not know the container any more: it will never show the kill.
    Gone,
    /// Its word could not be had: whether it shows the kill is not known.
    Unknown(String),
}

/// What a runtime says of a kill.
#[derive(Debug)]
pub struct Answer {
    /// The `seq` of the kill.
    pub of: u64,
    /// The container.
    pub container: Container,
    /// The runtime's view, or why there is none.
    pub says: Result<RuntimeSays, Unsaid>,
    /// Bystanders that are flagged by now and were not before the kill.
    flagged: Vec<Bystander>,
}

impl Answer {
    /// True when the runtime does not show an OOM kill; `None` where that is not known.
    pub fn missed(&self) -> Option<bool> {
        match &self.says {
            Ok(says) => says.oom_killed.map(|shown| !shown),
            Err(Unsaid::Gone) => Some(true),
            Err(Unsaid::Unknown(_)) => None,
        }
    }

    /// Why there is no view.
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

/// Verdicts to come.
#[derive(Debug)]
pub struct Verdicts {
    notes: SyncSender<Note>,
    /// Notes that the thread has not done with.
    pending: Arc<AtomicUsize>,
    answers: Receiver<Answer>,
    killed: VecDeque<(String, Option<u32>)>,
}

impl Verdicts {
    /// Starts the thread that asks.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let (notes, theirs) = sync_channel(PENDING_MAX);
        let (answer, answers) = channel(PENDING_MAX);
        let pending = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&pending);
        std::thread::Builder::new()
            .name("oomtrace-verdict".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || watch::watch(&theirs, &answer, &waiting))?;
        Ok(Self { notes, pending, answers, killed: VecDeque::new() })
    }

    /// A kill was seen: it is its container's own, whoever is asked about.
    pub fn saw(&mut self, kill: &OomKill) {
        let Some(container) = kill.container.as_ref().filter(|_| was_made(kill)) else { return };
        if self.killed.len() >= KILLED_MAX {
            self.killed.pop_front();
        }
        self.killed.push_back((container.id.clone(), container.runtime.user));
    }

    /// A kill was told: its verdict is wanted. Reads no file. False if too many are wanted already.
    pub fn want(&self, kill: &OomKill, tree: &CgroupTree) -> bool {
        let (Some(container), Some(of)) = (&kill.container, kill.envelope.seq) else { return true };
        if !was_made(kill) {
            return true;
        }
        let Some(runtime) = Runtime::with_files(&container.runtime.name) else { return true };
        let Ok(time) = kill.envelope.time.parse::<jiff::Timestamp>() else { return true };
        // Of a pod's sandbox only Docker says how it ended.
        let sandbox = kill.k8s.as_ref().is_some_and(|k8s| k8s.pod.name.is_some() && k8s.container.is_none())
            && runtime != Runtime::Docker;
        if !state::has_verdicts(runtime, kill.k8s.is_some()) || sandbox {
            return true;
        }
        // A limit of the container's own has no bystanders.
        let fired = kill.oom.cgroup.as_ref().and_then(|fired| fired.cgroup.path.as_deref());
        let above = fired.filter(|path| !path.contains(container.id.as_str()));
        let bystanders = above.map(|path| bystanders(tree, path, container)).unwrap_or_default();
        let note = Note {
            of,
            time_ns: time.as_nanosecond(),
            runtime,
            container: container.clone(),
            bystanders,
            dirs: tree.runtimes().dirs().clone(),
            root: tree.runtimes().root().clone(),
        };
        if self.pending.fetch_add(1, Ordering::Relaxed) < PENDING_MAX && self.notes.try_send(note).is_ok() {
            return true;
        }
        self.pending.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// The next answer. Never, where the thread is gone.
    pub async fn next(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Those that the answer shows as flagged without a kill of their own.
    pub fn false_positives(&self, answer: &Answer) -> Vec<String> {
        let own_kill =
            |one: &&Bystander| self.killed.iter().any(|(id, user)| *id == one.id && *user == one.user);
        let others = answer.flagged.iter().filter(|one| !own_kill(one));
        others.map(|one| name_of_user(one.user, &one.name).into_owned()).collect()
    }
}

/// No runtime can show, or miss, a kill that was not made.
fn was_made(kill: &OomKill) -> bool {
    kill.oom.kill != Some(Kill::AlreadyExiting)
}

fn bystanders(tree: &CgroupTree, fired: &str, victim: &Container) -> Vec<Bystander> {
    let below = format!("{}/", fired.trim_end_matches('/'));
    tree.containers()
        .filter(|known| known.id != victim.id || known.user != victim.runtime.user)
        .filter(|known| known.path.starts_with(below.as_bytes()))
        .filter(|known| state::has_flags(known.facts.runtime, known.facts.pod.is_some()))
        .map(|known| {
            let name = known.facts.name.as_deref().unwrap_or(&known.id).to_owned();
            Bystander { runtime: known.facts.runtime, name, user: known.user, id: known.id }
        })
        .take(BYSTANDERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_had_is_neither_missed_nor_shown() {
        let answer = |says| Answer { of: 1, container: Container::default(), says, flagged: Vec::new() };
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
        let (notes, _theirs) = sync_channel(1);
        let (_answer, answers) = channel(1);
        let pending = Arc::new(AtomicUsize::new(0));
        let killed = VecDeque::from([("ab".to_owned(), Some(4242))]);
        let verdicts = Verdicts { notes, pending, answers, killed };
        let bystander =
            |user| Bystander { runtime: Runtime::Docker, id: "ab".into(), name: "db".into(), user };
        let flagged = vec![bystander(None), bystander(Some(4242)), bystander(Some(7))];
        let answer = Answer { of: 1, container: Container::default(), says: Err(Unsaid::Gone), flagged };
        assert_eq!(verdicts.false_positives(&answer), ["db", "7/db"]);
    }
}

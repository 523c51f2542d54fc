//! When a runtime is asked: 2 s after the kill, and at 10 s if it had not settled by then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::api::Daemon;
use super::state::{self, Home, Says};
use super::{Answer, Note};
use crate::steady;

/// Docker has written a container's end by then, under load too.
const SETTLED: Duration = Duration::from_secs(2);
/// Whatever is not written by then is not coming.
const LATEST: Duration = Duration::from_secs(10);

struct Pending {
    note: Note,
    home: Home,
    /// Bystanders that were not flagged before the kill, by their place in the note.
    clean: Vec<(usize, Home)>,
    since: Instant,
}

/// Notes in, answers out, until one of the two ends.
/// `waiting` counts the notes that are not done with.
pub(super) fn watch(notes: &Receiver<Note>, answers: &Sender<Answer>, waiting: &AtomicUsize) {
    steady::ordinary();
    let done = || {
        waiting.fetch_sub(1, Ordering::Relaxed);
    };
    let mut soon = VecDeque::<Pending>::new();
    let mut later = VecDeque::<Pending>::new();
    let mut daemon = Daemon::default();
    loop {
        let due = [(&soon, SETTLED), (&later, LATEST)].into_iter().filter_map(|(queue, after)| {
            queue.front().map(|pending| after.saturating_sub(pending.since.elapsed()))
        });
        let came = match due.min() {
            Some(wait) => notes.recv_timeout(wait),
            None => notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match came {
            Ok(note) => match pending(note) {
                Some(pending) => soon.push_back(pending),
                None => done(),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(pending) = soon.pop_front_if(|pending| pending.since.elapsed() >= SETTLED) {
            match says(&pending, &mut daemon, false) {
                Some(said) => {
                    done();
                    if answers.blocking_send(answer(pending, said)).is_err() {
                        return;
                    }
                }
                None => later.push_back(pending),
            }
        }
        while let Some(pending) = later.pop_front_if(|pending| pending.since.elapsed() >= LATEST) {
            done();
            if let Some(said) = says(&pending, &mut daemon, true)
                && answers.blocking_send(answer(pending, said)).is_err()
            {
                return;
            }
        }
    }
}

/// Notes where the runtime keeps the container, while it still does.
fn pending(note: Note) -> Option<Pending> {
    let home = state::home(&note.dirs, note.runtime, &note.container.id)?;
    let clean = |(at, (runtime, id, _)): (usize, &(_, String, String))| {
        let home = state::home(&note.dirs, *runtime, id)?;
        (!state::was_flagged_before(&home, id, note.time_ns)).then_some((at, home))
    };
    let clean = note.bystanders.iter().enumerate().filter_map(clean).collect();
    Some(Pending { home, clean, since: Instant::now(), note })
}

/// What the runtime says; `None` while it may still change its mind, or where nothing can be had.
fn says(
    pending: &Pending,
    daemon: &mut Daemon,
    last: bool,
) -> Option<Result<crate::event::RuntimeSays, &'static str>> {
    let id = &pending.note.container.id;
    let file = state::read(&pending.home, id);
    match file {
        Says::Settled(says) => return Some(Ok(says)),
        Says::Gone => return Some(Err("the runtime does not know the container any more")),
        Says::Open(_) | Says::Unreadable => {}
    }
    if !last && !state::is_asked_first(&pending.home) {
        return None;
    }
    let asked = daemon.ask(&pending.home, &pending.note.dirs, id);
    match (asked, file) {
        (Some(Says::Settled(says)), _) => Some(Ok(says)),
        (Some(Says::Gone), _) => Some(Err("the runtime does not know the container any more")),
        (Some(Says::Open(says)), _) if last => Some(Ok(says)),
        (_, Says::Open(says)) if last => Some(Ok(says)),
        _ => None,
    }
}

fn answer(pending: Pending, says: Result<crate::event::RuntimeSays, &'static str>) -> Answer {
    let flagged = pending.clean.iter().filter_map(|(at, home)| {
        let (_, id, name) = pending.note.bystanders.get(*at)?;
        state::is_flagged(home, id).then(|| (id.clone(), name.clone()))
    });
    let flagged = flagged.collect();
    Answer { of: pending.note.of, container: pending.note.container, says, flagged }
}

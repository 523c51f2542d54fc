//! Decides when a runtime is asked: 2 s after the kill, and again at 10 s if its state was still open.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::{
    containers::discover::UserDirs,
    event::RuntimeSays,
    host::{files::readers::Readers, protection},
    sources::verdict::{
        Answer, Answers, Note, Unsaid,
        api::Daemon,
        state::{self, Home, Says},
    },
};

/// By then Docker has written a container's end, even under load.
const SETTLED: Duration = Duration::from_secs(2);
/// The last time to look. What is not written by then will not be written.
const LATEST: Duration = Duration::from_secs(10);

struct Pending {
    note: Box<Note>,
    home: Result<Home, Unsaid>,
    /// Bystanders that were not flagged before the kill, by index in the note.
    clean: Vec<(usize, Home)>,
    since: Instant,
}

/// Receives notes and sends answers, until one of the two channels ends.
pub(super) fn watch(notes: &Receiver<Box<Note>>, answers: &Answers) {
    protection::ordinary();
    let mut soon = VecDeque::<Pending>::new();
    let mut later = VecDeque::<Pending>::new();
    let mut daemon = Daemon::default();
    let readers = Readers::patient();
    loop {
        let due = [(&soon, SETTLED), (&later, LATEST)].into_iter().filter_map(|(queue, after)| {
            queue.front().map(|pending| after.saturating_sub(pending.since.elapsed()))
        });
        let came = match due.min() {
            Some(wait) => notes.recv_timeout(wait),
            None => notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match came {
            Ok(note) => soon.push_back(pending(note, &readers)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(pending) = soon.pop_front_if(|pending| pending.since.elapsed() >= SETTLED) {
            match says(&pending, &mut daemon, false) {
                Some(said) => {
                    if !answers.send(answer(pending, said)) {
                        return;
                    }
                }
                None => later.push_back(pending),
            }
        }
        while let Some(pending) = later.pop_front_if(|pending| pending.since.elapsed() >= LATEST) {
            let said = says(&pending, &mut daemon, true).unwrap_or_else(|| {
                Err(Unsaid::Unknown(
                    "neither the runtime's files nor the runtime itself gave an answer".to_owned(),
                ))
            });
            if !answers.send(answer(pending, said)) {
                return;
            }
        }
    }
}

/// Finds the runtime's directory of the container, while it still exists.
fn pending(note: Box<Note>, readers: &Readers) -> Pending {
    let root = note.root.clone().guarded_by(readers);
    let known = note.container.name.is_some();
    let home = |user: Option<u32>, runtime, id: &str, known| match user {
        Some(uid) => state::home_of_user(UserDirs::of(&root, uid).as_ref(), runtime, id, known),
        None => state::home(&note.dirs, runtime, id, known),
    };
    let own = home(note.container.runtime.user, note.runtime, &note.container.id, known);
    let clean = |(at, bystander): (usize, &super::Bystander)| {
        let home = home(bystander.user, bystander.runtime, &bystander.id, true).ok()?;
        (!state::was_flagged_before(&home, &bystander.id, note.time_ns)).then_some((at, home))
    };
    let clean = note.bystanders.iter().enumerate().filter_map(clean).collect();
    Pending { home: own, clean, since: Instant::now(), note }
}

/// What the runtime says; `None` while it may still change.
fn says(pending: &Pending, daemon: &mut Daemon, last: bool) -> Option<Result<RuntimeSays, Unsaid>> {
    let id = &pending.note.container.id;
    let home = match &pending.home {
        Ok(home) => home,
        Err(why) => return Some(Err(why.clone())),
    };
    let file = state::read(home, id);
    match file {
        Says::Settled(says) => return Some(Ok(says)),
        Says::Gone => return Some(Err(Unsaid::Gone)),
        Says::Open(_) | Says::Unknown(_) => {}
    }
    if !last && !state::is_asked_first(home) {
        return None;
    }
    match (daemon.ask(home, &pending.note.dirs, id), file) {
        (Some(Says::Settled(says)), _) => Some(Ok(says)),
        (Some(Says::Gone), _) => Some(Err(Unsaid::Gone)),
        _ if !last => None,
        (Some(Says::Open(says)), _) | (_, Says::Open(says)) => Some(Ok(says)),
        (Some(Says::Unknown(why)), _) | (None, Says::Unknown(why)) => Some(Err(Unsaid::Unknown(why))),
        (None, _) => None,
    }
}

fn answer(pending: Pending, says: Result<RuntimeSays, Unsaid>) -> Answer {
    let flagged = pending.clean.iter().filter_map(|(at, home)| {
        let bystander = pending.note.bystanders.get(*at)?;
        state::is_flagged(home, &bystander.id).then(|| bystander.clone())
    });
    let flagged = flagged.collect();
    let Note { of, stream, container, bytes, .. } = *pending.note;
    Answer { of, stream, container, says, flagged, bytes }
}

//! The thread that waits for the victims of each run, and says when the run is complete: when all are gone and
//! no other came for a while, or 5 s after the last one.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    enrich::enricher::LastVictim,
    event::{CgroupMemory, Reason, Why},
    facts::BootTime,
    host::{clock, protection},
    sources::incident::{
        Ended, Host, Line, News, Note,
        evidence::Complete,
        first_process::{self, FirstProcess},
        late::{self, Late},
        memory::Files,
        room::Part,
        stuck::StuckRun,
        told::Run,
        victims::{End, Victim},
    },
};

/// The kills of a run come one after the other; the last lines of the log a little later.
const QUIET: Duration = Duration::from_millis(250);
/// A victim that is still there after this will be told as such.
const AT_MOST: Duration = Duration::from_secs(5);
/// The most victims that are waited for, and runs whose cgroup stays open: each has a descriptor.
const WATCHED_MAX: usize = 256;
const OPEN_MAX: usize = 128;
/// After it was read, the log waits for so long: the kernel writes a report line by line.
const LOG_REST: Duration = Duration::from_millis(50);
/// How many turns of the log are read before a run is complete.
const LOG_TURNS: usize = 8;

/// A run that is not complete.
struct Pending {
    run: Box<Run>,
    room: Vec<Part>,
    victims: Vec<Victim>,
    /// When its last victim came.
    last: Instant,
    /// What its cgroup's file said at once.
    memory: Result<CgroupMemory, Why>,
    /// Its cgroup, for the usage that is left.
    files: Result<Files, Why>,
    /// The usage when the last victim was gone.
    left: Option<Result<u64, Why>>,
    lost_before: u64,
}

impl Pending {
    fn waits(&self) -> bool {
        self.victims.iter().any(|victim| matches!(victim.end, End::Waits(_)))
    }

    /// How long until it is complete.
    fn due(&self) -> Duration {
        let after = if self.waits() { AT_MOST } else { QUIET };
        after.saturating_sub(self.last.elapsed())
    }

    /// Marks the victims as gone that are, by their place among those that wait.
    fn see(&mut self, mut is_gone: impl FnMut() -> bool) {
        let now = clock::boot_time().0;
        for victim in &mut self.victims {
            if matches!(victim.end, End::Waits(_)) && is_gone() {
                victim.end = End::Gone(now);
            }
        }
        self.look_at_usage();
    }

    /// Adds a victim. Of processes that only share a victim's memory and are not waited for, one is enough.
    fn take(&mut self, victim: Victim, room: Option<Part>) {
        let is_one_more = matches!(victim.end, End::Unknown(_)) && room.is_none();
        if !is_one_more || !self.victims.iter().any(|known| matches!(known.end, End::Unknown(_))) {
            self.victims.push(victim);
        }
        self.room.extend(room);
        self.last = Instant::now();
        self.left = None;
        self.look_at_usage();
    }

    /// Reads the usage as soon as no victim is there any more.
    fn look_at_usage(&mut self) {
        if self.left.is_none() && !self.waits() {
            self.left = Some(self.usage_bytes());
        }
    }

    fn usage_bytes(&self) -> Result<u64, Why> {
        self.files.as_ref().map_err(Clone::clone).and_then(Files::usage_bytes)
    }
}

/// Receives notes and sends what became of the runs, until the loop ends.
pub(super) fn watch(line: &Line, mut host: Host) {
    protection::ordinary();
    let (mut pending, mut late) = (Vec::<Pending>::new(), LateRuns::default());
    let mut read = None::<Instant>;
    loop {
        let rest = read.map(|read| LOG_REST.saturating_sub(read.elapsed())).filter(|rest| !rest.is_zero());
        let Some(grew) = wait(line, &host, &mut pending, &mut late, rest) else { return };
        let _level_stays = rustix::io::read(&*line.call, &mut [0; 8]);
        loop {
            use std::sync::mpsc::TryRecvError;
            match line.notes.try_recv() {
                Ok(note) => take(*note, &host, &mut pending),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        if grew {
            read_log(&mut host, 1);
            read = Some(Instant::now());
        }
        while let Some(at) = pending.iter().position(|one| one.due().is_zero()) {
            let (ended, stuck) = complete(pending.swap_remove(at), &mut host);
            if !line.send(News::Ended(ended)) || !stuck.is_none_or(|stuck| late.begin(stuck, line, &host)) {
                return;
            }
        }
        if !late.tell_again(line, &mut host) {
            return;
        }
    }
}

/// Runs with victims that are still there, the oldest first.
#[derive(Default)]
struct LateRuns(VecDeque<Late<StuckRun>>);

impl LateRuns {
    /// Tells of a run at once, and keeps it. Returns false if nobody listens.
    fn begin(&mut self, mut run: Late<StuckRun>, line: &Line, host: &Host) -> bool {
        let listens = tell(&mut run, line, host);
        self.0.push_back(run);
        while self.0.iter().map(|run| run.victims.len()).sum::<usize>() > late::WATCHED_MAX {
            self.0.pop_front();
        }
        listens
    }

    /// Tells of those whose time has come, for the last time. Returns false if nobody listens.
    fn tell_again(&mut self, line: &Line, host: &mut Host) -> bool {
        while let Some(at) = self.0.iter().position(|run| run.due().is_zero()) {
            let Some(mut run) = self.0.remove(at) else { return true };
            read_log(host, LOG_TURNS);
            if !tell(&mut run, line, host) {
                return false;
            }
        }
        true
    }

    /// Drops the victims that are gone, by their place.
    fn see(&mut self, mut is_gone: impl FnMut() -> bool) {
        self.0.retain_mut(|run| run.see(&mut is_gone));
    }
}

fn tell(run: &mut Late<StuckRun>, line: &Line, host: &Host) -> bool {
    let found = run.look(&host.root, &host.log);
    found.is_none_or(|found| line.send(News::Stuck(Box::new(run.run.clone()), found)))
}

/// Sleeps until there is a note, a victim gone, or a run due; after `rest` also until the log grows. Returns
/// whether the log grew; `None` if it cannot sleep.
fn wait(
    line: &Line,
    host: &Host,
    pending: &mut [Pending],
    late: &mut LateRuns,
    rest: Option<Duration>,
) -> Option<bool> {
    let due = pending.iter().map(Pending::due).chain(late.0.iter().map(Late::due)).chain(rest).min();
    let timeout = due.map(|due| Timespec {
        tv_sec: i64::try_from(due.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(due.subsec_nanos()),
    });
    let log = host.log.as_ref().ok().filter(|_| rest.is_none());
    let victims =
        pending.iter().flat_map(|one| &one.victims).chain(late.0.iter().flat_map(|run| &run.victims));
    let waiting = victims.filter_map(|victim| match &victim.end {
        End::Waits(descriptor) => Some(descriptor.as_fd()),
        _ => None,
    });
    let mut polled: Vec<PollFd<'_>> = std::iter::once(line.call.as_fd())
        .chain(waiting)
        .chain(log.map(AsFd::as_fd))
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(_) => return None,
    }
    let ready: Vec<bool> = polled.iter().skip(1).map(|one| !one.revents().is_empty()).collect();
    let mut ready = ready.into_iter();
    for one in pending.iter_mut().filter(|one| one.waits()) {
        one.see(|| ready.next().unwrap_or(false));
    }
    late.see(|| ready.next().unwrap_or(false));
    Some(ready.next().unwrap_or(false))
}

/// Reads the log for so many turns at the most. If it cannot be read, the next incidents say so.
fn read_log(host: &mut Host, turns: usize) {
    for _ in 0..turns {
        let Ok(log) = &mut host.log else { return };
        match log.catch_up() {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => host.log = Err(error.to_string()),
        }
    }
}

/// Takes in a kill.
fn take(note: Note, host: &Host, pending: &mut Vec<Pending>) {
    let watched = pending.iter().map(|one| one.victims.len()).sum::<usize>();
    let watch = |victim: &LastVictim| match host.has_kernel_pids {
        _ if watched >= WATCHED_MAX => Victim::unknown(victim, Reason::TooManyVictims),
        true => Victim::watch(victim, &host.root),
        false => Victim::unknown(victim, Reason::OtherPidNamespace),
    };
    let (at, victim, room) = match note {
        Note::Victim { run, victim, room } => {
            let same = |one: &Pending| one.run.id == run.id && one.run.stream == run.stream;
            let at = pending.iter().position(same);
            match at.and_then(|at| pending.get_mut(at)) {
                Some(one) => one.run.add(&run),
                None => {
                    let open = pending.iter().filter(|one| one.files.is_ok()).count();
                    pending.push(begin(run, host, open < OPEN_MAX));
                }
            }
            (at.or(pending.len().checked_sub(1)), watch(&victim), Some(room))
        }
        Note::Sharer { stream, of, victim } => {
            let at = pending.iter().position(|one| one.run.has(stream.as_deref(), of));
            (at, watch(&victim), None)
        }
    };
    if let Some(one) = at.and_then(|at| pending.get_mut(at)) {
        one.take(victim, room);
    }
}

/// Begins a run: reads at once what is being released.
fn begin(run: Box<Run>, host: &Host, may_open: bool) -> Pending {
    let files = match (&host.mount, &run.ran_out) {
        _ if !may_open => Err(Reason::TooManyVictims.into()),
        (Some(mount), Some(cgroup)) => Files::open(mount, cgroup, host.v1),
        (None, _) => Err(Reason::NoMemoryCgroups.into()),
        (_, None) => Err(Reason::CgroupPathUnknown.into()),
    };
    let memory = match (&files, &run.ran_out) {
        (Ok(files), Some(cgroup)) => files.memory(cgroup),
        (Err(why), _) => Err(why.clone()),
        (_, None) => Err(Reason::CgroupPathUnknown.into()),
    };
    Pending {
        run,
        room: Vec::new(),
        victims: Vec::new(),
        last: Instant::now(),
        memory,
        files,
        left: None,
        lost_before: host.log.as_ref().map_or(0, |log| log.reports.lost()),
    }
}

/// The first process of the container, if it lives on though all victims are gone.
fn lives(run: &Run, victims: &[Victim], host: &Host) -> Option<FirstProcess> {
    let are_gone = victims.iter().all(|victim| matches!(victim.end, End::Gone(_)));
    let marked = victims.iter().map(|victim| victim.marked_ns).min()?;
    let (mount, cgroup) = host.mount.as_ref().zip(run.container_cgroup())?;
    let is_known = are_gone && host.has_kernel_pids;
    is_known.then(|| first_process::living(&host.root, mount, cgroup, BootTime(marked))).flatten()
}

/// What became of a run, and its victims that are still there.
fn complete(mut one: Pending, host: &mut Host) -> (Ended, Option<Late<StuckRun>>) {
    read_log(host, LOG_TURNS);
    let usage_bytes = one.left.take().unwrap_or(Err(Reason::StillThere.into()));
    let complete = Complete {
        cgroup: one.run.ran_out.as_ref(),
        victims: &one.victims,
        memory: one.memory,
        usage_bytes,
        lost_before: one.lost_before,
        lives: lives(&one.run, &one.victims, host),
    };
    let evidence = Box::new(complete.evidence(&mut host.log));
    let stuck = Late::of(one.run.stuck(), one.victims, one.last, one.lost_before);
    (Ended { run: one.run, evidence, room: one.room }, stuck)
}

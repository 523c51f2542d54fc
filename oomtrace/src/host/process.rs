//! Reads what only `/proc` knows of a victim: its executable and its command line, or the reason why they are
//! absent. Never waits longer than the caller allows.
//!
//! Reading a command line takes the victim's mmap lock. A dying process may hold it for long, and a hostile
//! one for ever. Reading `stat` while the victim ends may make the reader free all the victim's memory. So a
//! separate thread reads, and if it is late, another thread serves the next victim. The executable and the
//! start time are read first, because they need no lock of the victim. The threads sleep while there is
//! nothing to read.

mod at_once;
mod command_line;
pub(crate) mod fields;
mod files;
mod reason;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

pub use at_once::processors;
pub use command_line::{CommandLineChoice, command_line_of};
pub(crate) use files::started_ticks;
use files::{CommandLineRead, Files, Job, command_line};
pub use reason::Reason;

use crate::{
    facts::BootTime,
    host::{identity, root::Root},
    stderr::say,
};

/// How many bytes of a command line are kept.
pub const COMMAND_LINE_BYTES: usize = 1024;

/// The stack of a thread. It calls little and does not recurse.
const STACK_BYTES: usize = 64 * 1024;

/// What `/proc` knows of a victim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Target of `/proc/PID/exe`: any bytes but NUL. The kernel appends ` (deleted)` if the file was deleted.
    pub executable: Result<Vec<u8>, Reason>,
    /// `/proc/PID/cmdline`, with blanks between the arguments: any bytes but NUL.
    pub command_line: Result<Vec<u8>, Reason>,
    /// The command line is longer than what is kept.
    pub command_line_cut: bool,
}

impl ProcessFacts {
    /// Both are absent for the same reason.
    pub(crate) fn none(reason: Reason) -> Self {
        Self { executable: Err(reason.clone()), command_line: Err(reason), command_line_cut: false }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Executable(executable, follows) => {
                if let (Err(reason), false) = (&executable, follows) {
                    self.command_line = Err(reason.clone());
                }
                self.executable = executable;
            }
            Answer::CommandLine(Ok((text, cut))) => {
                self.command_line = Ok(text);
                self.command_line_cut = cut;
            }
            Answer::CommandLine(Err(reason)) => self.command_line = Err(reason),
        }
    }

    /// Facts that were not answered are absent for this reason.
    fn unanswered(&mut self, reason: Reason) {
        if self.executable == Err(Reason::NotRead) {
            self.executable = Err(reason.clone());
        }
        self.command_line = Err(reason);
    }
}

/// The process whose facts are read.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    /// The thread that has, or had, the memory.
    pub tid: u32,
    /// The process.
    pub tgid: u32,
    /// When the process or the thread started: `start_boottime`.
    pub start: Option<BootTime>,
    /// When it was marked. Until then its ids belonged to it.
    pub marked: BootTime,
}

/// The most command lines that are read at once. Each of them belongs to a victim whose memory is locked. As
/// many threads again may be busy with freeing a victim's memory.
pub const READERS_MAX: usize = 8;

/// After this time a reader is reported as stuck.
const STUCK: Duration = Duration::from_secs(1);

/// Reads `/proc/PID` of victims.
///
/// The threads inherit the scheduling of the one that calls [`Self::read`].
#[derive(Debug)]
pub struct ProcessReader {
    files: Files,
    /// This process is in the first pid namespace, so the kernel's ids are valid here.
    by_number: bool,
    idle: Option<Thread>,
    /// Threads that are late. Nothing waits for their answers.
    late: Vec<Thread>,
    stuck: u64,
}

/// What a thread has read.
#[derive(Debug)]
enum Answer {
    /// The executable, and whether a command line follows.
    Executable(Result<Vec<u8>, Reason>, bool),
    CommandLine(CommandLineRead),
}

impl Answer {
    fn is_last(&self) -> bool {
        !matches!(self, Self::Executable(_, true))
    }
}

/// A thread that reads about one victim after another. After a drop it ends as soon as the kernel lets it.
/// Nothing waits for that.
#[derive(Debug)]
struct Thread {
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    /// The last process that it was asked about, and when.
    of: u32,
    since: Instant,
    reported: bool,
}

impl Thread {
    fn start(files: Files) -> io::Result<Self> {
        let (jobs, their_jobs) = sync_channel::<Job>(1);
        // Room for both answers to a job, so that the thread does not block if nothing receives them.
        let (answer, answers) = sync_channel(2);
        let serve = move || {
            for job in their_jobs {
                let (dir, executable) = match files.identify(&job) {
                    Ok((dir, executable)) => (Some(dir).filter(|_| job.command_line), executable),
                    Err(reason) => (None, Err(reason)),
                };
                if answer.send(Answer::Executable(executable, dir.is_some())).is_err() {
                    return;
                }
                let Some(dir) = dir else { continue };
                if answer.send(Answer::CommandLine(command_line(&dir, files.wanted))).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("oomtrace-proc".to_owned()).stack_size(STACK_BYTES).spawn(serve)?;
        Ok(Self { jobs, answers, of: 0, since: Instant::now(), reported: false })
    }

    /// The next answer; `Err(None)` if it takes longer than `wait`.
    fn answer(&self, wait: Duration) -> Result<Answer, Option<Reason>> {
        self.answers.recv_timeout(wait).map_err(|error| match error {
            RecvTimeoutError::Timeout => None,
            RecvTimeoutError::Disconnected => Some(Reason::Ended),
        })
    }
}

impl ProcessReader {
    /// Starts the first thread.
    pub fn new(root: &Root, wanted: CommandLineChoice) -> io::Result<Self> {
        let tick_ns = 1_000_000_000 / identity::ticks_per_second().max(1);
        let files = Files { proc: root.path("/proc"), tick_ns, wanted };
        let by_number = identity::is_first_pid_namespace(root, "self");
        Ok(Self { idle: Some(Thread::start(files.clone())?), files, by_number, late: Vec::new(), stuck: 0 })
    }

    /// Reads only the executable.
    pub fn executable(&mut self, victim: &Victim, wait: Duration) -> Result<Vec<u8>, Reason> {
        self.ask(victim, false, wait).executable
    }

    /// Reads the facts of the victim, as far as possible within `wait`. Never of a later process with the
    /// same id.
    pub fn read(&mut self, victim: &Victim, wait: Duration) -> ProcessFacts {
        if self.files.wanted == CommandLineChoice::None {
            let command_line = Err(Reason::NotWanted);
            return ProcessFacts { command_line, ..self.ask(victim, false, wait) };
        }
        self.ask(victim, true, wait)
    }

    fn ask(&mut self, victim: &Victim, command_line: bool, wait: Duration) -> ProcessFacts {
        let at_once = self.by_number.then(|| at_once::executable(&self.files.proc, victim)).flatten();
        match (at_once, command_line) {
            (Some(executable), false) => ProcessFacts { executable, ..ProcessFacts::none(Reason::NotRead) },
            (Some(executable), true) => ProcessFacts { executable, ..self.ask_thread(victim, true, wait) },
            (None, _) => self.ask_thread(victim, command_line, wait),
        }
    }

    fn ask_thread(&mut self, victim: &Victim, command_line: bool, wait: Duration) -> ProcessFacts {
        let Some(BootTime(start)) = victim.start else { return ProcessFacts::none(Reason::StartUnknown) };
        let Victim { tid, tgid, marked: BootTime(marked), .. } = *victim;
        self.look_at_late();
        // The executable takes no lock of the victim, so it is still read.
        let pending = command_line && self.late.len() >= READERS_MAX;
        let command_line = command_line && !pending;
        let thread = match self.send(Job { tid, tgid, start, marked, command_line }) {
            Ok(thread) => thread,
            Err(reason) => return ProcessFacts::none(reason),
        };
        let began = Instant::now();
        let mut facts = ProcessFacts::none(Reason::NotRead);
        if pending {
            facts.command_line = Err(Reason::Pending(READERS_MAX));
        }
        loop {
            match thread.answer(wait.saturating_sub(began.elapsed())) {
                Ok(answer) => {
                    let last = answer.is_last();
                    facts.take(answer);
                    if last {
                        self.idle = Some(thread);
                        return facts;
                    }
                }
                Err(reason) => {
                    if reason.is_none() {
                        self.late.push(thread);
                    }
                    facts.unanswered(reason.unwrap_or(Reason::TooSlow(wait)));
                    return facts;
                }
            }
        }
    }

    /// Gives a job to an idle or new thread.
    fn send(&mut self, job: Job) -> Result<Thread, Reason> {
        if self.late.len() >= 2 * READERS_MAX {
            return Err(Reason::Pending(self.late.len()));
        }
        let thread = self.idle.take().map_or_else(|| Thread::start(self.files.clone()), Ok);
        let mut thread = thread.map_err(|error| Reason::Io(error.kind()))?;
        thread.of = job.tgid;
        thread.since = Instant::now();
        thread.reported = false;
        thread.jobs.try_send(job).map_err(|_| Reason::Ended)?;
        Ok(thread)
    }

    /// How many reads of a command line took longer than a second so far.
    pub fn stuck(&mut self) -> u64 {
        self.look_at_late();
        self.stuck
    }

    /// A late thread whose answer has arrived becomes idle again. The answer is dropped.
    fn look_at_late(&mut self) {
        for mut thread in std::mem::take(&mut self.late) {
            loop {
                match thread.answers.try_recv() {
                    Ok(dropped) if dropped.is_last() => self.idle = Some(thread),
                    Ok(_more_follows) => continue,
                    Err(TryRecvError::Disconnected) => {}
                    Err(TryRecvError::Empty) => {
                        if !thread.reported && thread.since.elapsed() >= STUCK {
                            thread.reported = true;
                            self.stuck += 1;
                            self.report_stuck(thread.of);
                        }
                        self.late.push(thread);
                    }
                }
                break;
            }
        }
    }

    /// Reports the first one, and then at each power of two: a user who makes reads hang must not fill the
    /// log.
    fn report_stuck(&self, pid: u32) {
        if self.stuck.is_power_of_two() {
            say(&format!(
                "oomtrace: /proc/{pid} does not answer, because the victim's memory is locked: given up ({} so far, at most \
                 {READERS_MAX} at a time)",
                self.stuck
            ));
        }
    }
}

#[cfg(test)]
mod tests;

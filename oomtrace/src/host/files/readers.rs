//! Starts processes that read files which a user can slow down, and waits for them only for a limited time.
//!
//! A read may hang in the kernel in a state that no signal ends, and then its whole process hangs. So another
//! process must do it, one that holds no ring, pin or lock. It is this program, started with `read-files`,
//! with all descriptors closed but one socket. A reader that does not answer is given up and another one is
//! started, up to [`STUCK_MAX`] while they hang.

use std::{
    ffi::OsStr,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    host::files::{
        Dir, FileError, Stamp,
        request::{self, Kind, Request, answer_of},
    },
    stderr::say,
};

/// The most readers that were given up and have not ended.
pub const STUCK_MAX: usize = 8;
/// How long an answer may take where a kill may have to wait, with the start of the process. Files of a busy
/// disk take some milliseconds.
const ANSWER: Duration = Duration::from_millis(200);
/// The same where none has to wait: on a busy host the start of the process alone may take longer than
/// [`ANSWER`].
const PATIENT_ANSWER: Duration = Duration::from_secs(1);
/// How long a place that did not answer is not read again.
const SILENCE: Duration = Duration::from_secs(30);
/// The most places that are remembered for this.
const SILENT_MAX: usize = 64;
/// The most bytes of an answer. No caller asks for more.
const ANSWER_MAX: u32 = 9 << 20;

/// Starts a process that reads; its standard input is the socket.
type Start = fn(OwnedFd) -> io::Result<Child>;

/// The readers of a thread. Clones share them.
#[derive(Clone, Debug)]
pub struct Readers(Arc<Mutex<Pool>>);

impl PartialEq for Readers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Readers {}

#[derive(Debug)]
struct Pool {
    start: Start,
    /// How long an answer may take.
    patience: Duration,
    idle: Option<Process>,
    /// Killed, but not ended yet.
    given_up: Vec<Process>,
    silent: Vec<(PathBuf, Instant)>,
    count: u64,
    /// How long requests took that a new process answered.
    starts: Duration,
}

#[derive(Debug)]
struct Process {
    child: Child,
    socket: UnixStream,
}

impl Drop for Process {
    /// The process ends when its socket is closed, unless it hangs. It holds nothing that others need.
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ignored = self.child.try_wait();
    }
}

impl Default for Readers {
    fn default() -> Self {
        Self::started_by(this_program, ANSWER)
    }
}

/// Starts this program as a reader. It closes inherited descriptors itself, and is not in the terminal's
/// foreground group.
fn this_program(socket: OwnedFd) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("oomtrace")
        .arg("read-files")
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Readers {
    /// For a thread that no kill has to wait for.
    pub fn patient() -> Self {
        Self::started_by(this_program, PATIENT_ANSWER)
    }

    /// Starts no process before the first request.
    fn started_by(start: Start, patience: Duration) -> Self {
        let (given_up, silent, starts) = (Vec::new(), Vec::new(), Duration::ZERO);
        let pool = Pool { start, patience, idle: None, given_up, silent, count: 0, starts };
        Self(Arc::new(Mutex::new(pool)))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long requests took since the last call that a new process answered. Its start is nobody's fault.
    pub fn take_starts(&self) -> Duration {
        std::mem::take(&mut self.pool().starts)
    }

    /// See [`Dir::find`].
    pub fn find(&self, dir: &Dir, name: &Path) -> Result<(), FileError> {
        self.ask(dir, Kind::Find, name, 0).map(drop)
    }

    /// See [`Dir::read`].
    pub fn read(&self, dir: &Dir, name: &Path, max: u64) -> Result<Vec<u8>, FileError> {
        self.ask(dir, Kind::Read, name, max)
    }

    /// See [`Dir::list`].
    pub fn list(&self, dir: &Dir, name: &Path, max: usize) -> Result<Vec<String>, FileError> {
        let names = self.ask(dir, Kind::List, name, u64::try_from(max).unwrap_or(u64::MAX))?;
        Ok(String::from_utf8_lossy(&names).lines().map(str::to_owned).collect())
    }

    /// See [`Dir::stamp`].
    pub fn stamp(&self, dir: &Dir, name: &Path) -> Result<Stamp, FileError> {
        let bytes = self.ask(dir, Kind::Stamp, name, 0)?;
        Stamp::parse(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
    }

    /// See [`super::of_process`].
    pub fn of_process(&self, process: &Path, name: &OsStr, max: u64) -> Result<Vec<u8>, FileError> {
        self.pool().ask(&request::of(process.to_owned(), name, max))
    }

    fn ask(&self, dir: &Dir, kind: Kind, name: &Path, max: u64) -> Result<Vec<u8>, FileError> {
        self.pool().ask(&Request { kind, max, dir: dir.clone(), name: name.to_owned() })
    }
}

impl Pool {
    fn ask(&mut self, request: &Request) -> Result<Vec<u8>, FileError> {
        self.given_up.retain_mut(|process| !process.has_ended());
        self.silent.retain(|(_, since)| since.elapsed() < SILENCE);
        if self.silent.iter().any(|(base, _)| *base == request.dir.base) {
            return Err(FileError::Late);
        }
        if self.given_up.len() >= STUCK_MAX {
            return Err(FileError::Stuck(STUCK_MAX));
        }
        let bytes = request.to_bytes();
        let began = Instant::now();
        let deadline = began + self.patience;
        // A kept reader may have been killed by somebody. Then a new one answers.
        let kept = self.idle.take();
        let was_kept = kept.is_some();
        let mut process = kept.map_or_else(|| Process::start(self.start), Ok)?;
        let mut answer = process.exchange(&bytes, deadline);
        if was_kept && answer.as_ref().is_err_and(|error| !is_late(error)) {
            self.given_up.push(std::mem::replace(&mut process, Process::start(self.start)?));
            answer = process.exchange(&bytes, deadline);
        }
        match answer {
            Ok(answer) => {
                if !was_kept {
                    self.starts = self.starts.saturating_add(began.elapsed());
                }
                self.idle = Some(process);
                answer_of(&answer).unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::InvalidData).into()))
            }
            Err(error) if is_late(&error) => {
                self.give_up(process, &request.dir.base);
                Err(FileError::Late)
            }
            Err(error) => {
                self.given_up.push(process);
                Err(error.into())
            }
        }
    }

    fn give_up(&mut self, mut process: Process, base: &Path) {
        let _ended_already = process.child.kill();
        self.given_up.push(process);
        if self.silent.len() >= SILENT_MAX {
            self.silent.remove(0);
        }
        self.silent.push((base.to_owned(), Instant::now()));
        self.count += 1;
        // A user who makes readers hang must not fill the log.
        if self.count.is_power_of_two() {
            say(&format!(
                "oomtrace: {} did not answer within {} ms and is not read for {} s: a reader given up ({} so far, at most {STUCK_MAX} that \
                 hang)",
                base.display(),
                self.patience.as_millis(),
                SILENCE.as_secs(),
                self.count
            ));
        }
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Process {
    fn start(start: Start) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let child = start(theirs.into())?;
        Ok(Self { child, socket })
    }

    fn has_ended(&mut self) -> bool {
        // Killing and reaping are tried each time: a process that hangs may not have ended yet.
        let _ended_already = self.child.kill();
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn exchange(&mut self, request: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
        self.socket.set_write_timeout(Some(left(deadline)?))?;
        self.socket.write_all(request)?;
        let mut len = [0; 4];
        self.read(&mut len, deadline)?;
        let len = u32::from_le_bytes(len);
        if len > ANSWER_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read(&mut answer, deadline)?;
        Ok(answer)
    }

    fn read(&mut self, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !into.is_empty() {
            self.socket.set_read_timeout(Some(left(deadline)?))?;
            match self.socket.read(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => into = into.get_mut(read..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn that_hangs(socket: OwnedFd) -> io::Result<Child> {
        Command::new("/bin/sleep").arg("1000").stdin(socket).spawn()
    }

    fn that_ends(socket: OwnedFd) -> io::Result<Child> {
        Command::new("/bin/true").stdin(socket).spawn()
    }

    const SLOW_START: Duration = Duration::from_millis(50);

    /// Starts slowly, then has two answers: both names exist.
    fn that_starts_slowly(socket: OwnedFd) -> io::Result<Child> {
        let script = r"sleep 0.05; printf '\1\0\0\0\0\1\0\0\0\0' >&0; exec sleep 1000";
        Command::new("/bin/sh").args(["-c", script]).stdin(socket).spawn()
    }

    #[test]
    fn how_long_a_start_took_is_known_once() {
        let readers = Readers::started_by(that_starts_slowly, Duration::from_secs(60));
        let find = || readers.find(&of("/a"), Path::new("x")).unwrap();
        find();
        assert!(readers.take_starts() >= SLOW_START);
        find();
        assert_eq!(readers.take_starts(), Duration::ZERO, "the process was there already");
    }

    fn of(base: &str) -> Dir {
        Dir { base: base.into(), below: PathBuf::new(), foreign: true }
    }

    #[test]
    fn one_that_hangs_is_given_up_and_its_place_left_alone() {
        let readers = Readers::started_by(that_hangs, ANSWER);
        let ask = |base: &str| readers.find(&of(base), Path::new("x"));
        assert!(matches!(ask("/a"), Err(FileError::Late)));
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(matches!(ask("/a"), Err(FileError::Late)));
        }
        assert!(began.elapsed() < ANSWER * 1000, "asked again");
        assert_eq!(readers.pool().count, 1);
        assert!(matches!(ask("/b"), Err(FileError::Late)));
        assert_eq!(readers.pool().count, 2);
        // These readers can be killed, so none of them counts as hanging.
        while !readers.pool().given_up.iter_mut().all(Process::has_ended) {
            std::thread::yield_now();
        }
        assert!(matches!(ask("/a"), Err(FileError::Late)));
        assert!(readers.pool().given_up.is_empty());
    }

    #[test]
    fn one_that_ends_is_no_answer() {
        let readers = Readers::started_by(that_ends, ANSWER);
        for _ in 0..3 {
            let answer = readers.find(&of("/a"), Path::new("x"));
            assert!(matches!(&answer, Err(FileError::Io(_))), "{answer:?}");
        }
        assert_eq!(readers.pool().count, 0);
    }
}

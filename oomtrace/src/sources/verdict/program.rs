//! Runs a program and reads its answer, within a limit of time and bytes.
//!
//! Neither the program nor a child that keeps its pipes can make the caller wait longer.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, kill_process_group},
};

/// The most bytes that are read from each output. An answer has a few hundred.
const OUTPUT_MAX: usize = 64 << 10;
/// How often to check if it has ended, if its outputs do not show it.
const LOOK: Duration = Duration::from_millis(20);

/// The result of a program.
#[derive(Debug)]
pub(super) struct Said {
    /// How it ended; `None` if it ran too long and was killed.
    pub(super) status: Option<ExitStatus>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs `program` for at most `limit`.
pub(super) fn run<'a>(
    program: &Path,
    words: impl IntoIterator<Item = &'a OsStr>,
    limit: Duration,
) -> io::Result<Said> {
    let deadline = Instant::now() + limit;
    let mut command = Command::new(program);
    command.args(words).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec it makes four system calls and allocates nothing.
    unsafe { command.pre_exec(undo_protection) };
    let mut child = command.spawn()?;
    let mut pipes = (child.stdout.take(), child.stderr.take());
    for pipe in [pipes.0.as_ref().map(AsFd::as_fd), pipes.1.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
        fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
    }
    let mut said = Said { status: None, stdout: Vec::new(), stderr: Vec::new() };
    loop {
        // Check first, then read the pipes a last time: after its end they hold all its output.
        said.status = child.try_wait()?;
        let open = [take(&mut pipes.0, &mut said.stdout), take(&mut pipes.1, &mut said.stderr)];
        if said.status.is_some() {
            return Ok(said);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            end(&mut child);
            return Ok(said);
        }
        let pipes = [pipes.0.as_ref().map(AsFd::as_fd), pipes.1.as_ref().map(AsFd::as_fd)];
        wait(pipes.into_iter().zip(open).filter_map(|(pipe, open)| pipe.filter(|_| open)), left.min(LOOK));
    }
}

/// Undoes the special settings of this process: that it is never a victim, and that it leaves no core dump.
fn undo_protection() -> io::Result<()> {
    // SAFETY: takes numbers only. After it, this user owns /proc/self again.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, b"0")?;
    Ok(())
}

/// Kills the program and the processes that it started.
fn end(child: &mut Child) {
    let _gone = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
        .map(|group| kill_process_group(group, Signal::KILL));
    // It may hang in the kernel, so the wait is limited.
    for _ in 0..10 {
        if !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        std::thread::sleep(LOOK);
    }
}

/// Reads what is in a pipe. Returns true if more may come.
fn take(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> bool {
    let Some(from) = pipe else { return false };
    let mut chunk = [0; 4096];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => {
                let room = OUTPUT_MAX.saturating_sub(into.len()).min(read);
                into.extend_from_slice(chunk.get(..room).unwrap_or_default());
                // Too much output: the rest is not read.
                if room < read {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => break,
        }
    }
    *pipe = None;
    false
}

fn wait<'a>(pipes: impl Iterator<Item = BorrowedFd<'a>>, limit: Duration) {
    let mut polled: Vec<PollFd<'_>> =
        pipes.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    let _ignored = poll(&mut polled, Some(&limit));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// Runs in a thread of its own, so that a test that hangs fails.
    fn said(script: &'static str, limit: Duration) -> Said {
        let (done, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            done.send(run(Path::new("/bin/sh"), ["-c", script].map(OsStr::new), limit).unwrap())
        });
        waits.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn what_it_says_is_heard() {
        let heard = said("echo out; echo err >&2; exit 3", LONG);
        assert_eq!(heard.status.unwrap().code(), Some(3));
        assert_eq!((heard.stdout.as_slice(), heard.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(said("cat /proc/self/oom_score_adj", LONG).stdout, b"0\n");
    }

    #[test]
    fn who_keeps_its_pipes_keeps_nobody_waiting() {
        let heard = said("sleep 1000 & echo out $!", LONG);
        assert!(heard.status.unwrap().success());
        let pid = String::from_utf8(heard.stdout).unwrap();
        let pid = pid.trim_end().strip_prefix("out ").unwrap().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_that_it_started() {
        let heard = said("sleep 1000 & echo $!; wait", Duration::from_millis(300));
        assert!(heard.status.is_none());
        let process = format!("/proc/{}", String::from_utf8(heard.stdout).unwrap().trim_end());
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
        };
        while is_alive() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_that_never_stops_is_not_heard_out() {
        let heard = said("yes", LONG);
        assert_eq!(heard.stdout.len(), OUTPUT_MAX);
        assert!(!heard.status.unwrap().success());
    }
}

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rustix::fs::{CWD, Mode, mkfifoat};

use crate::facts::CommandLine;
use crate::host::process::{files::start_ticks, *};

/// Long enough for a busy machine. No test waits this long.
const LONG: Duration = Duration::from_secs(60);

fn stat(start_ticks: u64) -> String {
    let zeros = "0 ".repeat(18);
    format!("7 (a) R 9 (b) S {zeros}{start_ticks} 148840 3932160 493 18446744073709551615\n")
}

/// A `/proc` with one process, 7, that started at tick 500.
fn proc_with(cmdline: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let process = dir.path().join("proc/7");
    fs::create_dir_all(&process).unwrap();
    fs::write(process.join("stat"), stat(500)).unwrap();
    fs::write(process.join("cmdline"), cmdline).unwrap();
    symlink("/usr/bin/python3.11", process.join("exe")).unwrap();
    dir
}

fn started(ticks: u64) -> Option<BootTime> {
    let tick_ns = 1_000_000_000 / identity::ticks_per_second();
    // Anywhere within the tick.
    Some(BootTime(ticks * tick_ns + tick_ns - 1))
}

fn victim(tid: u32, tgid: u32, start: Option<BootTime>) -> Victim {
    Victim { tid, tgid, start, marked: BootTime(u64::MAX) }
}

fn read(dir: &tempfile::TempDir, tid: u32, tgid: u32, start: Option<BootTime>) -> ProcessFacts {
    ProcessReader::new(&Root::at(dir.path()), CommandLineChoice::Full)
        .unwrap()
        .read(&victim(tid, tgid, start), LONG)
}

#[test]
fn executable_and_command_line() {
    let facts = read(&proc_with(b"python3\0-c\0x = 1\0\0"), 7, 7, started(500));
    assert_eq!(facts.executable.unwrap(), b"/usr/bin/python3.11");
    assert_eq!(facts.command_line.unwrap(), b"python3 -c x = 1");
    assert!(!facts.command_line_cut);
}

#[test]
fn a_long_command_line_is_cut() {
    let exact = read(&proc_with(&[b'x'; COMMAND_LINE_BYTES]), 7, 7, started(500));
    assert_eq!((exact.command_line.unwrap().len(), exact.command_line_cut), (COMMAND_LINE_BYTES, false));
    let longer = read(&proc_with(&[b'x'; COMMAND_LINE_BYTES + 1]), 7, 7, started(500));
    let cut = [&[b'x'; COMMAND_LINE_BYTES], "…".as_bytes()].concat();
    assert_eq!((longer.command_line.unwrap(), longer.command_line_cut), (cut, true));
}

#[test]
fn no_character_is_cut_in_two() {
    let line = |text: &str, len: usize| {
        let arguments = text.as_bytes().iter().copied().take(len).collect();
        let read = CommandLine { arguments, cut: true };
        String::from_utf8(command_line_of(&read, CommandLineChoice::Full).unwrap().0).unwrap()
    };
    assert_eq!(line("grüße", 3), "gr…");
    assert_eq!(line("grüße", 4), "grü…");
    assert_eq!(line("a😀", 4), "a…");
}

#[test]
fn of_a_command_line_only_what_is_wanted() {
    let of = |cmdline: &[u8], wanted| {
        let dir = proc_with(cmdline);
        let mut reader = ProcessReader::new(&Root::at(dir.path()), wanted).unwrap();
        let facts = reader.read(&victim(7, 7, started(500)), LONG);
        assert_eq!(facts.executable.unwrap(), b"/usr/bin/python3.11");
        (facts.command_line, facts.command_line_cut)
    };
    let secret = [b"db\0--password=hunter2\0", [b'x'; COMMAND_LINE_BYTES].as_slice()].concat();
    assert_eq!(of(&secret, CommandLineChoice::Program), (Ok(b"db".to_vec()), false));
    assert_eq!(of(&secret, CommandLineChoice::None), (Err(Reason::NotWanted), false));
    let read = |arguments: &[u8], wanted| {
        command_line_of(&CommandLine { arguments: arguments.to_vec(), cut: true }, wanted)
    };
    assert_eq!(read(b"db\0--password=hunt", CommandLineChoice::Program), Some((b"db".to_vec(), false)));
    assert_eq!(read(b"/very/long", CommandLineChoice::Program), Some(("/very/long…".into(), true)));
    assert_eq!(read(b"db\0--password=hunt", CommandLineChoice::None), None);
}

#[test]
fn never_of_another_process() {
    let dir = proc_with(b"other\0");
    assert_eq!(read(&dir, 7, 7, started(499)), ProcessFacts::none(Reason::AnotherProcess));
    assert_eq!(read(&dir, 7, 7, started(501)), ProcessFacts::none(Reason::AnotherProcess));
    assert_eq!(read(&dir, 7, 7, None), ProcessFacts::none(Reason::StartUnknown));
    assert_eq!(read(&dir, 8, 8, started(500)), ProcessFacts::none(Reason::Gone));
}

/// A process that takes the id after the mark may start in the tick of the mark, and no earlier.
#[test]
fn never_of_one_that_may_have_started_after_the_mark() {
    let dir = proc_with(b"next\0");
    let mut reader = ProcessReader::new(&Root::at(dir.path()), CommandLineChoice::Full).unwrap();
    let mut marked = |ticks: u64| {
        let start = started(500);
        // At the beginning of the tick.
        let tick_ns = 1_000_000_000 / identity::ticks_per_second();
        let victim = Victim { tid: 7, tgid: 7, start, marked: BootTime(ticks * tick_ns) };
        (reader.executable(&victim, LONG), reader.read(&victim, LONG))
    };
    let (executable, facts) = marked(500);
    assert_eq!(executable, Err(Reason::StartedJustBefore));
    assert_eq!(facts, ProcessFacts::none(Reason::StartedJustBefore));
    let (executable, facts) = marked(501);
    assert_eq!(executable.unwrap(), b"/usr/bin/python3.11");
    assert_eq!(facts.command_line.unwrap(), b"next");
}

#[test]
fn the_executable_alone_is_of_no_other_process() {
    let dir = proc_with(b"next\0");
    let mut reader = ProcessReader::new(&Root::at(dir.path()), CommandLineChoice::Full).unwrap();
    assert_eq!(reader.executable(&victim(7, 7, started(499)), LONG), Err(Reason::AnotherProcess));
    assert_eq!(reader.executable(&victim(7, 7, None), LONG), Err(Reason::StartUnknown));
}

#[test]
fn a_thread_may_be_known_by_its_process() {
    let dir = proc_with(b"threads\0");
    let leader = dir.path().join("proc/7/task/6");
    fs::create_dir_all(&leader).unwrap();
    fs::write(leader.join("stat"), stat(400)).unwrap();
    for ticks in [400, 500] {
        assert_eq!(read(&dir, 7, 6, started(ticks)).command_line.unwrap(), b"threads", "{ticks}");
    }
    assert_eq!(read(&dir, 7, 6, started(450)), ProcessFacts::none(Reason::AnotherProcess));
}

#[test]
fn a_released_memory_is_told() {
    let dir = proc_with(b"");
    fs::remove_file(dir.path().join("proc/7/exe")).unwrap();
    let facts = read(&dir, 7, 7, started(500));
    assert_eq!(facts.executable, Err(Reason::Released));
    assert_eq!(facts.command_line, Err(Reason::Empty));
}

/// A process whose command line cannot be read until somebody writes it, as if it held its own mmap lock.
fn locked() -> (tempfile::TempDir, PathBuf) {
    let dir = proc_with(b"");
    let cmdline = dir.path().join("proc/7/cmdline");
    fs::remove_file(&cmdline).unwrap();
    mkfifoat(CWD, &cmdline, Mode::RUSR | Mode::WUSR).unwrap();
    (dir, cmdline)
}

#[test]
fn a_stuck_read_costs_no_other_victim_a_fact() {
    let (dir, cmdline) = locked();
    let other = dir.path().join("proc/8");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("stat"), stat(500)).unwrap();
    fs::write(other.join("cmdline"), "other").unwrap();
    symlink("/usr/bin/other", other.join("exe")).unwrap();
    let mut reader = ProcessReader::new(&Root::at(dir.path()), CommandLineChoice::Full).unwrap();
    for number in 0..READERS_MAX {
        // The first wait is long: what takes no lock must not be lost.
        let wait = Duration::from_millis(if number == 0 { 1000 } else { 10 });
        let stuck = reader.read(&victim(7, 7, started(500)), wait);
        assert_eq!(stuck.command_line, Err(Reason::TooSlow(wait)));
        assert!(number > 0 || stuck.executable.unwrap() == b"/usr/bin/python3.11");
        if reader.late.len() < READERS_MAX {
            assert_eq!(reader.read(&victim(8, 8, started(500)), LONG).command_line.unwrap(), b"other");
        }
    }
    // One more is refused.
    let next = reader.read(&victim(8, 8, started(500)), LONG);
    assert_eq!(next.command_line, Err(Reason::Pending(READERS_MAX)));
    assert_eq!(next.executable.unwrap(), b"/usr/bin/other");
    for thread in &mut reader.late {
        thread.since -= STUCK;
    }
    assert_eq!((reader.stuck(), reader.stuck()), (8, 8));
    // When the reads end, the readers serve again, and their late answers are dropped.
    drop(fs::OpenOptions::new().write(true).open(&cmdline).unwrap());
    fs::remove_file(&cmdline).unwrap();
    fs::write(&cmdline, "next").unwrap();
    let next = loop {
        let facts = reader.read(&victim(7, 7, started(500)), LONG);
        if facts.command_line != Err(Reason::Pending(READERS_MAX)) {
            break facts;
        }
        thread::yield_now();
    };
    assert_eq!(next.command_line.unwrap(), b"next");
}

#[test]
fn a_real_process_as_the_kernel_knows_it() {
    let mut child =
        Command::new("/bin/cat").arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    // Its answer shows that its command line is set: a spawned process has none for a moment.
    child.stdin.as_ref().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let line = fs::read(format!("/proc/{pid}/stat")).unwrap();
    let start = started(start_ticks(&line).unwrap());
    let mut reader = ProcessReader::new(&Root::host(), CommandLineChoice::Full).unwrap();
    let alive = reader.read(&victim(pid, pid, start), LONG);
    child.kill().unwrap();
    // Dead and not reaped: still in /proc, but without memory.
    rustix::process::waitid(
        rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
    )
    .unwrap();
    let zombie = reader.read(&victim(pid, pid, start), LONG);
    child.wait().unwrap();
    let gone = reader.read(&victim(pid, pid, start), LONG);
    assert_eq!(alive.command_line.unwrap(), b"/bin/cat -");
    assert!(!alive.executable.unwrap().is_empty());
    assert_eq!(zombie.executable, Err(Reason::Released));
    assert_eq!(zombie.command_line, Err(Reason::Empty));
    assert_eq!(gone, ProcessFacts::none(Reason::Gone));
}

#[test]
fn a_stat_line_with_any_comm() {
    assert_eq!(start_ticks(stat(u64::MAX).as_bytes()), Some(u64::MAX));
    assert_eq!(start_ticks(b"7 (a) R 0"), None);
    assert_eq!(start_ticks(b""), None);
}

proptest! {
    #[test]
    fn any_stat_is_safe(stat: Vec<u8>) {
        let _ = start_ticks(&stat);
    }
}

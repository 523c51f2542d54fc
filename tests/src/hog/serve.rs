//! The hog itself: reads commands from stdin, one on each line, and answers `ok …` or `failed …` on stdout.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use super::memory::{self, Kind};
use super::{namespace, reuse, signals, storm, tasks};

/// Serves until stdin ends.
pub(super) fn hog() -> ! {
    say(&format!("ready {}", std::process::id()));
    serve()
}

/// Waits for the end of stdin, then removes a cgroup tree.
pub(super) fn tidy(dir: Option<&Path>) -> ! {
    let _ignored = io::stdin().read_to_end(&mut Vec::new());
    if let Some(Err(error)) = dir.map(crate::cgroup::remove_tree) {
        let _ignored = writeln!(io::stderr(), "{error:#}");
        exit(1);
    }
    exit(0)
}

fn serve() -> ! {
    while let Some(line) = command() {
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default().to_owned();
        match obey(&verb, &words.collect::<Vec<_>>()) {
            Ok(answer) => say(&format!("ok {answer}")),
            Err(error) => say(&format!("failed {line}: {error}")),
        }
    }
    exit(0)
}

/// The caller may be gone. Then stdin ends too.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ignored = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Reads one line of stdin without a buffer: a child that takes over must find the next line there.
fn command() -> Option<String> {
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let mut line = Vec::new();
    let mut byte = [0];
    while stdin.read(&mut byte).ok()? == 1 {
        if byte == [b'\n'] {
            return String::from_utf8(line).ok();
        }
        line.extend(byte);
    }
    None
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}

fn number<T: std::str::FromStr>(word: Option<&&str>) -> io::Result<T> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| wrong("not a number"))
}

fn bytes(word: Option<&&str>) -> io::Result<Vec<u8>> {
    let word = word.ok_or_else(|| wrong("nothing"))?;
    (0..word.len())
        .step_by(2)
        .map(|at| word.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| wrong("not hexadecimal"))
}

fn path(word: Option<&&str>) -> io::Result<PathBuf> {
    bytes(word).map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// What a hog does with signals.
fn obey_with_signals(words: &[&str]) -> io::Result<()> {
    let number_of = |word: Option<&&str>| number::<i32>(word);
    match words {
        ["send", pid, signal] => signals::send(number_of(Some(pid))?, number_of(Some(signal))?),
        ["ignore-term"] => signals::ignore_term(),
        ["as-kernel"] => signals::end_in_the_kernels_name(),
        ["exit", code] => exit(number_of(Some(code))?),
        ["processor-time"] => signals::use_up_processor_time(),
        ["namespace-of", others] => signals::end_a_namespace_of(number(Some(others))?),
        ["storm", times] => signals::storm(number(Some(times))?),
        _ => Err(wrong("no such act")),
    }
}

fn obey(verb: &str, words: &[&str]) -> io::Result<String> {
    let first = words.first();
    match verb {
        "anon" => memory::take(Kind::Anonymous, number(first)?)?,
        "shmem" => memory::take(Kind::Shared, number(first)?)?,
        "own-limit" => {
            tasks::end_by_its_own_limit()?;
            memory::take_at_once(number(first)?)?;
        }
        "fill" => {
            let (written, error) = memory::fill(number(first)?)?;
            return Ok(format!("{written} {}", error.and_then(|error| error.raw_os_error()).unwrap_or(0)));
        }
        // 0 means the writing process itself, in any pid namespace.
        "join" => std::fs::write(path(first)?, "0")?,
        "comm" => tasks::name(&bytes(first)?)?,
        "adj" => std::fs::write("/proc/self/oom_score_adj", first.ok_or_else(|| wrong("nothing"))?)?,
        "signal" => obey_with_signals(words)?,
        "threads" => tasks::start_threads(number(first)?)?,
        "pour" => memory::pour(&path(first)?, number(words.get(1))?)?,
        "mlock" => memory::take_locked(number(first)?)?,
        "uid" => tasks::become_user(number(first)?)?,
        "node" => tasks::bind_to_node(number(first)?)?,
        "one-processor" => tasks::stay_on_one_processor()?,
        "run-last" => tasks::run_last()?,
        "write" => {
            let result = std::fs::write(path(first)?, bytes(words.get(1))?);
            return Ok(result.err().and_then(|error| error.raw_os_error()).unwrap_or(0).to_string());
        }
        "share" => {
            tasks::stay_on_one_processor()?;
            return Ok(tasks::share_memory()?.to_string());
        }
        "thread" => go_on_in_thread(first == Some(&"exit"))?,
        "child" => {
            let signal = child(first == Some(&"apart"))?;
            say(&format!("ended {signal}"));
        }
        "lock" => {
            let file = path(first)?;
            std::thread::Builder::new().spawn(move || memory::lock_for_ever(&file))?;
        }
        "namespace" => namespace::end_one()?,
        "reuse" => {
            let ids = reuse::again_and_again(&path(first)?, number(words.get(1))?, number(words.get(2))?)?;
            return Ok(ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        }
        "rage" => {
            let (from, count) = (number(words.get(1))?, number(words.get(2))?);
            return Ok(storm::rage(&path(first)?, from, count)?.to_string());
        }
        "kill-below" => {
            let names = words.get(1..).unwrap_or_default();
            return Ok(storm::kill_below(&path(first)?, names)?.to_string());
        }
        "quit" => exit(0),
        _ => return obey_other(verb, words),
    }
    Ok(String::new())
}

/// Other commands.
fn obey_other(verb: &str, words: &[&str]) -> io::Result<String> {
    let first = words.first();
    match verb {
        "touch" => {
            storm::touch_for_ever(
                &words.iter().map(|word| path(Some(word))).collect::<io::Result<Vec<_>>>()?,
            )?;
        }
        "descriptors" => memory::descriptors(number(first)?)?,
        "sockets" => return Ok(memory::sockets(number(first)?)?.to_string()),
        "cache" => memory::cache(&path(first)?, number(words.get(1))?)?,
        "lock-file" => memory::lock_file(&path(first)?)?,
        _ => return Err(wrong("no such command")),
    }
    Ok(String::new())
}

fn go_on_in_thread(leader_exits: bool) -> io::Result<()> {
    tasks::stay_on_one_processor()?;
    let leader = tasks::thread_id();
    let thread = std::thread::Builder::new().spawn(move || {
        // The other thread must have ended, or sleep, before the answer.
        let resting = if leader_exits { 'Z' } else { 'S' };
        while state(leader) != Some(resting) {
            std::thread::yield_now();
        }
        say(&format!("ok {}", tasks::thread_id()));
        serve()
    })?;
    if leader_exits {
        tasks::end_thread();
    }
    tasks::run_last()?;
    // It never returns: it serves until the process ends.
    let _ignored = thread.join();
    exit(0)
}

fn state(thread: libc::pid_t) -> Option<char> {
    let stat = std::fs::read(format!("/proc/self/task/{thread}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat).into_owned();
    text.rsplit_once(") ")?.1.chars().next()
}

/// Starts a child on the same stdin and stdout and waits for its end. Returns the signal, or 0 if it ended by
/// itself.
fn child(apart: bool) -> io::Result<i32> {
    if apart {
        tasks::new_pid_namespace()?;
    }
    let mut child = Command::new(std::env::current_exe()?).arg(super::SUBCOMMAND).spawn()?;
    say(&format!("spawned {}", child.id()));
    Ok(child.wait()?.signal().unwrap_or(0))
}

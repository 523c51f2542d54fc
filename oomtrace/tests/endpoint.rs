//! `/metrics` as a scraper, a stranger and an operator meet it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use oomtrace::outputs::{
    BestEffort, Condition,
    metrics::{Address, Metrics},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

/// An endpoint and the loop behind it.
struct Served {
    dir: TempDir,
    stop: Arc<AtomicBool>,
    looping: Option<JoinHandle<()>>,
}

impl Served {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (socket(&dir), Arc::clone(&stop));
        let (started, is_started) = std::sync::mpsc::channel();
        let looping = thread::spawn(move || {
            let mut metrics = Metrics::new(16).listening(&Address::Unix(path)).unwrap();
            started.send(()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
                let asked = metrics.descriptor().unwrap().try_clone_to_owned().unwrap();
                poll(&mut [PollFd::new(&asked, PollFlags::IN)], Some(&wait)).unwrap();
                metrics.answer(&Condition::default());
            }
        });
        is_started.recv().unwrap();
        Self { dir, stop, looping: Some(looping) }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(socket(&self.dir)).unwrap()
    }

    fn get(&self, request: &[u8]) -> String {
        answer(self.connect(), request)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.looping.take().unwrap().join().unwrap();
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("metrics.sock")
}

/// All that comes until the other side closes.
fn answer(mut stream: impl Read + Write, request: &[u8]) -> String {
    // Who is refused before the end of a request may be gone by now.
    let _refused = stream.write_all(request);
    let mut answer = String::new();
    let _reset = stream.read_to_string(&mut answer);
    answer
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_scrape_has_the_page_and_what_is_said_of_the_process() {
    let served = Served::start();
    let answer = served.get(GET);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\nConnection: close", body.len())), "{head}");
    for name in [
        "oomtrace_kills_total{scope=\"host\"} 0",
        "process_start_time_seconds ",
        "process_resident_memory_bytes ",
    ] {
        assert!(body.lines().any(|line| line.starts_with(name)), "{name}: {body}");
    }
    // In pieces, as a network brings it.
    let mut slow = served.connect();
    for byte in GET {
        slow.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_is_no_scrape_is_refused() {
    let served = Served::start();
    let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 20_000]].concat();
    for (request, status) in [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".as_slice(), "405"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"\x16\x03\x01\x02\0\r\n\r\n", "400"),
        (&long, "431"),
    ] {
        let answer = served.get(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
    assert!(served.get(GET).starts_with("HTTP/1.1 200"));
}

#[test]
fn those_who_say_nothing_keep_nobody_out() {
    let served = Served::start();
    let idle: Vec<UnixStream> = (0..40).map(|_| served.connect()).collect();
    assert!(served.get(GET).starts_with("HTTP/1.1 200"));
    // Who asks and goes leaves nothing behind.
    for _ in 0..100 {
        served.connect().write_all(GET).unwrap();
    }
    assert!(served.get(GET).starts_with("HTTP/1.1 200"));
    drop(idle);
}

#[test]
fn a_loop_that_hangs_answers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new(16).listening(&Address::Unix(socket(&dir))).unwrap();
    assert_eq!(answer(UnixStream::connect(socket(&dir)).unwrap(), GET), "");
    drop(metrics);
    assert!(!socket(&dir).exists());
}

fn oomtrace() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomtrace"));
    command.args(["run", "-o", "json"]).stdin(Stdio::null());
    command
}

#[test]
fn an_address_that_cannot_be_had_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let missing = format!("unix:{}/missing/metrics.sock", dir.path().display());
    for (address, hint) in [
        (at.as_str(), "hint: another process uses this address"),
        ("192.0.2.1:9469", "hint: this host has no such address"),
        ("fd", "hint: start it with oomtrace-metrics.socket"),
        (&missing, "hint: its directory must be there"),
    ] {
        let output = oomtrace().args(["--metrics-listen", address]).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{address}: {err}");
        assert!(err.contains(hint) && err.contains("cannot listen at"), "{address}: {err}");
    }
    let output = oomtrace().args(["--metrics-listen", "localhost:9469"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// The first line, then an answer to a scrape, then the end.
fn scraped(command: &mut Command, scrape: impl FnOnce() -> String) -> String {
    assert!(rustix::process::geteuid().is_root(), "run as root: this test attaches to the kernel");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let answer = scrape();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert!(child.wait().unwrap().success() && first.contains("\"type\":\"start\""), "{first}");
    answer
}

fn get_at(path: &Path) -> String {
    answer(UnixStream::connect(path).unwrap(), GET)
}

#[test]
fn a_run_answers_at_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(&dir);
    let mut command = oomtrace();
    let answer =
        scraped(command.arg("--metrics-listen").arg(format!("unix:{}", path.display())), || get_at(&path));
    assert!(
        answer.contains("\noomtrace_build_info{version=\"")
            && answer.contains("\noomtrace_ring_size_bytes 524288\n"),
        "{answer}"
    );
    assert!(!path.exists(), "its name stays");
}

#[test]
fn a_run_answers_at_the_socket_that_it_is_handed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    // Who hands it in says to which process, which a shell knows of itself.
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_oomtrace")]);
    command.args(["run", "-o", "json", "--metrics-listen", "fd"]).stdin(Stdio::null());
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: a system call with numbers, which is all that may be done between fork and exec.
    unsafe {
        command.pre_exec(move || match (libc::dup2(fd, 3), libc::fcntl(3, libc::F_SETFD, 0)) {
            (3, 0) => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let answer = scraped(&mut command, || answer(TcpStream::connect(at).unwrap(), GET));
    assert!(answer.contains("\noomtrace_kills_total{scope=\"memcg\"} "), "{answer}");
}

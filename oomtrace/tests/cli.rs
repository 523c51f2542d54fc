//! The real binary as an operator uses it: wrong options, missing privileges, and its end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "cli/options.rs"]
mod options;

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, geteuid, kill_process, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

const SYS_ADMIN: u32 = 21;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

fn oomtrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomtrace"));
    command.args(arguments).stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

/// Exit code, standard output, standard error.
fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    ended(oomtrace(arguments).output().unwrap())
}

#[track_caller]
fn as_root() {
    assert!(geteuid().is_root(), "run as root: this test attaches to the kernel or changes its user");
}

/// A process started with `run`, which prints JSON.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn spawn(mut command: Command) -> Self {
        as_root();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Starts it and reads its first line.
    fn start(command: Command) -> (Self, Value) {
        let mut running = Self::spawn(command);
        let first = running.line();
        (running, first)
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        if self.stdout.read_line(&mut line).unwrap() == 0 {
            let mut stderr = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("ended without a line: {stderr}");
        }
        serde_json::from_str(&line).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads the rest of its output. Returns how it ended.
    fn end(mut self) -> (i32, String, String) {
        let mut out = String::new();
        self.stdout.read_to_string(&mut out).unwrap();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

#[test]
fn what_is_typed_wrong_is_a_usage_error() {
    for (arguments, with) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["no-such-command"], "no-such-command"),
        (&["run", "--count", "0"], "--count"),
        (&["run", "--count", "many"], "--count"),
        (&["run", "--timeout", "30"], "ms, s, m, h and d"),
        (&["run", "--timeout", "1.5s"], "a whole number"),
        (&["run", "--timeout", "s"], "a number and a unit"),
        (&["run", "--timeout", "99999999999999999999s"], "--timeout"),
        (&["run", "--timeout", "18446744073709551615h"], "too long"),
        (&["run", "--ring-size", "12KiB"], "power of two"),
        (&["run", "--ring-size", "1"], "at least 8192 bytes"),
        (&["run", "--ring-size", "4KiB"], "at least 8192 bytes"),
        (&["run", "--ring-size", "4294967296"], "too large"),
        (&["run", "--file", "-"], "./-"),
        (&["run", "--file-max-size", "1KiB", "--file", "x"], "at least 4096"),
        (&["run", "--container", ""], "--container"),
        (&["run", "--scope", "node"], "mempolicy"),
        (&["log", "--type", "kill"], "shared_mm_kill"),
        (&["run", "--ring-size", "1024MiB"], "at most 256MiB"),
        (&["run", "--ring-size", "1GiB"], "at most 256MiB"),
        (&["run", "--ring-size", "4GB"], "KiB and MiB"),
        (&["replay", "--page-size", "0", "x"], "--page-size"),
        (&["run", "--runtime-root", "docker"], "docker=/data/docker"),
        (&["run", "--runtime-root", "docker=data"], "absolute"),
        (&["run", "--runtime-root", "lxc=/data"], "containerd"),
        (&["run", "--hook", "uprobe"], "fentry"),
        (&["run", "-o", "xml"], "json"),
        (&["run", "--tag", "cluster"], "KEY=VALUE"),
        (&["run", "--tag", "=blue"], "letters"),
        (&["run", "--tag", "a.b=blue"], "letters"),
        (&["run", "--tag", "cluster="], "at least one character"),
        (&["run", "--tag", "cluster=a\nb"], "control character"),
        (&["run", "--tag", "a=1", "--tag", "a=2"], "given twice"),
        (&["run", "--tag", "a=1,a=2"], "given twice"),
        (&["run", "--label", ""], "at least one character"),
        (&["run", "--label", "app", "--label", "app.kubernetes.io/name"], "many stores"),
        (&["run", "--label", "com.docker.compose"], "com.docker.compose.project"),
        (&["containers", "--label", "com.docker.compose"], "com.docker.compose.project"),
        (&["completions", "dosbatch"], "bash"),
        (&["run", "--metrics-file", "/x/oomtrace.txt"], "end in .prom"),
        (&["run", "--metrics-file", "-"], "end in .prom"),
        (&["run", "--metrics-series", "0"], "--metrics-series"),
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(with), "{arguments:?}: {err}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("file"), "").unwrap();
    for (file, hint) in [
        (path("missing/events"), "its directory does not exist: make it first"),
        (path(""), "it is a directory: name a file in it"),
        (path("file/events"), "not a directory"),
    ] {
        let (code, out, err) = run(&["run", "--file", &file]);
        assert_eq!((code, out.as_str()), (1, ""), "{file}: {err}");
        assert!(err.contains(&file) && err.contains("hint: ") && err.contains(hint), "{err}");
    }
    let (code, _, err) = run(&["run", "--metrics-file", &path("missing/oomtrace.prom")]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("missing/oomtrace.prom") && err.contains("hint: "), "{err}");
    let (code, _, err) = run(&["run", "--file", &path("events"), "--record", &path("missing/record")]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("record"), "{err}");
}

/// A copy of the binary that every user can run.
fn for_everybody() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("oomtrace");
    // By another process: a file that this one has open for writing is open in the children of the other tests too, and then it
    // cannot be executed.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_oomtrace")).arg(&path).status().unwrap();
    assert!(copied.success(), "cp: {copied}");
    (dir, path)
}

#[test]
fn without_privilege_it_says_what_is_missing() {
    as_root();
    let (_dir, path) = for_everybody();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&path);
        ended(command.args(arguments).current_dir("/").gid(65534).uid(65534).output().unwrap())
    };
    for arguments in [&[][..], &["run", "--hook", "none"], &["run", "--hook", "kprobe", "-o", "text"]] {
        let (code, out, err) = as_nobody(arguments);
        assert_eq!((code, out.as_str()), (77, ""), "{arguments:?}: {err}");
        assert!(err.contains("hint: run it as root, or with CAP_BPF and CAP_PERFMON\n"), "{err}");
    }
    let (code, out, err) = as_nobody(&["check"]);
    assert_eq!(code, 77, "{err}");
    assert!(out.contains("oomtrace cannot run here.") && out.contains("no CAP_BPF"), "{out}");
    let (code, out, _) = as_nobody(&["check", "-o", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["usable"]), (77, &Value::Bool(false)));
    // Commands that need no privilege work.
    assert_eq!(as_nobody(&["schema"]).0, 0);
}

#[test]
fn pins_need_privilege_too() {
    as_root();
    let (_dir, path) = for_everybody();
    let (code, out, err) = ended(
        Command::new(&path).args(["run", "--pin"]).current_dir("/").gid(65534).uid(65534).output().unwrap(),
    );
    assert_eq!((code, out.as_str()), (77, ""), "{err}");
    assert!(err.contains("hint: run it as root"), "{err}");
}

/// A command that makes system calls between fork and exec.
fn after(change: fn() -> rustix::io::Result<()>, arguments: &[&str]) -> Command {
    as_root();
    let mut command = oomtrace(arguments);
    // SAFETY: the callers pass only system calls, which is all that is allowed there.
    unsafe { command.pre_exec(move || Ok(change()?)) };
    command
}

fn limit(resource: Resource, to: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(to), maximum: Some(to) })
}

#[test]
fn what_the_system_has_no_more_of_is_no_missing_feature() {
    let (code, out, err) = ended(after(|| limit(Resource::Nofile, 8), &["run"]).output().unwrap());
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("Too many open files") && err.contains("hint: allow more open files"), "{err}");
}

/// A limit on file sizes is like a full disk. It must not kill the process.
#[test]
fn a_limit_on_file_sizes_does_not_kill() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events");
    let arguments = ["run", "--timeout", "1ms", "--file", file.to_str().unwrap()];
    let output = after(|| limit(Resource::Fsize, 0), &arguments).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code().is_some(), "{:?}", output.status);
    assert!(err.contains("ulimit -f"), "{err}");
}

/// The parent may have blocked signals, which must not affect this process.
#[test]
fn blocked_signals_end_it_all_the_same() {
    for signal in [Signal::TERM, Signal::INT] {
        let block = || {
            let mut all = std::mem::MaybeUninit::uninit();
            // SAFETY: the set is a local that is filled before it is used.
            unsafe {
                libc::sigfillset(all.as_mut_ptr());
                libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
            }
            Ok(())
        };
        let (running, _) = Running::start(after(block, &["run", "-o", "json", "--timeout", "60s"]));
        running.signal(signal);
        let (code, out, _) = running.end();
        let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!((code, &last["type"]), (0, &"stop".into()));
        assert_ne!(last["reason"], "timeout");
    }
}

#[test]
fn a_directory_without_a_runtimes_state_is_said() {
    as_root();
    let (_, out, _) = run(&["check", "--runtime-root", "docker=/nonexistent"]);
    let said = "--runtime-root docker=/nonexistent: no state of that runtime is there";
    assert!(out.lines().any(|line| line.starts_with("limited  runtimes") && line.ends_with(said)), "{out}");
    let arguments = ["run", "-o", "json", "--timeout", "1ms", "--runtime-root", "docker=/nonexistent"];
    let (_, out, _) = run(&arguments);
    assert!(out.lines().next().unwrap().contains(said), "{out}");
}

/// Root without these capabilities, which it cannot get back.
fn root_without(capabilities: &'static [u32], arguments: &[&str]) -> Command {
    as_root();
    let mut command = oomtrace(arguments);
    // SAFETY: system calls only, which is all that may be done between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for capability in capabilities {
                if libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(*capability), 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command
}

#[test]
fn only_what_is_missing_is_named() {
    for (capabilities, named) in [
        (&[BPF, SYS_ADMIN][..], "hint: run it as root, or with CAP_BPF\n"),
        (&[PERFMON, SYS_ADMIN], "hint: run it as root, or with CAP_PERFMON\n"),
        (&[BPF, PERFMON, SYS_ADMIN], "hint: run it as root, or with CAP_BPF and CAP_PERFMON\n"),
    ] {
        let (code, out, err) = ended(root_without(capabilities, &["run"]).output().unwrap());
        assert_eq!((code, out.as_str()), (77, ""), "{capabilities:?}: {err}");
        assert!(err.contains(named), "{capabilities:?}: {err}");
    }
    // CAP_SYS_ADMIN alone includes the others.
    let (code, out, err) = ended(root_without(&[BPF, PERFMON], &["check"]).output().unwrap());
    assert_eq!(code, 0, "{out}{err}");
    // Without the kernel log fewer facts are known.
    let (code, out, err) = ended(root_without(&[SYSLOG, SYS_ADMIN], &["check"]).output().unwrap());
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("limited  capabilities     no CAP_SYSLOG"), "{out}");
}

#[test]
fn two_capabilities_are_enough() {
    let (running, first) =
        Running::start(root_without(&[SYS_ADMIN], &["run", "--hook", "none", "-o", "json"]));
    assert_eq!(first["type"], "start");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, 0);
}

/// The allowed maximum, and one more.
#[test]
fn tags_and_labels_are_bounded() {
    let many = |option: &str, count: usize, value: &str| -> Vec<String> {
        (0..count).flat_map(|n| [option.to_owned(), format!("k{n:02}{value}")]).collect()
    };
    for (mut arguments, with) in [
        (many("--tag", 17, "=v"), "17 are given"),
        (vec!["--tag".to_owned(), format!("k={}", "v".repeat(512))], "513 bytes"),
        (many("--label", 17, ""), "17 labels"),
        (vec!["--label".to_owned(), "k".repeat(257)], "257 bytes"),
    ] {
        arguments.insert(0, "run".to_owned());
        let (code, out, err) = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(with), "{arguments:?}: {err}");
    }
    // 16 of 32 bytes each.
    let mut arguments = many("--tag", 16, &format!("={}", "v".repeat(29)));
    arguments.extend(many("--label", 16, &"l".repeat(253)));
    let mut all = vec!["run"];
    all.extend(arguments.iter().map(String::as_str));
    let (running, first) = Running::start(oomtrace(&all));
    assert_eq!(first["tags"].as_object().unwrap().len(), 16);
    assert_eq!(first["tags"]["k15"], "v".repeat(29));
    running.signal(Signal::TERM);
    let (code, out, _) = running.end();
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((code, &last["type"], &last["tags"]), (0, &"stop".into(), &first["tags"]));
    assert_eq!((&last["stream"], last["id"] == first["id"]), (&first["stream"], false));
}

#[test]
fn it_ends_with_a_line_when_asked_to() {
    for (signal, reason) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let (running, first) = Running::start(oomtrace(&["run"]));
        assert_eq!((&first["type"], &first["version"]), (&"start".into(), &env!("CARGO_PKG_VERSION").into()));
        running.signal(signal);
        let (code, out, err) = running.end();
        assert_eq!((code, err.as_str()), (0, ""), "{reason}");
        let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&last["type"], &last["reason"], &last["lost"]),
            (&"stop".into(), &reason.into(), &0.into())
        );
    }
    let (code, out, _) = ended({
        as_root();
        oomtrace(&["run", "-o", "text", "--timeout", "1ms"]).output().unwrap()
    });
    assert_eq!(code, 0);
    assert!(out.lines().last().unwrap().contains("stop timeout"), "{out}");
}

/// Without a command it is `run`. With a file, standard output gets no lines.
#[test]
fn a_file_is_opened_anew_after_its_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (file, rotated) = (dir.path().join("events"), dir.path().join("events.1"));
    let command = oomtrace(&["--file", file.to_str().unwrap()]);
    let running = Running::spawn(command);
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let wait_until = |what: &str, condition: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !condition() {
            // Only whether it happens is tested, not how fast.
            assert!(began.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_until("a line", &|| text(&file).ends_with('\n'));
    std::fs::rename(&file, &rotated).unwrap();
    running.signal(Signal::HUP);
    wait_until("a new file", &|| file.exists());
    running.signal(Signal::TERM);
    assert_eq!(running.end(), (0, String::new(), String::new()));
    assert!(text(&rotated).contains(r#""type":"start""#));
    assert!(text(&file).contains(r#""type":"stop""#) && !text(&file).contains(r#""type":"start""#));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    // The reader leaves during the run: found when the last line is written.
    let (mut running, _) = Running::start(oomtrace(&["run"]));
    let (empty, writer) = std::io::pipe().unwrap();
    drop(writer);
    running.stdout = BufReader::new(ChildStdout::from(OwnedFd::from(empty)));
    running.signal(Signal::TERM);
    assert_eq!(running.end(), (0, String::new(), String::new()));
    // The reader leaves before the first line.
    for arguments in [&["run"][..], &["schema"], &["man"], &["completions", "bash"], &["check"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _, err) = ended(oomtrace(arguments).stdout(writer).output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn an_output_that_is_full_is_an_error() {
    for arguments in [&["schema"][..], &["man"], &["completions", "zsh"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, _, err) = ended(oomtrace(arguments).stdout(full).output().unwrap());
        assert_eq!(code, 1, "{arguments:?}");
        assert!(err.contains("cannot write to standard output"), "{err}");
    }
}

/// Ends it with SIGQUIT after its first output, with no limit for core dumps. Returns whether it left one.
fn leaves_a_core(mut command: Command) -> bool {
    let dir = tempfile::tempdir().unwrap();
    command.current_dir(dir.path());
    let unlimited = Rlimit { current: None, maximum: None };
    // A shell that starts these tests in the background lets them ignore SIGQUIT.
    // SAFETY: two system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGQUIT, libc::SIG_DFL);
            Ok(setrlimit(Resource::Core, unlimited)?)
        })
    };
    let mut running = Running::spawn(command);
    let mut first = String::new();
    running.stdout.read_line(&mut first).unwrap();
    running.signal(Signal::QUIT);
    let status = running.child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGQUIT), "{first}{status}");
    status.core_dumped()
}

#[test]
fn no_core_is_left_that_holds_command_lines() {
    let mut other = Command::new("sh");
    other.args(["-c", "echo x; exec sleep 1000"]);
    assert!(leaves_a_core(other), "this host makes no cores: /proc/sys/kernel/core_pattern");
    assert!(!leaves_a_core(oomtrace(&["run", "-o", "json"])));
}

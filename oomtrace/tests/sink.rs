//! From lines to outputs: complete, in order, and with a clear message if that is not possible.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "sink/files.rs"]
mod files;

use std::error::Error;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oomtrace::outputs::transport::{
    Access, FileSink, Rotation, Sink, SinkError, StdoutSink, Wait, create_private, others_may_write,
};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, mkfifoat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Held while a process is started and while a reader is closed. Until a new process executes its program, it
/// holds all descriptors that were open when it was started.
static STARTING: Mutex<()> = Mutex::new(());

fn no_process_starts() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one of the ignored tests below in a separate process, because it changes the whole process.
fn alone(test: &str, dir: &Path, shell: &str, stdout: Stdio) -> std::process::ExitStatus {
    let script = format!(r#"{shell} exec "$0" --exact {test} --ignored --nocapture --quiet"#);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap());
    command.env("SINK_TEST_DIR", dir).stdout(stdout);
    let starting = no_process_starts();
    let mut child = command.spawn().unwrap();
    drop(starting);
    child.wait().unwrap()
}

fn own_dir() -> std::path::PathBuf {
    std::env::var_os("SINK_TEST_DIR").unwrap().into()
}

fn told(error: &SinkError) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause} ({})", error.hint().unwrap_or("-"))
}

/// A directory that others can write, in a place that only root can write.
fn shared_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    dir
}

#[test]
fn no_link_is_followed_and_no_others_file_is_written() {
    let dir = shared_dir();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("root's"), "secret\n").unwrap();
    let mut sink = FileSink::open(at("kills"), None).unwrap();
    sink.write_line(b"one\n").unwrap();
    // Moved away and replaced by a link; then a second name of a file; then a file of another user.
    fs::rename(at("kills"), at("moved")).unwrap();
    symlink(at("root's"), at("kills")).unwrap();
    sink.write_line(b"two\n").unwrap();
    assert!(told(&FileSink::open(at("kills"), None).unwrap_err()).contains("symbolic link"));
    fs::remove_file(at("kills")).unwrap();
    fs::hard_link(at("root's"), at("kills")).unwrap();
    sink.write_line(b"three\n").unwrap();
    assert!(told(&FileSink::open(at("kills"), None).unwrap_err()).contains("another name"));
    fs::remove_file(at("kills")).unwrap();
    fs::write(at("kills"), "").unwrap();
    std::os::unix::fs::chown(at("kills"), Some(4242), None).unwrap();
    sink.write_line(b"four\n").unwrap();
    assert!(told(&FileSink::open(at("kills"), None).unwrap_err()).contains("user 4242"));
    assert_eq!(fs::read_to_string(at("root's")).unwrap(), "secret\n");
    assert_eq!(fs::read_to_string(at("moved")).unwrap(), "one\ntwo\nthree\nfour\n");
    // If only root can write there, root did each of these, so they are accepted, except for the link.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    FileSink::open(at("kills"), None).unwrap();
}

/// Opens a file again and again while it is swapped for a FIFO and back: no open may wait for a writer.
#[test]
fn a_fifo_that_is_swapped_in_holds_up_nobody() {
    let dir = shared_dir();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("kills"), "no end").unwrap();
    mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    // With a reader, so that it can be opened for writing.
    let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(at("fifo")).unwrap();
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (kills, fifo, stop) = (at("kills"), at("fifo"), std::sync::Arc::clone(&ended));
    let swapper = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            rustix::fs::renameat_with(CWD, &kills, CWD, &fifo, RenameFlags::EXCHANGE).unwrap();
        }
    });
    let (done, waits) = std::sync::mpsc::channel();
    let path = at("kills");
    std::thread::spawn(move || {
        let mut sink = FileSink::open(&path, None).unwrap();
        for _ in 0..20_000 {
            sink.reopen().unwrap();
        }
        done.send(()).unwrap();
    });
    let opened = waits.recv_timeout(std::time::Duration::from_secs(60));
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    swapper.join().unwrap();
    opened.unwrap();
}

#[test]
fn a_file_is_made_for_whom_it_is_said_and_so_are_rotated_ones() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let access = Access { mode: 0o640, group: Some(4242) };
    let mut sink =
        FileSink::open_for(at("kills"), access, Some(Rotation { max_bytes: 1, old_files: 1 })).unwrap();
    sink.write_line(b"one\n").unwrap();
    sink.write_line(b"two\n").unwrap();
    for name in ["kills", "kills.1"] {
        let meta = fs::metadata(at(name)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.gid()), (0o640, 4242), "{name}");
    }
    // An existing file keeps its mode.
    FileSink::open(at("kills"), None).unwrap();
    assert_eq!(fs::metadata(at("kills")).unwrap().mode() & 0o777, 0o640);
    // With another umask too: systemd's unit has 077.
    let status = alone("for_whom_by_another_mask", dir.path(), "umask 077;", Stdio::null());
    assert!(status.success());
    assert_eq!(fs::metadata(at("masked")).unwrap().mode() & 0o777, 0o644);
}

#[test]
#[ignore = "run by the test above, alone in its process"]
fn for_whom_by_another_mask() {
    let access = Access { mode: 0o644, group: None };
    FileSink::open_for(own_dir().join("masked"), access, None).unwrap();
}

#[test]
fn a_record_is_private_whatever_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    create_private(&path).unwrap().write_all(b"new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    fs::rename(&path, dir.path().join("moved")).unwrap();
    symlink(dir.path().join("moved"), &path).unwrap();
    assert!(create_private(&path).is_err());
}

#[test]
fn who_else_may_put_a_file_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let file = dir.path().join("sub/kills");
    assert_eq!(others_may_write(&file), None);
    // A directory above counts too: she could replace the directory.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(others_may_write(&file).unwrap().contains("mode 0777"));
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(others_may_write(&file), None);
    assert!(others_may_write(&dir.path().join("kills")).is_some());
    std::os::unix::fs::chown(dir.path(), Some(4242), None).unwrap();
    assert!(others_may_write(&file).unwrap().contains("user 4242"));
}

#[test]
fn lines_are_appended_to_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kills");
    FileSink::open(&path, None).unwrap().write_line(b"one\n").unwrap();
    let mut sink = FileSink::open(&path, None).unwrap();
    sink.write_line(b"two\n").unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"another's\n").unwrap();
    sink.write_line(b"three\n").unwrap();
    sink.flush().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nanother's\nthree\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_torn_end_of_an_earlier_run_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kills");
    fs::write(&path, "{\"schema\":1,\"ty").unwrap();
    let mut sink = FileSink::open(&path, None).unwrap();
    sink.write_line(b"whole\n").unwrap();
    sink.write_line(b"too\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"schema\":1,\"ty\nwhole\ntoo\n");
}

#[test]
fn a_full_device_keeps_lines_until_no_more_fit() {
    let mut sink = FileSink::open("/dev/full", None).unwrap();
    sink.write_line(b"one\n").unwrap();
    for _ in 0..3 {
        let error = told(&sink.flush().unwrap_err());
        assert!(error.contains("/dev/full") && error.contains("No space left"), "{error}");
        assert!(error.contains("free space there"), "{error}");
        assert!(matches!(sink.waits_for(), Some(Wait::Time)));
    }
    let line = format!("{}\n", "x".repeat(4000));
    let taken = (0..100).take_while(|_| sink.write_line(line.as_bytes()).is_ok()).count();
    assert_eq!(taken, 16, "64 KiB of lines");
    assert_eq!(sink.waiting_lines(), 17);
}

#[test]
fn a_fifo_takes_lines_while_it_is_read() {
    let _quiet = no_process_starts();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let reader = || {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap()
    };
    let first = reader();
    assert!(first.metadata().unwrap().file_type().is_fifo());
    let mut sink = FileSink::open(&path, None).unwrap();
    sink.write_line(b"one\n").unwrap();
    assert_eq!(read_some(first), "one\n");
    // Its reader is gone: the line waits for the next reader.
    sink.write_line(b"two\n").unwrap();
    assert!(matches!(sink.waits_for(), Some(Wait::Time)), "{:?}", sink.waits_for());
    let second = reader();
    sink.write_line(b"three\n").unwrap();
    assert!(sink.waits_for().is_none());
    assert_eq!(read_some(second), "two\nthree\n");
}

/// The reader does not read: lines are kept, and arrive complete and in order when it reads again.
#[test]
fn a_full_fifo_keeps_whole_lines() {
    let _quiet = no_process_starts();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
    let mut sink = FileSink::open(&path, None).unwrap();
    let mut expected = String::new();
    let error = loop {
        let line = format!("{} {}\n", expected.len(), "x".repeat(2999));
        match sink.write_line(line.as_bytes()) {
            Ok(()) => expected.push_str(&line),
            Err(error) => break error,
        }
    };
    assert!(told(&error).contains("does not keep up"), "{}", told(&error));
    assert!(matches!(sink.waits_for(), Some(Wait::Reader(_))));
    let mut text = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..100 {
        if let Ok(count) = reader.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
        if sink.flush().is_ok() && text.len() == expected.len() {
            break;
        }
    }
    assert_eq!(sink.waiting_lines(), 0);
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

fn read_some(mut from: File) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(bytes).unwrap()
}

/// A limit on file sizes cuts a write short, like a full disk.
#[test]
fn a_short_write_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let status = alone("short_writes", dir.path(), "trap '' XFSZ; ulimit -S -f 2;", Stdio::null());
    assert!(status.success());
}

#[test]
#[ignore = "run by a_short_write_is_taken_back"]
fn short_writes() {
    let path = own_dir().join("kills");
    let line = |n: usize| format!("{n} {}\n", "x".repeat(300));
    let mut sink = FileSink::open(&path, None).unwrap();
    let mut expected = String::new();
    let mut n = 0;
    while sink.waits_for().is_none() {
        sink.write_line(line(n).as_bytes()).unwrap();
        expected.push_str(&line(n));
        n += 1;
    }
    let error = sink.flush().unwrap_err();
    assert!(told(&error).contains("ulimit -f"), "{}", told(&error));
    let there = fs::read_to_string(&path).unwrap();
    assert_eq!(there + &line(n - 1), expected, "whole lines only");

    // Rotated in this state: the kept line is complete in the new file.
    let rotated = own_dir().join("kills.1");
    fs::rename(&path, &rotated).unwrap();
    sink.reopen().unwrap();
    sink.flush().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), line(n - 1));

    // When there is room again, it continues.
    let second = own_dir().join("second");
    let mut sink = FileSink::open(&second, None).unwrap();
    let mut expected = String::new();
    for n in 0..20 {
        sink.write_line(line(n).as_bytes()).unwrap();
        expected.push_str(&line(n));
    }
    assert!(sink.flush().is_err());
    let hard = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: hard, maximum: hard }).unwrap();
    sink.flush().unwrap();
    assert_eq!(fs::read_to_string(&second).unwrap(), expected);
}

#[test]
fn a_closed_pipe_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let status = alone("closed_pipe", dir.path(), "", Stdio::null());
    assert!(status.success());
}

#[test]
#[ignore = "run by a_closed_pipe_is_told_apart"]
fn closed_pipe() {
    let (reader, writer) = std::io::pipe().unwrap();
    let before = rustix::io::dup(rustix::stdio::stdout()).unwrap();
    rustix::stdio::dup2_stdout(&writer).unwrap();
    let mut sink = StdoutSink::new();
    let first = sink.write_line(b"one\n");
    drop(reader);
    let second = sink.write_line(b"two\n");
    rustix::stdio::dup2_stdout(&before).unwrap();
    assert!(first.is_ok());
    assert!(matches!(second, Err(SinkError::Closed)), "{second:?}");
}

#[test]
fn standard_output_takes_lines() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let status = alone("two_lines", dir.path(), "", File::create(&out).unwrap().into());
    assert!(status.success());
    assert!(fs::read_to_string(&out).unwrap().contains("\none\ntwo\n"));
}

#[test]
#[ignore = "run by standard_output_takes_lines"]
fn two_lines() {
    let mut sink = StdoutSink::new();
    sink.write_line(b"one\n").unwrap();
    sink.reopen().unwrap();
    sink.write_line(b"two\n").unwrap();
    sink.flush().unwrap();
}

//! Files that are moved, rotated, or cannot be opened.

use super::*;

#[test]
fn a_file_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("kills"), dir.path().join("kills.1"));
    let mut sink = FileSink::open(&path, None).unwrap();
    sink.write_line(b"one\n").unwrap();
    // Moved, and no new file yet: the rotating program makes it, with its own choice of owner.
    fs::rename(&path, &old).unwrap();
    sink.write_line(b"two\n").unwrap();
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    sink.write_line(b"three\n").unwrap();
    assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    // copytruncate.
    fs::write(&path, "").unwrap();
    sink.write_line(b"four\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    // Removed.
    fs::remove_file(&path).unwrap();
    sink.write_line(b"five\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "five\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Removed together with its directory: the line waits until there is a directory.
    fs::remove_dir_all(dir.path()).unwrap();
    sink.write_line(b"six\n").unwrap();
    assert_eq!(sink.waiting_lines(), 1);
    fs::create_dir(dir.path()).unwrap();
    sink.flush().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "six\n");
}

#[test]
fn a_file_is_put_aside_before_it_gets_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut sink = FileSink::open(at("kills"), Some(Rotation { max_bytes: 10, old_files: 2 })).unwrap();
    for line in ["one\n", "two\n", "three\n", "a longer line\n", "four\n", "5\n"] {
        sink.write_line(line.as_bytes()).unwrap();
    }
    assert_eq!(fs::read_to_string(at("kills")).unwrap(), "four\n5\n");
    assert_eq!(fs::read_to_string(at("kills.1")).unwrap(), "a longer line\n");
    assert_eq!(fs::read_to_string(at("kills.2")).unwrap(), "three\n");
    assert!(!at("kills.3").exists());
    // A file that cannot be rotated grows.
    fs::remove_file(at("kills.1")).unwrap();
    fs::remove_file(at("kills.2")).unwrap();
    fs::create_dir_all(at("kills.1/in the way")).unwrap();
    fs::create_dir_all(at("kills.2/in the way")).unwrap();
    sink.write_line(b"still told\n").unwrap();
    assert_eq!(fs::read_to_string(at("kills")).unwrap(), "four\n5\nstill told\n");
}

/// The file was moved away: no line may cost one of the old files.
#[test]
fn old_files_stay_where_there_is_nothing_to_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let old = |number: u32| fs::read_to_string(at(&format!("kills.{number}"))).unwrap();
    for number in 1..=3 {
        fs::write(at(&format!("kills.{number}")), format!("old {number}\n")).unwrap();
    }
    let mut sink = FileSink::open(at("kills"), Some(Rotation { max_bytes: 10, old_files: 3 })).unwrap();
    sink.write_line(b"first one\n").unwrap();
    fs::rename(at("kills"), at("kills.moved")).unwrap();
    sink.write_line(b"after\n").unwrap();
    assert_eq!(fs::read_to_string(at("kills.moved")).unwrap(), "first one\n");
    assert_eq!(fs::read_to_string(at("kills")).unwrap(), "after\n");
    // The same if something that cannot be opened is in its place.
    fs::rename(at("kills"), at("kills.moved")).unwrap();
    fs::create_dir(at("kills")).unwrap();
    for _ in 0..4 {
        sink.write_line(b"another line\n").unwrap();
    }
    assert_eq!([old(1), old(2), old(3)], ["old 1\n", "old 2\n", "old 3\n"]);
}

#[test]
fn reopening_follows_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("kills"), dir.path().join("kills.1"));
    let mut sink = FileSink::open(&path, None).unwrap();
    sink.write_line(b"one\n").unwrap();
    fs::rename(&path, &old).unwrap();
    sink.write_line(b"two\n").unwrap();
    sink.reopen().unwrap();
    sink.write_line(b"three\n").unwrap();
    assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");

    // If the new one cannot be opened, the old one stays in use.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::hard_link(&old, dir.path().join("kills.2")).unwrap();
    let error = sink.reopen().unwrap_err();
    assert!(told(&error).contains("it is a directory"), "{}", told(&error));
    sink.write_line(b"four\n").unwrap();
}

#[test]
fn what_cannot_be_opened_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    fs::write(at("file"), "").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    for (name, cause) in [
        (".", "it is a directory: name a file in it"),
        ("none/kills", "its directory does not exist"),
        ("file/kills", "not a directory"),
        ("fifo", "this FIFO has no reader"),
        ("socket", "it is a socket"),
        ("loop", "it is a symbolic link, which is not followed"),
    ] {
        let error = FileSink::open(at(name), None).unwrap_err();
        let told = told(&error);
        assert!(matches!(error, SinkError::Open { .. }), "{told}");
        assert!(told.starts_with("cannot open ") && told.contains(name) && told.contains(cause), "{told}");
    }
}

//! Entries of the journal, as journald's socket gets them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod samples;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::net::UnixDatagram,
    path::PathBuf,
};

use oomtrace::{
    event::*,
    outputs::{BestEffort, Condition, journal::Journal},
};
use tempfile::TempDir;

/// A stand-in for journald.
struct Journald {
    dir: TempDir,
    socket: Option<UnixDatagram>,
}

impl Journald {
    fn absent() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), socket: None }
    }

    fn start() -> Self {
        let mut journald = Self::absent();
        journald.begin();
        journald
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn begin(&mut self) {
        let socket = UnixDatagram::bind(self.path()).unwrap();
        socket.set_nonblocking(true).unwrap();
        self.socket = Some(socket);
    }

    fn end(&mut self) {
        self.socket = None;
        fs::remove_file(self.path()).unwrap();
    }

    fn entries(&self) -> Vec<BTreeMap<String, String>> {
        let mut entries = Vec::new();
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count) = self.socket.as_ref().unwrap().recv(&mut bytes) {
            entries.push(fields(&bytes[..count]));
        }
        entries
    }
}

/// As the native protocol says: `NAME=value`, or a name, the length of the value in eight bytes, and the value.
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let (name, value) = match entry[..end].iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let field = (&entry[..at], &entry[at + 1..end]);
                entry = &entry[end + 1..];
                field
            }
            None => {
                let (name, rest) = (&entry[..end], &entry[end + 1..]);
                let len = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
                assert_eq!(rest[8 + len], b'\n');
                entry = &rest[8 + len + 1..];
                (name, &rest[8..8 + len])
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(
            text(name).bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        );
        assert_eq!(fields.insert(text(name), text(value)), None, "{} twice", text(name));
    }
    fields
}

fn entry_of(event: &Event) -> BTreeMap<String, String> {
    let journald = Journald::start();
    Journal::at(&journald.path()).unwrap().take(event);
    let mut entries = journald.entries();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[test]
fn each_type_has_an_id_of_its_own_and_the_whole_line() {
    let mut ids = BTreeMap::new();
    for (_, event) in samples::all() {
        let entry = entry_of(&event);
        assert_eq!(entry["OOMTRACE_TYPE"], event.kind());
        assert_eq!(format!("{}\n", entry["OOMTRACE_JSON"]), samples::json(&event));
        let priority = match event.severity() {
            Severity::Error => "3",
            Severity::Warning => "4",
            Severity::Info => "6",
        };
        assert_eq!(entry["PRIORITY"], priority);
        let line: serde_json::Value = serde_json::from_str(&entry["OOMTRACE_JSON"]).unwrap();
        assert_eq!(entry["MESSAGE"], line["message"].as_str().unwrap());
        let id = entry["MESSAGE_ID"].clone();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(*ids.entry(event.kind()).or_insert(id.clone()), id);
    }
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), ids.len());
    // They are published, and stay.
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/EVENTS.md")).unwrap();
    for (kind, id) in ids {
        assert!(docs.contains(&format!("| `{kind}` | `{id}` |")), "docs/EVENTS.md does not say {kind} {id}");
    }
}

#[test]
fn a_kill_can_be_found_by_what_it_is_about() {
    let mut kill = samples::oom_kill_in_a_pod();
    kill.systemd = Some(Systemd { unit: "db.service".into(), user: None });
    let entry = entry_of(&Event::OomKill(Box::new(kill.clone())));
    for (name, value) in [
        ("SYSLOG_IDENTIFIER", "oomtrace"),
        ("OOMTRACE_SEQ", "42"),
        ("OOMTRACE_SCOPE", "memcg"),
        ("OOMTRACE_VICTIM_PID", "2990"),
        ("OOMTRACE_VICTIM_COMM", "python3"),
        ("CONTAINER_ID", "ab12f4c09e7d"),
        ("CONTAINER_ID_FULL", samples::ID),
        ("CONTAINER_NAME", "api-service"),
        ("IMAGE_NAME", "api:v2.0"),
        ("OOMTRACE_K8S_NAMESPACE", "shop"),
        ("OOMTRACE_K8S_POD", "api-7d9f"),
        ("OOMTRACE_K8S_CONTAINER", "api"),
        ("UNIT", "db.service"),
        ("OBJECT_SYSTEMD_UNIT", "db.service"),
    ] {
        assert_eq!(entry.get(name).map(String::as_str), Some(value), "{name}");
    }
    // The pid may be another process's by the time that journald looks it up.
    assert!(!entry.contains_key("OBJECT_PID"));
    // A user can choose the id and the name of a container of the host's.
    let container = kill.container.as_mut().unwrap();
    container.runtime.user = Some(1000);
    let entry = entry_of(&Event::OomKill(Box::new(kill.clone())));
    assert_eq!(entry["CONTAINER_ID"], "1000/ab12f4c09e7d");
    assert_eq!(entry["CONTAINER_ID_FULL"], format!("1000/{}", samples::ID));
    assert_eq!(entry["CONTAINER_NAME"], "1000/api-service");
    // A user may call a unit what it likes.
    kill.systemd = Some(Systemd { unit: "sshd.service".into(), user: Some(1000) });
    let entry = entry_of(&Event::OomKill(Box::new(kill)));
    assert!(!entry.contains_key("UNIT") && !entry.contains_key("OBJECT_SYSTEMD_UNIT"));
    assert_eq!(entry["OBJECT_SYSTEMD_USER_UNIT"], "sshd.service");
    assert_eq!(entry["OBJECT_SYSTEMD_OWNER_UID"], "1000");
}

#[test]
fn no_text_becomes_a_field() {
    let mut kill = samples::oom_kill();
    let hostile = "x\nPRIORITY=0\nUNIT=sshd.service\n";
    kill.victim.comm = Some(hostile.into());
    kill.container.as_mut().unwrap().name = Some(hostile.into());
    let entry = entry_of(&Event::OomKill(Box::new(kill)));
    assert_eq!(
        (entry["OOMTRACE_VICTIM_COMM"].as_str(), entry["CONTAINER_NAME"].as_str()),
        (hostile, hostile)
    );
    assert_eq!(entry["PRIORITY"], "3");
    assert!(!entry.contains_key("UNIT"));
    assert!(!entry["MESSAGE"].contains('\n'));
}

fn kill(seq: u64) -> Event {
    let mut kill = samples::oom_kill();
    kill.envelope.seq = Some(seq);
    Event::OomKill(Box::new(kill))
}

#[test]
fn a_journald_that_is_away_for_a_moment_misses_nothing() {
    let mut journald = Journald::start();
    let mut journal = Journal::at(&journald.path()).unwrap();
    journal.take(&kill(1));
    assert_eq!((journald.entries().len(), journal.due()), (1, None));
    journald.end();
    (2..=9).for_each(|seq| journal.take(&kill(seq)));
    assert!(journal.due().is_some());
    journald.begin();
    journal.write(&Condition::default());
    let sequence: Vec<_> = journald.entries().iter().map(|entry| entry["OOMTRACE_SEQ"].clone()).collect();
    assert_eq!(sequence, ["2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!((journal.due(), journal.take_lost()), (None, None));
}

/// How many entries there still are: the kernel holds some, and then takes more.
fn all(journald: &Journald, journal: &mut Journal) -> u64 {
    let mut taken = 0;
    loop {
        journal.write(&Condition::default());
        match journald.entries().len() as u64 {
            0 => return taken,
            came => taken += came,
        }
    }
}

#[test]
fn what_an_absent_journald_does_not_take_is_counted() {
    let mut journald = Journald::absent();
    let mut journal = Journal::at(&journald.path()).unwrap();
    (1..=1000).for_each(|seq| journal.take(&kill(seq)));
    let (reason, lost) = journal.take_lost().unwrap();
    assert!(reason == LossReason::Journal && lost > 900, "{lost}");
    assert_eq!(journal.take_lost(), None);
    // The line that says so is not one more.
    let said = Lost { reason, count: lost, ..samples::lost() };
    journal.take(&Event::Lost(Box::new(said)));
    assert_eq!(journal.take_lost(), None);
    journald.begin();
    let taken = all(&journald, &mut journal);
    assert!((1000..=1001).contains(&(taken + lost)), "{taken} taken, {lost} lost");
}

#[test]
fn a_journald_that_does_not_read_is_not_waited_for() {
    let journald = Journald::start();
    let mut journal = Journal::at(&journald.path()).unwrap();
    // More than the kernel holds for a socket.
    (1..=5000).for_each(|seq| journal.take(&kill(seq)));
    let lost = journal.take_lost().map_or(0, |(_, lost)| lost);
    assert!(lost > 0);
    assert_eq!(all(&journald, &mut journal) + lost, 5000);
}

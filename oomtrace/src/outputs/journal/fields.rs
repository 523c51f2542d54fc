//! Turns an event into an entry of the journal: fields in journald's native protocol.

use std::fmt::Display;

use crate::{
    event::{Event, Owner, Scope, Systemd, name_of_user},
    outputs::encode::{json, text},
};

/// The fixed ids of each type of entry (`MESSAGE_ID`, see docs/EVENTS.md). They never change.
const IDS: [(&str, &str); 16] = [
    ("start", "04f28a1198ef489b89a72cd115c26198"),
    ("oom_kill", "e02f25112705450689ca5ea3fdeba9e7"),
    ("shared_mm_kill", "3ee85ca075b94128a42b7f1e5b706a2e"),
    ("memcg_oom", "abea7d67a3a14620bd0eb52af6ab6e43"),
    ("signal_kill", "bffb9ca454314dc39a80ed30db4f9673"),
    ("incident", "d23e40484d80426a8810b1338133fb3a"),
    ("limit_near", "f768064f958547ada39eed24c2c063fe"),
    ("limit_far", "5966eb44e0c6474495113dc30e9a8df5"),
    ("usage", "b9c48cb01720400e8ca82984fcb042d9"),
    ("host_memory", "189e5d3be5bc470ebbfa4358abb54a4e"),
    ("stuck", "ef118fd7dd094200b0f89e49b9b3218c"),
    ("lost", "046a4a755b4b47498ecc56fcfb07c08d"),
    ("gap", "627f77ba07604696bfe2afcf47a14e29"),
    ("hooks", "fc45b13007ba4b64bd36d994f07e75db"),
    ("verdict", "60696aea7138480ba4a5bb432775b6d6"),
    ("stop", "3b5a79fa2e184f1e83f750e365efc18a"),
];

/// Syslog's `daemon`.
const FACILITY: u32 = 3;
/// Digits of a container's short id.
const SHORT_ID: usize = 12;

/// The entry of an event; `None` if it cannot be one.
pub(super) fn entry(event: &Event) -> Option<Vec<u8>> {
    let mut line = Vec::with_capacity(4096);
    json::line(event, &mut line).ok()?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let mut entry = Entry(Vec::with_capacity(line.len() + 2048));
    let envelope = event.envelope();
    let kind = event.kind();
    entry.field("MESSAGE", text::message(event));
    if let Some((_, id)) = IDS.iter().find(|(of, _)| *of == kind) {
        entry.field("MESSAGE_ID", id);
    }
    entry.field("PRIORITY", event.severity().syslog()).field("SYSLOG_FACILITY", FACILITY);
    entry.field("SYSLOG_IDENTIFIER", "oomtrace").field("OOMTRACE_TYPE", kind);
    entry.field("OOMTRACE_TIME", &envelope.time);
    entry.optional("OOMTRACE_SEQ", envelope.seq).optional("OOMTRACE_STREAM", envelope.stream.as_ref());
    entry.optional("OOMTRACE_ID", envelope.id.as_ref());
    victim(event, &mut entry);
    workload(event.owner(), &mut entry);
    entry.bytes("OOMTRACE_JSON", line);
    Some(entry.0)
}

/// Not as `OBJECT_PID`: journald would look up the process that has this pid now.
fn victim(event: &Event, entry: &mut Entry) {
    let (pid, comm, uid, path) = match event {
        Event::OomKill(kill) => {
            entry.optional("OOMTRACE_SCOPE", kill.oom.scope.map(Scope::word));
            (kill.victim.pid, &kill.victim.comm, kill.victim.uid, &kill.victim.cgroup.path)
        }
        Event::SharedMmKill(kill) => {
            (kill.victim.pid, &kill.victim.comm, kill.victim.uid, &kill.victim.cgroup.path)
        }
        Event::SignalKill(kill) => {
            (kill.target.pid, &kill.target.comm, kill.target.uid, &kill.target.cgroup.path)
        }
        _ => return,
    };
    entry.optional("OOMTRACE_VICTIM_PID", pid).optional("OOMTRACE_VICTIM_UID", uid);
    entry.optional("OOMTRACE_VICTIM_COMM", comm.as_ref());
    entry.optional("OOMTRACE_VICTIM_CGROUP", path.as_ref());
}

/// Containers are named like Docker's log driver names them; units so that `journalctl -u UNIT` shows the
/// entry. A name that a user chose is marked as such, and is never a unit of the host.
fn workload(Owner { container, k8s, systemd }: Owner<'_>, entry: &mut Entry) {
    if let Some(container) = container {
        let short = container.id.get(..SHORT_ID).unwrap_or(&container.id);
        // Who looks for a container of the host's must not find a user's, who can choose the id as well as the name.
        let of_user = |text| name_of_user(container.runtime.user, text);
        entry.field("CONTAINER_ID", of_user(short)).field("CONTAINER_ID_FULL", of_user(&container.id));
        entry.optional("CONTAINER_NAME", container.name.as_deref().map(of_user));
        entry.optional("IMAGE_NAME", container.image.as_ref().map(|image| &image.name));
    }
    if let Some(k8s) = k8s {
        entry.optional("OOMTRACE_K8S_NAMESPACE", k8s.namespace.as_ref().map(|namespace| &namespace.name));
        entry.optional("OOMTRACE_K8S_POD", k8s.pod.name.as_ref());
        entry.optional("OOMTRACE_K8S_CONTAINER", k8s.container.as_ref().map(|container| &container.name));
    }
    match systemd {
        Some(Systemd { unit, user: None }) => {
            entry.field("UNIT", unit).field("OBJECT_SYSTEMD_UNIT", unit);
        }
        Some(Systemd { unit, user: Some(user) }) => {
            entry.field("OBJECT_SYSTEMD_USER_UNIT", unit).field("OBJECT_SYSTEMD_OWNER_UID", user);
        }
        None => {}
    }
}

struct Entry(Vec<u8>);

impl Entry {
    fn field(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.bytes(name, value.to_string().as_bytes());
        self
    }

    fn optional(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// A value with newlines is written with its length, so that no value can become another field.
    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.0.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&u64::try_from(value.len()).unwrap_or(u64::MAX).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

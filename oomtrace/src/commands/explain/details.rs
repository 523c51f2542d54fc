//! The facts of the kill itself, for the end of the card.

use std::fmt;

use super::card::{process, row};
use crate::{
    event::{OomCgroup, OomKill},
    outputs::encode::text::{Size, plain},
};

/// Rows of a name and a text.
pub(super) fn details(kill: &OomKill, out: &mut String) -> fmt::Result {
    row(out, "victim", &killed(kill))?;
    row(out, "", &memory(kill))?;
    if let Some(cgroup) = &kill.oom.cgroup {
        row(out, "cgroup", &use_of(cgroup))?;
    }
    row(out, "where", &place(kill))?;
    row(out, "trigger", &trigger(kill))
}

fn killed(kill: &OomKill) -> String {
    let victim = &kill.victim;
    let mut text = process(victim.comm.as_deref(), victim.pid);
    if let Some(line) = &victim.command_line {
        text += &format!(", command line {}", plain(line));
    } else if let Some(executable) = &victim.executable {
        text += &format!(", {}", plain(executable));
    }
    if let Some(uid) = victim.uid {
        text += &format!(", uid {uid}");
    }
    if let Some(adj) = victim.oom_score_adj {
        text += &format!(", oom_score_adj {adj}");
    }
    text
}

fn memory(kill: &OomKill) -> String {
    let memory = &kill.victim.memory;
    let size = |bytes: Option<u64>| bytes.map_or("not known".to_owned(), |bytes| Size(bytes).to_string());
    format!(
        "its memory: {} resident (anonymous {}, files {}, shared {}), swap {}, page tables {}",
        size(memory.rss_bytes),
        size(memory.anon_rss_bytes),
        size(memory.file_rss_bytes),
        size(memory.shmem_rss_bytes),
        size(memory.swap_bytes),
        size(memory.pgtables_bytes)
    )
}

fn use_of(cgroup: &OomCgroup) -> String {
    let mut parts = Vec::new();
    for (name, bytes) in [
        ("usage", cgroup.usage_bytes),
        ("limit", cgroup.limit_bytes),
        ("highest use", cgroup.peak_bytes),
        ("swap", cgroup.swap_usage_bytes),
    ] {
        if let Some(bytes) = bytes {
            parts.push(format!("{name} {}", Size(bytes)));
        }
    }
    if let Some(kills) = cgroup.events.as_ref().and_then(|events| events.oom_kill) {
        parts.push(format!("kills that the kernel counted in it: {kills}"));
    }
    if parts.is_empty() { "nothing is known of it".into() } else { parts.join(", ") }
}

fn place(kill: &OomKill) -> String {
    let mut parts = Vec::new();
    if let Some(names) = kill.k8s.as_ref().and_then(|k8s| k8s.names()) {
        parts.push(format!("pod {}", names.into_iter().map(plain).collect::<Vec<_>>().join("/")));
    }
    if let Some(container) = &kill.container {
        let name = container.name.as_ref().unwrap_or(&container.id);
        parts.push(format!("container {} ({})", plain(name), plain(&container.runtime.name)));
        if let Some(image) = &container.image {
            parts.push(format!("image {}", plain(&image.name)));
        }
        if let Some(restarts) = container.restart_count {
            parts.push(format!("restarted {restarts} times before"));
        }
    }
    if let Some(systemd) = &kill.systemd {
        parts.push(format!("unit {}", plain(&systemd.unit)));
    }
    if let Some(path) = &kill.victim.cgroup.path {
        parts.push(format!("cgroup {}", plain(path)));
    }
    if parts.is_empty() { "not known".into() } else { parts.join(", ") }
}

fn trigger(kill: &OomKill) -> String {
    let Some(trigger) = &kill.trigger else { return "not known".into() };
    if trigger.pid.is_some() && trigger.pid == kill.victim.pid {
        return "the victim itself asked for the memory".into();
    }
    let mut text = process(trigger.comm.as_deref(), trigger.pid);
    text += " asked for the memory";
    match &trigger.cgroup.path {
        Some(path) if !trigger.cgroup.is_same(&kill.victim.cgroup.cgroup()) => {
            text += &format!(", in {}", plain(path))
        }
        _ => {}
    }
    text
}

//! Turns an event into one line for a person at a terminal.
//!
//! Text that a container chose is quoted and escaped unless it is plain, so it can neither move the cursor
//! nor look like a part of oomtrace's own text.

pub(crate) mod history;
mod host_memory;
pub(crate) mod incident;
mod run;
mod signal_kill;
mod stuck;

pub(crate) mod time;

use std::borrow::Cow;
use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::{
    event::{
        Cgroup, Container, Event, K8s, Kill, MemcgOom, MemcgOomOutcome, OomKill, Scope, SharedMmKill,
        Systemd, Trigger, Verdict, name_of_user,
    },
    outputs::encode::{cut, json},
};

/// The most bytes of one text that a container chose.
const MAX_TEXT_BYTES: usize = 256;
/// The most bytes of an event, without the newline. Usual events stay far below it; only a `start` with many
/// limits, each on its own line, can reach it.
const MAX_LINE: usize = super::MAX_LINE_BYTES - 1;
/// The most bytes of a message as a JSON string: a line of usual width, and little of the 4095 bytes in all.
pub const MESSAGE_BYTES: usize = 200;

/// The styles of a line. The default has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Palette {
    time: Style,
    kill: Style,
    loss: Style,
    who: Style,
}

impl Palette {
    /// Colours for a terminal that supports SGR codes.
    pub fn coloured() -> Self {
        Self {
            time: Style::new().dimmed(),
            kill: AnsiColor::Red.on_default().bold(),
            loss: AnsiColor::Yellow.on_default().bold(),
            who: Style::new().bold(),
        }
    }
}

/// The first line of `event` without its time and without styles. At most [`MESSAGE_BYTES`] as a JSON string.
pub fn message(event: &Event) -> String {
    let mut text = String::with_capacity(256);
    // Writing to a String cannot fail.
    let _infallible = write_sentence(event, &Palette::default(), &mut text);
    if let Some(end) = text.find('\n') {
        text.truncate(end);
    }
    cut(&mut text, MESSAGE_BYTES, json::width);
    text
}

/// Replaces the content of `out` by the line of `event`.
pub fn line(event: &Event, palette: &Palette, out: &mut Vec<u8>) {
    let mut text = String::with_capacity(256);
    // Writing to a String cannot fail.
    let _infallible = write_event(event, palette, &mut text);
    cut(&mut text, MAX_LINE, char::len_utf8);
    out.clear();
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

fn write_event(event: &Event, palette: &Palette, out: &mut String) -> fmt::Result {
    time::write_time(event, palette.time, out)?;
    out.write_char(' ')?;
    write_sentence(event, palette, out)
}

/// The event without its time.
fn write_sentence(event: &Event, palette: &Palette, out: &mut String) -> fmt::Result {
    let style = match event {
        Event::OomKill(_)
        | Event::SharedMmKill(_)
        | Event::MemcgOom(_)
        | Event::Incident(_)
        | Event::HostMemory(_) => palette.kill,
        Event::SignalKill(kill) if kill.is_for_memory() => palette.kill,
        Event::Lost(_)
        | Event::Gap(_)
        | Event::Hooks(_)
        | Event::SignalKill(_)
        | Event::LimitNear(_)
        | Event::Stuck(_) => palette.loss,
        Event::Verdict(verdict) if verdict.missed == Some(true) => palette.loss,
        Event::Start(_) | Event::Verdict(_) | Event::Stop(_) | Event::LimitFar(_) | Event::Usage(_) => {
            Style::new()
        }
    };
    write!(out, "{style}{}{style:#} ", event.kind())?;
    match event {
        Event::Start(event) => run::write_start(event, out),
        Event::OomKill(event) => write_oom_kill(event, palette, out),
        Event::SharedMmKill(event) => write_shared_mm_kill(event, palette, out),
        Event::MemcgOom(event) => write_memcg_oom(event, palette, out),
        Event::SignalKill(event) => signal_kill::write_signal_kill(event, palette, out),
        Event::Incident(event) => incident::write_incident(event, palette, out),
        Event::LimitNear(event) => history::write_near(event, palette, out),
        Event::LimitFar(event) => history::write_far(event, palette, out),
        Event::Usage(event) => history::write_usage(event, palette, out),
        Event::HostMemory(event) => host_memory::write_host_memory(event, palette, out),
        Event::Stuck(event) => stuck::write_stuck(event, palette, out),
        Event::Lost(event) => run::write_lost(event, out),
        Event::Gap(event) => run::write_gap(event, out),
        Event::Hooks(event) => run::write_hooks(event, out),
        Event::Verdict(event) => write_verdict(event, palette, out),
        Event::Stop(event) => run::write_stop(event, out),
    }
}

fn write_oom_kill(event: &OomKill, palette: &Palette, out: &mut String) -> fmt::Result {
    let OomKill { oom, victim, .. } = event;
    let own = victim.cgroup.cgroup();
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &victim.cgroup.path);
    write!(out, "{}{who}{:#}: ", palette.who, palette.who)?;
    write_task(victim.comm.as_deref(), victim.pid.or(victim.tid), out)?;
    match victim.memory.rss_bytes {
        Some(bytes) => write!(out, " rss {}", Size(bytes))?,
        None => out.write_str(" rss unknown")?,
    }
    match (&oom.cgroup, oom.scope) {
        (Some(limit), _) => {
            match limit.limit_bytes {
                Some(bytes) => write!(out, ", limit {}", Size(bytes))?,
                None => out.write_str(", limit unknown")?,
            }
            if limit.cgroup.is_same(&own) {
                out.write_str(" of its cgroup")?;
            } else if is_of(&limit.cgroup, event.container.as_ref()) {
                out.write_str(" of its container")?;
            } else if let Some(path) = limit.cgroup.path.as_ref().or(limit.cgroup.id.as_ref()) {
                write!(out, " of {}", plain(path))?;
            }
        }
        (None, Some(Scope::Host)) => out.write_str(", the host ran out")?,
        (None, Some(Scope::Cpuset)) => out.write_str(", the nodes of its cpuset ran out")?,
        (None, Some(Scope::Mempolicy)) => out.write_str(", the nodes of its memory policy ran out")?,
        (None, Some(Scope::Memcg)) => out.write_str(", limit of an unknown cgroup")?,
        (None, None) => out.write_str(", whose limit fired is unknown")?,
    }
    if let Some(adj) = victim.oom_score_adj {
        write!(out, ", adj {adj}")?;
    }
    out.write_str(match oom.kill {
        Some(Kill::Selected) => "",
        Some(Kill::Group) => ", killed with its group",
        Some(Kill::AllocatingTask) => ", killed for allocating",
        Some(Kill::Sysrq) => ", requested by sysrq",
        Some(Kill::AlreadyExiting) => ", was already exiting",
        None => ", kind of kill unknown",
    })?;
    let is_other = |trigger: &&Trigger| trigger.pid.is_none() || trigger.pid != victim.pid;
    if let Some(trigger) = event.trigger.as_ref().filter(is_other) {
        write_trigger(trigger, &own, out)?;
    }
    // Verdicts and shared-memory kills refer to this number.
    event.envelope.seq.map_or(Ok(()), |seq| write!(out, " (event {seq})"))
}

/// Whether this is the container's own cgroup.
pub(crate) fn is_of(cgroup: &Cgroup, container: Option<&Container>) -> bool {
    let last = cgroup.path.as_deref().and_then(|path| path.rsplit('/').next());
    last.zip(container).is_some_and(|(last, container)| last.contains(&container.id))
}

fn write_shared_mm_kill(event: &SharedMmKill, palette: &Palette, out: &mut String) -> fmt::Result {
    let SharedMmKill { victim, .. } = event;
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &victim.cgroup.path);
    write!(out, "{}{who}{:#}: ", palette.who, palette.who)?;
    write_task(victim.comm.as_deref(), victim.pid, out)?;
    write!(out, " shares the memory of the victim of event {} and died too", Numbers(&event.of))
}

fn write_memcg_oom(event: &MemcgOom, palette: &Palette, out: &mut String) -> fmt::Result {
    let path = &event.cgroup.cgroup.path;
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), path);
    write!(out, "{}{who}{:#}: ", palette.who, palette.who)?;
    match event.cgroup.limit_bytes {
        Some(bytes) => write!(out, "limit {}", Size(bytes))?,
        None => out.write_str("limit unknown")?,
    }
    out.write_str(match event.outcome {
        Some(MemcgOomOutcome::NoKillableProcess) => ", nothing in it may be killed",
        Some(MemcgOomOutcome::Relieved) => ", enough memory was freed",
        Some(MemcgOomOutcome::KillDisabled) => ", kills are disabled: its tasks now hang",
        None => ", nobody was killed",
    })?;
    event.trigger.as_ref().map_or(Ok(()), |trigger| write_trigger(trigger, &event.cgroup.cgroup, out))
}

/// Its cgroup is written only if it differs from the line's.
fn write_trigger(trigger: &Trigger, here: &Cgroup, out: &mut String) -> fmt::Result {
    out.write_str(", triggered by ")?;
    match (&trigger.comm, trigger.pid) {
        // From the kernel log, which has no pid here.
        (Some(comm), None) => out.write_str(&plain(comm))?,
        (comm, pid) => write_task(comm.as_deref(), pid, out)?,
    }
    match &trigger.cgroup.path {
        Some(path) if !trigger.cgroup.is_same(here) => write!(out, " in {}", plain(path)),
        _ => Ok(()),
    }
}

fn write_verdict(event: &Verdict, palette: &Palette, out: &mut String) -> fmt::Result {
    let who = who(None, Some(&event.container), None, &None);
    let runtime = plain(&event.container.runtime.name);
    write!(out, "{}{who}{:#}: {runtime} says of event {}: ", palette.who, palette.who, Numbers(&event.of))?;
    let Some(says) = &event.runtime_says else {
        let gone = "nothing, the container is gone";
        return out.write_str(if event.missed.is_some() { gone } else { "its state could not be read" });
    };
    out.write_str(match says.oom_killed {
        Some(true) => "OOM-killed",
        Some(false) => "not OOM-killed",
        None => "nothing about OOM",
    })?;
    if let Some(code) = says.exit_code {
        write!(out, ", exit code {code}")?;
    }
    if let Some(status) = &says.status {
        write!(out, ", {}", plain(status))?;
    }
    out.write_str(if event.missed == Some(true) { ": it missed the kill" } else { "" })?;
    for name in &event.false_positive {
        write!(out, "; flags {} too, which had no kill", plain(name))?;
    }
    Ok(())
}

/// The name that a person knows: pod, container or unit, else the cgroup.
fn who(
    k8s: Option<&K8s>,
    container: Option<&Container>,
    systemd: Option<&Systemd>,
    cgroup: &Option<String>,
) -> String {
    if let Some(names) = k8s.and_then(K8s::names) {
        return names.into_iter().map(plain).collect::<Vec<_>>().join("/");
    }
    if let Some(container) = container {
        let short_id = || container.id.chars().take(12).collect::<String>();
        let name = container.name.clone().unwrap_or_else(short_id);
        let name = name_of_user(container.runtime.user, &name);
        return format!("{} ({})", plain(&name), plain(&container.runtime.name));
    }
    match (systemd, cgroup) {
        (Some(Systemd { unit, user }), _) => plain(&name_of_user(*user, unit)).into_owned(),
        (None, Some(path)) => plain(path).into_owned(),
        (None, None) => "unknown cgroup".to_owned(),
    }
}

fn write_task(comm: Option<&str>, pid: Option<u32>, out: &mut String) -> fmt::Result {
    out.write_str(&comm.map_or(Cow::Borrowed("?"), plain))?;
    match pid {
        Some(pid) => write!(out, "[{pid}]"),
        None => out.write_str("[?]"),
    }
}

/// Plain text as it is. Other text is quoted, with everything that is not printable (controls, bidirectional
/// overrides, combining marks) escaped.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@+,=".contains(&byte);
    if text.len() <= MAX_TEXT_BYTES && !text.is_empty() && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut start = text.to_owned();
    cut(&mut start, MAX_TEXT_BYTES, |char| char.escape_debug().map(char::len_utf8).sum());
    if start.bytes().all(is_plain) { Cow::Owned(start) } else { Cow::Owned(format!("{start:?}")) }
}

/// Numbers of events.
struct Numbers<'a>(&'a [u64]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{number}")?;
        }
        Ok(())
    }
}

/// Bytes, in a unit that is easy to read. The exact number is in the JSON.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        // Tenths, rounded down: 50.0 MiB is never less than 50 MiB.
        let mut tenths = u128::from(self.0) * 10 / 1024;
        let mut units = UNITS.iter();
        let mut unit = units.next();
        while tenths >= 10 * 1024
            && let Some(larger) = units.next()
        {
            tenths /= 1024;
            unit = Some(larger);
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, unit.unwrap_or(&"KiB"))
    }
}

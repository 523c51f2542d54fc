//! One kill on one card, for a person.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use anstyle::Style;

use super::{
    curve,
    details::details,
    next,
    search::{Found, History, Neighbours},
    split,
};
use crate::{
    event::{BeforeOf, Event, Incident, Kill, OomCgroup, OomKill, Reason, Scope},
    outputs::encode::text::{
        Palette, Size,
        history::{Span, write_before, write_recurrence},
        incident::write_finding,
        is_of, line, plain, time,
    },
};

/// Where the text of a row begins.
const INDENT: usize = 14;
const NO_INCIDENT: &str = "no `incident` line of this kill follows it in these files: what filled the memory and how it came is not known";

/// The card.
///
/// # Errors
/// That of `out`.
pub(super) fn write(found: &Found, out: &mut String) -> fmt::Result {
    let kill = &*found.kill;
    let incident = found.related.iter().find_map(|event| match event {
        Event::Incident(incident) => Some(&**incident),
        _ => None,
    });
    title(found, out)?;
    verdict(found, incident, out)?;
    if found.warned.is_err() {
        row(out, "limit near", "not known: lines of too many cgroups are in these files")?;
    }
    if let Ok(Some(near)) = &found.warned {
        related(&Event::LimitNear(near.clone()), out)?;
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        if let (Some(kill), Some(near)) = (time(&kill.envelope.time), time(&near.envelope.time)) {
            let before = u64::try_from(kill.as_nanosecond() - near.as_nanosecond()).unwrap_or(0);
            row(out, "", &format!("that was said {} before the kill", Span(before)))?;
        }
    }
    match incident {
        Some(incident) => of_incident(incident, out)?,
        None => rows(out, "not there", [NO_INCIDENT])?,
    }
    let (runtime, others): (Vec<&Event>, Vec<&Event>) = found
        .related
        .iter()
        .filter(|event| !matches!(event, Event::Incident(_)))
        .partition(|event| matches!(event, Event::Verdict(_)));
    others.into_iter().try_for_each(|event| related(event, out))?;
    row(out, "how often", &again(found.history.as_ref(), found.neighbours.as_ref()))?;
    if let Some(incident) = incident {
        findings(incident, out)?;
    }
    rows(out, "look at", next::steps(found, incident))?;
    out.write_char('\n')?;
    details(kill, out)?;
    if let Some(incident) = incident {
        row(out, "released", &split::released(&incident.released, incident.killed))?;
    }
    runtime.into_iter().try_for_each(|event| related(event, out))?;
    if found.more_related > 0 {
        row(out, "", &format!("and {} more lines about it", found.more_related))?;
    }
    not_known(kill, incident, out)?;
    match found.losses {
        Some(0) => {}
        Some(losses) => {
            row(
                out,
                "losses",
                &format!("lines of this stream that report losses: {losses} (see `oomtrace report`)"),
            )?;
        }
        None => row(out, "losses", "not known: too many streams are in these files (see `oomtrace report`)")?,
    }
    Ok(())
}

fn title(found: &Found, out: &mut String) -> fmt::Result {
    let kill = &*found.kill;
    let envelope = &kill.envelope;
    let service = found.service.as_deref().and_then(|service| service.split_once(':'));
    match service {
        Some((kind, name)) => write!(out, "OOM kill of {} ({})", plain(name), plain(kind))?,
        None => out.write_str("OOM kill in an unknown cgroup")?,
    }
    if let Some(host) = &envelope.host.name {
        write!(out, " on host {}", plain(host))?;
    }
    match time::inexact(&kill.missing) {
        None => write!(out, " at {} UTC", second(&envelope.time))?,
        inexact => {
            out.write_str(" at ")?;
            time::write_moment(&envelope.time, inexact, Style::new(), out)?;
        }
    }
    if let Some(seq) = envelope.seq {
        write!(out, " (event {seq})")?;
    }
    out.write_str("\n")?;
    match found.taken {
        0 | 1 => out.write_str("\n"),
        taken => writeln!(
            out,
            "The last of {taken} kills that were asked for. --event, --since and --until choose another.\n"
        ),
    }
}

/// What happened, how it came and what it was, each in a sentence.
fn verdict(found: &Found, incident: Option<&Incident>, out: &mut String) -> fmt::Result {
    let kill = &*found.kill;
    let mut killed = process(kill.victim.comm.as_deref(), kill.victim.pid);
    match incident.map_or(1, |incident| incident.killed) {
        0 | 1 => killed += " was killed: ",
        count => killed += &format!(" was killed, one of {count} in this run of the OOM killer: "),
    }
    row(out, "verdict", &(killed + &why(kill)))?;
    rows(out, "", notes(kill, incident.is_some()))?;
    let Some(before) = incident.and_then(|incident| incident.before.as_ref()) else { return Ok(()) };
    let mut text = String::new();
    if before.of == BeforeOf::Victim {
        text += "of the victim's container or unit: ";
    }
    write_before(before, &mut text)?;
    rows(out, "", text.split("; "))
}

/// The curve, the split, the processes and what stands out.
fn of_incident(incident: &Incident, out: &mut String) -> fmt::Result {
    let limit = incident.cgroup.as_ref().and_then(|cgroup| cgroup.limit_bytes);
    if let Some(before) = &incident.before {
        rows(out, "memory before", curve::lines(before, limit))?;
    }
    if let Some(cgroup) = &incident.cgroup {
        rows(out, "filled by", split::parts(cgroup))?;
    }
    if let Some(table) = &incident.process_table {
        rows(out, "who", split::processes(table, incident))?;
    }
    Ok(())
}

/// How often the tracer counted it, and what stands out.
fn findings(incident: &Incident, out: &mut String) -> fmt::Result {
    if let Some(recurrence) = &incident.recurrence {
        let mut text = "counted by the tracer: ".to_owned();
        write_recurrence(recurrence, &mut text)?;
        match (recurrence.kills, recurrence.lifetime_ns) {
            (2.., _) => row(out, "", &text)?,
            (_, Some(lived)) => row(out, "", &format!("the victim had lived for {}", Span(lived.max)))?,
            (_, None) => {}
        }
    }
    let limit = incident.cgroup.as_ref().and_then(|cgroup| cgroup.limit_bytes);
    let mut findings = Vec::new();
    for finding in &incident.findings {
        let mut text = String::new();
        write_finding(finding, limit, &mut text)?;
        findings.push(text);
    }
    rows(out, "findings", findings)
}

/// Why facts are absent: of the kill and of its run.
fn not_known(kill: &OomKill, incident: Option<&Incident>, out: &mut String) -> fmt::Result {
    let of_run =
        incident.into_iter().flat_map(|incident| &incident.missing).map(|absence| ("incident.", absence));
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let of_kill = kill.missing.iter().map(|absence| ("", absence));
    // That there is no limit is known.
    for (of, absence) in of_kill.chain(of_run).filter(|(_, absence)| absence.reason != Reason::NoLimit) {
        let detail = absence.detail.as_ref().map(|detail| format!(": {}", plain(detail))).unwrap_or_default();
        let reason = format!("{}{detail}", absence.reason.word());
        by_reason.entry(reason).or_default().push(format!("{of}{}", plain(&absence.key)));
    }
    rows(out, "not known", by_reason.iter().map(|(reason, keys)| format!("{} ({reason})", keys.join(", "))))
}

pub(super) fn row(out: &mut String, name: &str, text: &str) -> fmt::Result {
    // A name that is as long as the column has its text behind it all the same.
    writeln!(out, "{name:<INDENT$} {text}")
}

/// Some rows under one name.
fn rows<T: AsRef<str>>(out: &mut String, name: &str, texts: impl IntoIterator<Item = T>) -> fmt::Result {
    let mut name = name;
    for text in texts {
        row(out, std::mem::take(&mut name), text.as_ref())?;
    }
    Ok(())
}

/// A line about this kill, as text, without its time.
fn related(event: &Event, out: &mut String) -> fmt::Result {
    let mut text = Vec::new();
    line(event, &Palette::default(), &mut text);
    let text = String::from_utf8_lossy(&text);
    let kind = event.kind();
    let mut name = if kind == "verdict" { "runtime".into() } else { kind.replace('_', " ") };
    for line in text.lines() {
        // The time comes first, and it has no word of a type in it.
        let line = if name.is_empty() { Some(line) } else { line.split_once(kind).map(|(_, rest)| rest) };
        row(out, &std::mem::take(&mut name), line.unwrap_or_default().trim())?;
    }
    Ok(())
}

pub(super) fn process(comm: Option<&str>, pid: Option<u32>) -> String {
    let name = comm.map_or("?".into(), plain);
    pid.map_or_else(|| name.to_string(), |pid| format!("{name}[{pid}]"))
}

/// What ran out.
fn why(kill: &OomKill) -> String {
    let limit = |cgroup: &OomCgroup| match cgroup.limit_bytes {
        Some(bytes) => format!("its limit of {}", Size(bytes)),
        None => "its limit, which is not known".into(),
    };
    match (&kill.oom.cgroup, kill.oom.scope) {
        (Some(cgroup), _) if is_of(&cgroup.cgroup, kill.container.as_ref()) => {
            format!("its container reached {}", limit(cgroup))
        }
        (Some(cgroup), _) if cgroup.cgroup.is_same(&kill.victim.cgroup.cgroup()) => {
            format!("its cgroup reached {}", limit(cgroup))
        }
        (Some(cgroup), _) => {
            let path = cgroup.cgroup.path.as_ref().or(cgroup.cgroup.id.as_ref());
            let path = path.map_or("?".into(), |path| plain(path).into_owned());
            format!("another cgroup than its own reached {}: {path}", limit(cgroup))
        }
        (None, Some(Scope::Host)) => "the host ran out of memory: no cgroup's limit was reached".into(),
        (None, Some(Scope::Cpuset)) => "the memory nodes of a cpuset ran out".into(),
        (None, Some(Scope::Mempolicy)) => "the memory nodes of a memory policy ran out".into(),
        (None, Some(Scope::Memcg)) => "a cgroup reached its limit; which one is not known".into(),
        (None, None) => "why is not known".into(),
    }
}

/// What follows from the facts of this line, and only from these.
fn notes(kill: &OomKill, has_findings: bool) -> Vec<&'static str> {
    let mut notes = Vec::new();
    let memory = &kill.victim.memory;
    if kill.oom.scope == Some(Scope::Host) {
        notes.push("others may be larger than the victim: the killer weighs size by oom_score_adj");
    }
    if let (Some(rss), Some(shmem)) = (memory.rss_bytes, memory.shmem_rss_bytes)
        && !has_findings
        && shmem > 0
        && shmem >= rss / 4
    {
        notes.push("a quarter or more of the victim is tmpfs or shared memory, which can outlive it");
    }
    if kill.oom.order.is_some_and(|order| order > 0) && kill.oom.scope == Some(Scope::Host) {
        notes.push("the request was for several pages in one piece: there may have been free memory in smaller pieces");
    }
    if !has_findings && kill.oom.cgroup.as_ref().is_some_and(|cgroup| cgroup.swap_limit_bytes == Some(0)) {
        notes.push("the cgroup may use no swap");
    }
    match kill.oom.kill {
        Some(Kill::Group) => notes.push("it was killed with its group (memory.oom.group)"),
        Some(Kill::AllocatingTask) => {
            notes.push("it was killed because it allocated (vm.oom_kill_allocating_task)")
        }
        Some(Kill::Sysrq) => notes.push("somebody asked for the kill (sysrq f)"),
        Some(Kill::AlreadyExiting) => notes.push("it was exiting already"),
        Some(Kill::Selected) | None => {}
    }
    if next::is_child(kill) {
        notes.push(
            "it was not the first process of its pid namespace: the container may have gone on without it",
        );
    }
    notes
}

/// The other kills of the service in these files.
fn again(history: Option<&History>, neighbours: Option<&Neighbours>) -> String {
    let Some(history) = history else { return "not known: too many services are in these files".into() };
    if history.kills <= 1 {
        return "no other kill of it in these files".into();
    }
    let mut text =
        format!("{} kills of this service in these files since {}", history.kills, second(&history.first));
    if history.several_hosts {
        text += ", on several hosts";
    }
    if let Some(before) = neighbours.and_then(|near| near.before.as_deref()) {
        text += &format!("; the one before: {}", second(before));
    }
    if let Some(after) = neighbours.and_then(|near| near.after.as_deref()) {
        text += &format!("; the next: {}", second(after));
    }
    text
}

/// Date and time to the second.
fn second(time: &str) -> String {
    time.get(..19).unwrap_or(time).replace('T', " ")
}

//! A report as text for a terminal or a mail.

use std::fmt::{self, Display, Write};

use super::{
    kills::Kills,
    lists::{List, by_kills, ran_out, service},
    timeline::{Timeline, minute},
    totals::Totals,
};
use crate::outputs::encode::text::{Size, plain};

/// The longest bar.
const BAR: u64 = 40;
/// Bars of the timeline.
const BARS: usize = 48;

/// The report. Of each list the `most` largest.
///
/// # Errors
/// That of `out`.
pub(super) fn write(totals: &Totals, most: usize, out: &mut String) -> fmt::Result {
    summary(totals, out)?;
    services(totals, most, out)?;
    timeline(totals, out)?;
    hosts(totals, most, out)?;
    totals.memory.write_text(most, out)?;
    for list in List::all(totals, most) {
        writeln!(out, "\n{}", list.title.to_uppercase())?;
        for (name, count) in &list.names {
            writeln!(out, "{count:>6}  {name}")?;
        }
        if list.others > 0 {
            writeln!(out, "{:>6}  others", list.others)?;
        }
    }
    Ok(())
}

fn summary(totals: &Totals, out: &mut String) -> fmt::Result {
    if totals.lines == 0 {
        return writeln!(out, "no lines of oomtrace");
    }
    let hosts = totals.hosts.iter().filter(|host| host.kills > 0).count();
    writeln!(out, "{}: {}", totals.period.text(), number(totals.lines, "line", "lines"))?;
    write!(out, "{}", number(totals.kills, "OOM kill", "OOM kills"))?;
    if totals.kills > 0 {
        write!(out, " on {}", number(hosts as u64, "host", "hosts"))?;
        let scopes = totals.scopes.most_first();
        let scopes: Vec<String> =
            scopes.iter().map(|(scope, kills)| format!("{} {kills}", plain(scope))).collect();
        write!(out, "; what ran out: {}", scopes.join(", "))?;
    }
    if totals.from_log > 0 {
        write!(out, "; {} of the kills are from the kernel's log", totals.from_log)?;
    }
    writeln!(out)?;
    if totals.shared_mm > 0 {
        writeln!(
            out,
            "{} died with a victim whose memory they shared",
            number(totals.shared_mm, "process", "processes")
        )?;
    }
    let verdicts = &totals.verdicts;
    if verdicts.shown + verdicts.missed + verdicts.unknown > 0 {
        writeln!(
            out,
            "the runtimes show {} of these kills, do not show {}, and {} could not be asked",
            verdicts.shown, verdicts.missed, verdicts.unknown
        )?;
    }
    writeln!(out, "{}", trust(totals))
}

/// Whether anything is known to be left out.
pub(super) fn trust(totals: &Totals) -> String {
    let tracer = &totals.tracer;
    let mut parts = Vec::new();
    let lost = tracer.lost.most_first();
    if !lost.is_empty() {
        let reasons: Vec<String> =
            lost.iter().map(|(reason, count)| format!("{} {count}", plain(reason))).collect();
        parts.push(format!("reported as lost: {}", reasons.join(", ")));
    }
    if tracer.gaps > 0 {
        parts.push(format!(
            "{}: the kernel counted {} kills there, {} were reported",
            number(tracer.gaps, "gap", "gaps"),
            tracer.gap_kills,
            tracer.gap_reported
        ));
    }
    if tracer.silent_hooks > 0 {
        parts.push(format!("function hooks went silent {}", number(tracer.silent_hooks, "time", "times")));
    }
    if tracer.starts > tracer.stops {
        let open = tracer.starts - tracer.stops;
        parts.push(format!("{} did not end normally, or not yet", number(open, "run", "runs")));
    }
    if parts.is_empty() { "no line reports a loss".into() } else { parts.join("; ") }
}

fn services(totals: &Totals, most: usize, out: &mut String) -> fmt::Result {
    if totals.services.is_empty() {
        return Ok(());
    }
    let all = by_kills(totals);
    let shown = all.get(..most.min(all.len())).unwrap_or_default();
    let names: Vec<String> = shown.iter().map(|(name, _)| service(name)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(7);
    writeln!(
        out,
        "\n{:width$}  {:>6}  {:16}  {:>21}  {:>9}  LARGEST VICTIM",
        "SERVICE", "KILLS", "LAST (UTC)", "LIMIT", "PEAK"
    )?;
    for ((_, kills), name) in shown.iter().zip(&names) {
        writeln!(
            out,
            "{name:width$}  {:>6}  {:16}  {:>21}  {:>9}  {}{}",
            kills.kills,
            minute(&kills.period.last),
            limit(kills),
            kills.peak_bytes.map(|bytes| Size(bytes).to_string()).unwrap_or_default(),
            largest(kills),
            beside(kills),
        )?;
    }
    let rest = all.get(shown.len()..).unwrap_or_default();
    let kills = rest.iter().map(|(_, kills)| kills.kills).sum::<u64>() + totals.other_services;
    if kills > 0 {
        writeln!(out, "and {kills} kills in {} other services", rest.len())?;
    }
    Ok(())
}

/// The limit that was reached, or from which to which it was changed.
pub(super) fn limit(kills: &Kills) -> String {
    match kills.limits {
        Some((least, most)) if least == most => Size(least).to_string(),
        Some((least, most)) => format!("{} to {}", Size(least), Size(most)),
        None => String::new(),
    }
}

/// The largest victim.
pub(super) fn largest(kills: &Kills) -> String {
    match &kills.largest {
        Some((rss, comm)) => format!("{} {}", plain(comm), Size(*rss)),
        None => String::new(),
    }
}

/// Kills that were not by its own limit.
pub(super) fn beside(kills: &Kills) -> String {
    let mut text = String::new();
    for (count, what) in
        [(kills.by_limit_above, "by a limit above it"), (kills.by_host, "because the host ran out")]
    {
        if count > 0 {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "; {count} {what}");
        }
    }
    text
}

fn timeline(totals: &Totals, out: &mut String) -> fmt::Result {
    let Some(timeline) = Timeline::of(&totals.hours, BARS) else { return Ok(()) };
    writeln!(out, "\nKILLS, {} A LINE (UTC)", timeline.span().to_uppercase())?;
    let most = timeline.most();
    for (time, kills) in timeline.bars() {
        // A kill is never drawn as none.
        let length = (kills * BAR).div_ceil(most);
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        let line = format!("{time}  {kills:>6}  {bar}");
        writeln!(out, "{}", line.trim_end())?;
    }
    if totals.other_hours > 0 {
        writeln!(out, "and {} kills at other times", totals.other_hours)?;
    }
    Ok(())
}

fn hosts(totals: &Totals, most: usize, out: &mut String) -> fmt::Result {
    let hosts = ran_out(totals);
    if hosts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nHOSTS THAT RAN OUT")?;
    for host in hosts.iter().take(most) {
        writeln!(
            out,
            "{}  {} of {}, last {}",
            plain(&host.name),
            host.ran_out,
            number(host.kills, "kill", "kills"),
            minute(&host.ran_out_at.last)
        )?;
    }
    if hosts.len() > most {
        writeln!(out, "and {} other hosts", hosts.len() - most)?;
    }
    Ok(())
}

/// A number with its noun.
pub(super) fn number(count: u64, one: &str, more: &str) -> impl Display {
    format!("{count} {}", if count == 1 { one } else { more })
}

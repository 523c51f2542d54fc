//! A report as one HTML page: no script, nothing loaded from elsewhere, readable on a telephone.

use std::fmt::{self, Display, Write};

use super::{
    kills::Kills,
    lists::{List, by_kills, ran_out},
    text::{beside, largest, limit, number, trust},
    timeline::{Timeline, minute},
    totals::Totals,
};
use crate::{
    outputs::encode::text::{Size, plain},
    recorded::Service,
};

const STYLE: &str = include_str!("page.css");
/// How each page begins.
pub(super) const BEGIN: &str = "<!doctype html>";
/// Bars of the timeline.
const BARS: usize = 120;

/// Text as it may stand in a page. All that hosts and containers choose goes through [`plain`] first.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.to_string().chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// The report. Of each list the `most` largest.
///
/// # Errors
/// That of `out`.
pub(super) fn write(totals: &Totals, most: usize, out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "{BEGIN}\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>OOM kills</title>\n<style>\n{STYLE}</style>"
    )?;
    head(totals, out)?;
    timeline(totals, out)?;
    services(totals, most, out)?;
    hosts(totals, most, out)?;
    totals.memory.write_html(most, out)?;
    for list in List::all(totals, most) {
        write_list(&list, out)?;
    }
    writeln!(out, "</html>")
}

fn head(totals: &Totals, out: &mut String) -> fmt::Result {
    writeln!(out, "<h1>OOM kills</h1>")?;
    writeln!(
        out,
        "<p class=\"soft\">{}, {}</p>",
        Escaped(totals.period.text()),
        number(totals.lines, "line", "lines")
    )?;
    let losses = &totals.tracer;
    let class = if losses.lost.sum() > 0 || losses.gaps > 0 { "trust loss" } else { "trust" };
    writeln!(out, "<p class=\"{class}\">{}</p>", Escaped(trust(totals)))?;
    let hosts = totals.hosts.iter().filter(|host| host.kills > 0).count() as u64;
    let ran_out = totals.hosts.iter().filter(|host| host.ran_out > 0).count() as u64;
    writeln!(out, "<ul class=\"facts\">")?;
    for (count, what) in [
        (totals.kills, "OOM kills"),
        (totals.services.len() as u64, "services"),
        (hosts, "hosts with kills"),
        (ran_out, "hosts that ran out"),
        (totals.verdicts.missed, "kills that the runtime does not show"),
        (totals.without_kill.sum(), "times out of memory without a kill"),
    ] {
        writeln!(out, "<li><b>{count}</b>{what}</li>")?;
    }
    writeln!(out, "</ul>")
}

fn timeline(totals: &Totals, out: &mut String) -> fmt::Result {
    const HEIGHT: u64 = 100;
    let Some(timeline) = Timeline::of(&totals.hours, BARS) else { return Ok(()) };
    let bars: Vec<(String, u64)> = timeline.bars().collect();
    writeln!(out, "<h2>Kills, {} a bar</h2>", timeline.span())?;
    writeln!(
        out,
        "<svg viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Kills over time\">",
        bars.len() * 10
    )?;
    for (place, (time, kills)) in bars.iter().enumerate() {
        let height = (kills * HEIGHT).div_ceil(timeline.most());
        let x = place * 10;
        writeln!(
            out,
            "<g><title>{time} UTC: {kills}</title><rect class=\"whole\" x=\"{x}\" y=\"0\" width=\"10\" height=\"{HEIGHT}\"/>\
             <rect x=\"{}\" y=\"{}\" width=\"8\" height=\"{height}\"/></g>",
            x + 1,
            HEIGHT - height,
        )?;
    }
    let end = |bar: Option<&(String, u64)>| bar.map(|(time, _)| time.clone()).unwrap_or_default();
    writeln!(
        out,
        "</svg>\n<div class=\"ends\"><span>{}</span><span>most: {}</span><span>{}</span></div>",
        end(bars.first()),
        timeline.most(),
        end(bars.last())
    )
}

fn services(totals: &Totals, most: usize, out: &mut String) -> fmt::Result {
    if totals.services.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Services</h2>\n<div class=\"wide\"><table><tr><th>Service<th class=\"number\">Kills<th>First (UTC)<th>Last (UTC)\
         <th class=\"number\">Limit<th class=\"number\">Peak<th>Largest victim<th class=\"number\">Hosts</tr>"
    )?;
    let all = by_kills(totals);
    for (service, kills) in all.iter().take(most) {
        row(service, kills, out)?;
    }
    writeln!(out, "</table></div>")?;
    let rest = all.get(most..).unwrap_or_default();
    let kills = rest.iter().map(|(_, kills)| kills.kills).sum::<u64>() + totals.other_services;
    if kills > 0 {
        writeln!(out, "<p class=\"soft\">and {kills} kills in {} other services</p>", rest.len())?;
    }
    writeln!(
        out,
        "<p class=\"soft\">Limit: of the service's own cgroup, where it was reached. Peak: the highest use that the kernel kept for that \
         cgroup.</p>"
    )
}

fn row(service: &Service, kills: &Kills, out: &mut String) -> fmt::Result {
    let beside = beside(kills);
    writeln!(
        out,
        "<tr><td class=\"name\">{} <span class=\"soft\">{}</span><td class=\"number\">{}<td>{}<td>{}<td class=\"number\">{}\
         <td class=\"number\">{}<td class=\"name\">{}<span class=\"soft\">{}</span><td class=\"number\">{}</tr>",
        Escaped(plain(&service.name)),
        Escaped(plain(&service.kind)),
        kills.kills,
        Escaped(minute(&kills.period.first)),
        Escaped(minute(&kills.period.last)),
        limit(kills),
        kills.peak_bytes.map(|bytes| Size(bytes).to_string()).unwrap_or_default(),
        Escaped(largest(kills)),
        beside,
        kills.hosts.len(),
    )
}

fn hosts(totals: &Totals, most: usize, out: &mut String) -> fmt::Result {
    let hosts = ran_out(totals);
    if hosts.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Hosts that ran out</h2>\n<div class=\"wide\"><table><tr><th>Host<th class=\"number\">Kills because it ran out\
         <th class=\"number\">All kills<th>Last (UTC)</tr>"
    )?;
    for host in hosts.iter().take(most) {
        writeln!(
            out,
            "<tr><td class=\"name\">{}<td class=\"number\">{}<td class=\"number\">{}<td>{}</tr>",
            Escaped(plain(&host.name)),
            host.ran_out,
            host.kills,
            Escaped(minute(&host.ran_out_at.last))
        )?;
    }
    writeln!(out, "</table></div>")?;
    if hosts.len() > most {
        writeln!(out, "<p class=\"soft\">and {} other hosts</p>", hosts.len() - most)?;
    }
    Ok(())
}

fn write_list(list: &List, out: &mut String) -> fmt::Result {
    writeln!(out, "<h2>{}</h2>\n<div class=\"wide\"><table class=\"list\">", list.title)?;
    for (name, count) in &list.names {
        writeln!(out, "<tr><td class=\"number\">{count}<td class=\"name\">{}</tr>", Escaped(name))?;
    }
    if list.others > 0 {
        writeln!(out, "<tr><td class=\"number\">{}<td class=\"name\">others</tr>", list.others)?;
    }
    writeln!(out, "</table></div>")
}

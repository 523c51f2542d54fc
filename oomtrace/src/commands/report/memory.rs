//! How memory went: the shape of each incident, and the use of each service beside its limit.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write},
};

use super::{counts::Counts, html::Escaped, timeline::minute};
use crate::{
    outputs::encode::text::{
        Size,
        history::{Span, curve},
        plain,
    },
    recorded::{Row, Service},
};

/// Services whose use is told apart.
const SERVICES: usize = 16_384;
/// The latest incidents that are drawn.
const DRAWN: usize = 200;
/// Points of a curve; a line of oomtrace has fewer.
const POINTS: usize = 64;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Incidents by how the kill came about.
    pub(super) shapes: Counts<String>,
    /// By service.
    uses: BTreeMap<String, Use>,
    /// `usage` lines of services that were not told apart.
    other_uses: u64,
    curves: VecDeque<Curve>,
}

/// The use of a service: where it came nearest to its limit.
#[derive(Debug, Default)]
struct Use {
    limit: u64,
    peak: u64,
    watched_ns: u64,
}

impl Use {
    fn percent(&self) -> u128 {
        u128::from(self.peak) * 100 / u128::from(self.limit.max(1))
    }
}

/// The memory of an incident.
#[derive(Debug)]
struct Curve {
    time: String,
    service: Service,
    shape: String,
    points: Vec<(i64, u64)>,
}

impl Memory {
    /// Adds an incident.
    pub(super) fn incident(&mut self, time: &str, row: &Row<'_>) {
        let before = row.before.as_ref();
        let shape = before.map(|before| &*before.shape).filter(|shape| !shape.is_empty());
        self.shapes.add(shape.unwrap_or("unknown").to_owned(), 1);
        let Some(before) = before.filter(|before| before.points.len() > 1) else { return };
        if self.curves.len() >= DRAWN {
            self.curves.pop_front();
        }
        self.curves.push_back(Curve {
            time: time.to_owned(),
            service: Service::of(row),
            shape: shape.unwrap_or_default().to_owned(),
            points: before.points.iter().copied().take(POINTS).collect(),
        });
    }

    /// Adds the use of a service.
    pub(super) fn usage(&mut self, row: &Row<'_>) {
        let (Some(limit), Some(peak)) = (row.limit_bytes, row.peak_bytes) else { return };
        if self.uses.len() >= SERVICES && !self.uses.contains_key(&*row.key) {
            self.other_uses += 1;
            return;
        }
        let new = Use { limit, peak, watched_ns: row.watched_ns };
        let there = self.uses.entry(row.key.clone().into_owned()).or_default();
        let watched_ns = there.watched_ns.max(new.watched_ns);
        if there.limit == 0 || new.percent() >= there.percent() {
            *there = new;
        }
        there.watched_ns = watched_ns;
    }

    /// Those that used least of their limit come last.
    fn by_use(&self) -> Vec<(&String, &Use)> {
        let mut uses: Vec<_> = self.uses.iter().collect();
        uses.sort_by(|(one, less), (other, more)| {
            more.percent().cmp(&less.percent()).then_with(|| one.cmp(other))
        });
        uses
    }

    /// The uses as text.
    pub(super) fn write_text(&self, most: usize, out: &mut String) -> fmt::Result {
        if self.uses.is_empty() {
            return Ok(());
        }
        let uses = self.by_use();
        let shown = uses.get(..most.min(uses.len())).unwrap_or_default();
        let names: Vec<String> = shown.iter().map(|(key, _)| plain(key).into_owned()).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(7);
        writeln!(
            out,
            "\n{:width$}  {:>10}  {:>11}  {:>5}  WATCHED FOR",
            "SERVICE", "LIMIT", "HIGHEST USE", "%"
        )?;
        for (name, (_, of)) in names.iter().zip(shown) {
            writeln!(
                out,
                "{name:width$}  {:>10}  {:>11}  {:>5}  {}",
                Size(of.limit).to_string(),
                Size(of.peak).to_string(),
                of.percent(),
                Span(of.watched_ns)
            )?;
        }
        let rest = (uses.len() - shown.len()) as u64 + self.other_uses;
        if rest > 0 { writeln!(out, "and {rest} other services") } else { Ok(()) }
    }

    /// The uses and the curves, as parts of a page.
    pub(super) fn write_html(&self, most: usize, out: &mut String) -> fmt::Result {
        let uses = self.by_use();
        if !uses.is_empty() {
            writeln!(
                out,
                "<h2>Limit beside highest use</h2>\n<div class=\"wide\"><table><tr><th>Service<th class=\"number\">Limit\
                 <th class=\"number\">Highest use<th class=\"number\">%<th class=\"number\">Watched for</tr>"
            )?;
            for (key, of) in uses.iter().take(most) {
                writeln!(
                    out,
                    "<tr><td class=\"name\">{}<td class=\"number\">{}<td class=\"number\">{}<td class=\"number\">{}\
                     <td class=\"number\">{}</tr>",
                    Escaped(plain(key)),
                    Size(of.limit),
                    Size(of.peak),
                    of.percent(),
                    Span(of.watched_ns)
                )?;
            }
            writeln!(out, "</table></div>")?;
            let rest = uses.len().saturating_sub(most) as u64 + self.other_uses;
            if rest > 0 {
                writeln!(out, "<p class=\"soft\">and {rest} other services</p>")?;
            }
        }
        if self.curves.is_empty() {
            return Ok(());
        }
        writeln!(out, "<h2>Memory before each kill</h2>\n<div class=\"curves\">")?;
        self.curves.iter().rev().try_for_each(|curve| curve.write(out))?;
        writeln!(out, "</div>")
    }
}

impl Curve {
    fn write(&self, out: &mut String) -> fmt::Result {
        const WIDTH: u64 = 240;
        const HEIGHT: u64 = 60;
        let first = self.points.first().map_or(0, |(at, _)| at.unsigned_abs()).max(1);
        let highest = self.points.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
        let x = |at: i64| {
            WIDTH
                - u64::try_from(
                    u128::from(at.unsigned_abs().min(first)) * u128::from(WIDTH) / u128::from(first),
                )
                .unwrap_or(WIDTH)
        };
        let y = |bytes: u64| {
            HEIGHT
                - u64::try_from(u128::from(bytes) * u128::from(HEIGHT) / u128::from(highest))
                    .unwrap_or(HEIGHT)
        };
        write!(
            out,
            "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\"><polyline points=\"",
            curve(&self.points)
        )?;
        for (at, bytes) in &self.points {
            write!(out, "{},{} ", x(*at), y(*bytes))?;
        }
        writeln!(
            out,
            "\"/></svg><figcaption><b>{}</b> {}<br>{} UTC: {}, over {} to {}</figcaption></figure>",
            Escaped(plain(&self.service.name)),
            Escaped(plain(&self.service.kind)),
            Escaped(minute(&self.time)),
            Escaped(if self.shape.is_empty() { "not known".into() } else { plain(&self.shape) }),
            Span(first.saturating_mul(1_000_000)),
            Size(highest)
        )
    }
}

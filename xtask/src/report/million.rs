//! A million lines through `oomtrace report`: how long it takes, and how much memory.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::sample;

const LINES: u64 = 1_000_000;
/// Services of the kills.
const SERVICES: u64 = 20_000;
/// What is aimed at. Time is only printed: others use this machine too.
const MIB: u64 = 200;

/// Of ten lines, six are kills, three are incidents, and one is of another type. They go through a pipe.
pub fn run(binary: &Path, samples: &[Value]) -> Result<()> {
    let of = |kind: &str| sample(samples, kind).map(Template::new);
    let (kill, incident) = (of("oom_kill")?, of("incident")?);
    let others = [of("verdict")?, of("usage")?, of("limit_near")?, of("signal_kill")?];
    let page = tempfile::NamedTempFile::new()?;
    let started = Instant::now();
    let mut report = Command::new(binary)
        .args(["report", "--html"])
        .arg(page.path())
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .context("start oomtrace")?;
    let mut input = BufWriter::with_capacity(1 << 20, report.stdin.take().context("no pipe")?);
    let mut bytes = 0;
    let mut line = Vec::with_capacity(4096);
    for number in 0..LINES {
        let template = match number % 10 {
            0..6 => &kill,
            6..9 => &incident,
            _ => others.get(usize::try_from(number / 10 % 4).unwrap_or(0)).unwrap_or(&kill),
        };
        template.fill(number, &mut line);
        bytes += line.len() as u64;
        input.write_all(&line).context("oomtrace report took no more")?;
    }
    input.into_inner().map_err(|error| error.into_error())?;
    // The pipe is read to its end before the page is made.
    let (mut peak_kib, mut ticks) = (0, 0);
    let status = loop {
        peak_kib = peak_kib.max(highest_rss_kib(report.id()).unwrap_or(0));
        ticks = ticks.max(ticks_of(report.id()).unwrap_or(0));
        if let Some(status) = report.try_wait()? {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    ensure!(status.success(), "oomtrace report: {status}");
    eprintln!(
        "  {LINES} lines, {} MB, {SERVICES} services: {:.1} s of processor time, {:.1} s in all, highest RSS {:.1} MiB, a page of {} KiB",
        bytes / 1_000_000,
        ticks as f64 / 100.0,
        started.elapsed().as_secs_f64(),
        peak_kib as f64 / 1024.0,
        fs::metadata(page.path())?.len() >> 10
    );
    ensure!(peak_kib > 0 && peak_kib < MIB << 10, "the highest RSS is not below {MIB} MiB: {peak_kib} KiB");
    Ok(())
}

fn highest_rss_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Hundredths of a second of processor time.
fn ticks_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let number = |place: usize| rest.split_whitespace().nth(place)?.parse::<u64>().ok();
    Some(number(11)? + number(12)?)
}

/// A line with places for its number, its service and its time.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    Number,
    Service,
    Time,
}

impl Template {
    fn new(sample: &Value) -> Self {
        let mut line = sample.clone();
        if let Some(map) = line.as_object_mut() {
            map.insert("time".into(), "@time@".into());
            for key in ["seq", "id", "key"] {
                if map.contains_key(key) {
                    map.insert(key.into(), if key == "key" { "@service@" } else { "@number@" }.into());
                }
            }
        }
        if let Some(container) = line.get_mut("container").and_then(Value::as_object_mut) {
            container.remove("label");
            container.insert("name".into(), "@service@".into());
        }
        // A number has no quotes. No sample has an @ elsewhere; if one had, it would be text.
        let text = line.to_string().replace("\"seq\":\"@number@\"", "\"seq\":@number@");
        let part = |(place, part): (usize, &str)| match part {
            "number" if place % 2 == 1 => Part::Number,
            "service" if place % 2 == 1 => Part::Service,
            "time" if place % 2 == 1 => Part::Time,
            text => Part::Text(text.to_owned()),
        };
        Self(text.split('@').enumerate().map(part).collect())
    }

    fn fill(&self, number: u64, line: &mut Vec<u8>) {
        line.clear();
        let second = number / 10;
        for part in &self.0 {
            // Writing to a vector cannot fail.
            let _infallible = match part {
                Part::Text(text) => line.write_all(text.as_bytes()),
                Part::Number => write!(line, "{number}"),
                Part::Service => write!(line, "service-{}", number * 7919 % SERVICES),
                Part::Time => write!(
                    line,
                    "2026-11-{:02}T{:02}:{:02}:{:02}.{:09}Z",
                    1 + second / 86_400,
                    second / 3600 % 24,
                    second / 60 % 60,
                    second % 60,
                    number % 10
                ),
            };
        }
        line.push(b'\n');
    }
}

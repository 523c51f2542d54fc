//! `cargo xtask report`: `oomtrace report` with hostile names in a real browser, and with a million lines.

mod browser;
mod hostile;
mod million;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};

use crate::{build, setup, stage::Stages, workspace};
use browser::{Look, Seen};

/// Look at the page of `oomtrace report --html` with hostile names in headless Chromium, and report a million lines
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the million lines, which take half a minute
    #[arg(long)]
    only_page: bool,
    /// Take this oomtrace instead of the one of this checkout
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::BROWSER)?;
    let binary = args.binary.clone().map_or_else(build::binary, Ok)?;
    let samples = samples()?;
    let mut stages = Stages::default();
    stages.call("the page, with hostile names, in Chromium", || page(&binary, &samples));
    if !args.only_page {
        stages.call("a million lines", || million::run(&binary, &samples));
    }
    stages.finish()
}

/// The lines of docs/EVENTS.md.
fn samples() -> Result<Vec<serde_json::Value>> {
    let text = fs::read_to_string(workspace::root().join("docs/EVENTS.md"))?;
    let lines = text.lines().filter(|line| line.starts_with("{\"schema\":1,"));
    let samples = lines.map(serde_json::from_str).collect::<Result<Vec<_>, _>>()?;
    ensure!(!samples.is_empty(), "docs/EVENTS.md has no lines");
    Ok(samples)
}

/// The first line of this type.
fn sample<'a>(samples: &'a [serde_json::Value], kind: &str) -> Result<&'a serde_json::Value> {
    let found = samples.iter().find(|line| line.get("type").is_some_and(|of| of == kind));
    found.with_context(|| format!("docs/EVENTS.md has no {kind}"))
}

fn page(binary: &Path, samples: &[serde_json::Value]) -> Result<()> {
    let dir = workspace::target_dir().join("report");
    fs::create_dir_all(&dir)?;
    // Whatever a name loads is asked for here.
    let bait = Bait::lay()?;
    let names = hostile::names(bait.port);
    let (lines, page) = (dir.join("hostile.jsonl"), dir.join("page.html"));
    fs::write(&lines, hostile::lines(samples, &names)?)?;
    let made = Command::new(binary).arg("report").arg("--html").arg(&page).arg(&lines).status()?;
    ensure!(made.success(), "oomtrace report: {made}");

    // A page without any defence is seen through: so a page that passes has one.
    let control = dir.join("control.html");
    fs::write(
        &control,
        format!("<!doctype html><title>OOM kills</title><table><tr><td>{}</table>", names.join("<td>")),
    )?;
    let seen = browser::look(&dir, &control, Look { width: 390, dark: false })?;
    ensure!(
        seen.ran && seen.active > 0 && seen.overflow > 0 && bait.taken() > 0,
        "the check itself sees nothing: {seen:?}"
    );
    let by_control = bait.taken();

    for (name, look) in [
        ("light", Look { width: 1280, dark: false }),
        ("dark", Look { width: 1280, dark: true }),
        ("phone", Look { width: 390, dark: false }),
        ("phone-dark", Look { width: 390, dark: true }),
    ] {
        let seen = browser::look(&dir, &page, look)?;
        let Seen { ran, active, overflow, dark, .. } = seen;
        ensure!(!ran, "{name}: a script ran");
        ensure!(active == 0, "{name}: {active} elements load or run something");
        ensure!(overflow == 0, "{name}: the page is {overflow} pixels wider than the window");
        ensure!(dark == look.dark, "{name}: the colours are of the other kind: {seen:?}");
        ensure!(seen.text.contains("<script>"), "{name}: the names are not shown as they are");
        ensure!(bait.taken() == by_control, "{name}: the page asked the network for something");
        let picture = dir.join(format!("{name}.png"));
        browser::picture(&dir, &page, look, &picture)?;
        eprintln!("  {}", picture.display());
    }
    ensure!(bait.taken() == by_control, "the page asked the network for something");
    let size = fs::metadata(&page).context("the page")?.len();
    eprintln!(
        "  {} of {} KiB, from {} KiB of lines",
        page.display(),
        size >> 10,
        fs::metadata(&lines)?.len() >> 10
    );
    Ok(())
}

/// A port that only a name of the hostile file asks for.
struct Bait {
    port: u16,
    taken: Arc<AtomicUsize>,
}

impl Bait {
    /// It answers nobody, and lives as long as this program.
    fn lay() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let taken = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&taken);
        std::thread::spawn(move || {
            for _connection in listener.incoming() {
                theirs.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { port, taken })
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

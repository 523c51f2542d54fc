//! A page in headless Chromium: what it does is seen from a page around it, which may look inside.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How the page is looked at.
#[derive(Clone, Copy)]
pub struct Look {
    /// Of the window, in pixels.
    pub width: u32,
    pub dark: bool,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// A script of a name ran: each changes the title.
    pub ran: bool,
    /// Elements that can run or load something.
    pub active: u64,
    /// By how many pixels the page is wider than the window.
    pub overflow: u64,
    /// Its ground is dark.
    pub dark: bool,
    /// Its text.
    pub text: String,
}

/// How long the page has to do something, in the browser's own time.
const TIME: Duration = Duration::from_secs(3);
const HEIGHT: u32 = 1600;
/// Of a picture, in which the curves are too.
const PICTURE: u32 = 5600;
/// A window is not narrower; a page in a frame is.
const NARROWEST: u32 = 500;

/// Opens the page in a frame of this width.
pub fn look(dir: &Path, page: &Path, look: Look) -> Result<Seen> {
    let around = dir.join("around.html");
    fs::write(&around, around_page(page, look, HEIGHT, SEE))?;
    let mut chromium = chromium(dir, look, HEIGHT);
    let output = chromium.arg("--dump-dom").arg(url(&around)).output().context("start chromium")?;
    let dom = String::from_utf8_lossy(&output.stdout);
    let told = dom.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (told, _) = told.with_context(|| {
        format!("Chromium did not look: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
    })?;
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&");
    let told: Value = serde_json::from_str(&told).with_context(|| told.clone())?;
    let number =
        |key: &str| told.get(key).and_then(Value::as_u64).with_context(|| format!("no {key}: {told}"));
    let text = |key: &str| told.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let colours = text("ground");
    let ground: Vec<u32> =
        colours.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    Ok(Seen {
        ran: text("title") != "OOM kills",
        active: number("active")?,
        overflow: number("overflow")?,
        dark: ground.iter().take(3).sum::<u32>() < 3 * 128,
        text: text("text"),
    })
}

/// Takes a picture.
pub fn picture(dir: &Path, page: &Path, look: Look, to: &Path) -> Result<()> {
    let around = dir.join("around.html");
    fs::write(&around, around_page(page, look, PICTURE, ""))?;
    let mut chromium = chromium(dir, look, PICTURE);
    chromium.arg(format!("--screenshot={}", to.display()));
    chromium.arg(url(if look.width < NARROWEST { &around } else { page }));
    let output = chromium.output().context("start chromium")?;
    ensure!(to.is_file(), "no picture: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn chromium(dir: &Path, look: Look, height: u32) -> Command {
    let mut chromium = Command::new("timeout");
    chromium
        .args(["--kill-after=5", "90", "chromium"])
        // As root there is no sandbox; the page is one that this command made.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"])
        // The page around may look into the page, which has no network but this host.
        .args(["--allow-file-access-from-files", "--disable-background-networking"])
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", dir.join("chromium").display()))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!look.dark)))
        .arg(format!("--window-size={},{height}", look.width.max(NARROWEST)))
        .arg(format!("--virtual-time-budget={}", TIME.as_millis()));
    chromium
}

fn url(page: &Path) -> String {
    format!("file://{}", page.display())
}

fn around_page(page: &Path, look: Look, height: u32, script: &str) -> String {
    format!(
        "<!doctype html><meta charset=utf-8><style>body {{ margin: 0 }} iframe {{ border: 0; display: block }}</style>\
         <iframe id=page width={} height={height} src=\"{}\"></iframe>{script}",
        look.width,
        url(page)
    )
}

/// Looks when the page had time to do something.
const SEE: &str = r#"<script>
setTimeout(() => {
  const page = document.getElementById('page').contentDocument;
  const root = page.documentElement;
  const acts = (name) => name.startsWith('on') || ['src', 'href', 'srcset', 'data', 'action', 'xlink:href'].includes(name);
  const active = [...page.querySelectorAll('*')].filter((element) =>
    ['SCRIPT', 'IFRAME', 'OBJECT', 'EMBED', 'LINK', 'IMG', 'FORM', 'BASE'].includes(element.tagName.toUpperCase())
    || [...element.attributes].some((attribute) => acts(attribute.name.toLowerCase())));
  const seen = document.createElement('pre');
  seen.id = 'seen';
  seen.textContent = JSON.stringify({
    title: page.title,
    active: active.length,
    overflow: Math.max(0, root.scrollWidth - root.clientWidth),
    ground: getComputedStyle(page.body).backgroundColor,
    text: page.body.innerText,
  });
  document.body.append(seen);
}, 1500);
</script>"#;

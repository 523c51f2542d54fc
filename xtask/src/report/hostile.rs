//! A recorded file as hostile containers would make it: many kills, and names that are markup.

use anyhow::Result;
use serde_json::{Value, json};

use super::sample;

/// Kills, each with its incident.
const KILLS: u64 = 400;
const HOSTS: u64 = 5;
const MIB: u64 = 1 << 20;
const SHAPES: [&str; 6] = ["growth", "burst", "steps", "at_limit", "short", "irregular"];

/// Names that run or load something where they are not escaped. Each script changes the title.
pub fn names(port: u16) -> Vec<String> {
    let bait = format!("http://127.0.0.1:{port}/");
    vec![
        "w".repeat(180),
        "<script>document.title='ran'</script>".into(),
        "<img src=x onerror=\"document.title='ran'\">".into(),
        format!("<img src={bait}a>"),
        format!("</style><link rel=stylesheet href={bait}b>"),
        format!("</title></table></svg><iframe src={bait}c></iframe>"),
        "\"><svg onload=document.title='ran'>".into(),
        "' onmouseover='document.title=1' x='".into(),
        "&lt;script&gt;document.title='ran'&lt;/script&gt;".into(),
        "--><script>document.title='ran'</script><!--".into(),
        "]]><a href=javascript:document.title='ran'>here</a>".into(),
        "\u{202e}gnp.exe\u{2066}\u{1b}[2J".into(),
        "shop-api-1".into(),
    ]
}

/// The lines of five hosts over three days.
pub fn lines(samples: &[Value], names: &[String]) -> Result<String> {
    let (kill, incident) = (sample(samples, "oom_kill")?, sample(samples, "incident")?);
    let mut text = String::new();
    let mut write = |line: &Value| text += &format!("{line}\n");
    for number in 0..KILLS {
        for one in [kill, incident] {
            write(&with(one, number, names));
        }
        if number.is_multiple_of(9) {
            let mut host = with(kill, KILLS + number, names);
            set(&mut host, &["oom", "scope"], json!("host"));
            write(&host);
        }
    }
    for kind in ["usage", "limit_near", "signal_kill", "memcg_oom", "verdict", "lost", "gap"] {
        let one = sample(samples, kind)?;
        for number in 0..names.len() as u64 {
            write(&with(one, 10_000 + number, names));
        }
    }
    Ok(text)
}

/// A copy of a line with its own number, time, host and names.
fn with(sample: &Value, number: u64, names: &[String]) -> Value {
    let mut line = sample.clone();
    let name =
        names.get(usize::try_from(number).unwrap_or(0) % names.len().max(1)).cloned().unwrap_or_default();
    let host = number % HOSTS;
    let kind = sample.get("type").and_then(Value::as_str).unwrap_or_default();
    let minutes = number % KILLS * 10;
    let time = format!(
        "2026-11-{:02}T{:02}:{:02}:00.000000000Z",
        21 + minutes / 1440,
        minutes / 60 % 24,
        minutes % 60
    );
    set(&mut line, &["time"], json!(time));
    set(&mut line, &["stream"], json!(format!("stream-{host}")));
    for (key, value) in [("seq", json!(number)), ("id", json!(format!("{kind}-{number}-{name}")))] {
        if line.get(key).is_some() {
            set(&mut line, &[key], value);
        }
    }
    let place = if number.is_multiple_of(11) { name.clone() } else { format!("node-{host}") };
    set(&mut line, &["host", "name"], json!(place));
    for path in [
        &["container", "name"][..],
        &["container", "image", "name"],
        &["victim", "comm"],
        &["key"],
        &["killer"],
        &["reason"],
        &["systemd", "unit"],
        &["before", "shape"],
    ] {
        set(&mut line, path, json!(name));
    }
    if let Some(label) = line.get_mut("container").and_then(|container| container.get_mut("label")) {
        *label = json!({});
    }
    set(&mut line, &["false_positive"], json!([name]));
    if !number.is_multiple_of(4) {
        let place = usize::try_from(number).unwrap_or(0);
        let shape = SHAPES.get(place % SHAPES.len()).copied().unwrap_or("growth");
        set(&mut line, &["before", "shape"], json!(shape));
        set(&mut line, &["before", "points"], points(shape));
    }
    line
}

/// Sets what is there.
fn set(line: &mut Value, path: &[&str], value: Value) {
    let there = path.iter().try_fold(line, |value, key| value.get_mut(*key));
    if let Some(there) = there {
        *there = value;
    }
}

/// A curve of this shape over two hours.
fn points(shape: &str) -> Value {
    let bytes = |at: u64| match shape {
        "growth" => 8 + 2 * at,
        "burst" if at < 23 => 9 + at % 2,
        "steps" => 8 + at / 6 * 12,
        "at_limit" if at < 6 => 8 * at,
        "at_limit" => 49,
        "irregular" => 10 + at * 37 % 40,
        _ => 50,
    };
    let point =
        |at: u64| json!([-(300_000 * (23_i64 - i64::try_from(at).unwrap_or(0))), bytes(at).min(50) * MIB]);
    (0..24).map(point).collect()
}

//! Real kills in a real journal: journald in a mount namespace of its own, where nothing of this host's journal is.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{build, workspace};

/// How many kills.
const KILLS: usize = 12;
/// Where journald is in Debian and its like, and elsewhere.
const JOURNALD: [&str; 2] = ["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"];

/// Runs in the namespace: `$1` journald, `$2` oomtrace, `$3` a directory, `$4` how many kills, then the recipe's command.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nRateLimitIntervalSec=0\n' >/run/systemd/journald.conf.d/test.conf
"$1" 2>"$3/journald" &
journald=$!
until test -S /run/systemd/journal/socket; do sleep 0.1; done
"$2" run -o json --journal --file "$3/lines" --no-verdict 2>"$3/words" &
tracer=$!
until grep -q '"type":"start"' "$3/lines"; do kill -0 $tracer; sleep 0.1; done
n=0
while test $n -lt "$4"; do n=$((n + 1)); "$2" simulate -o json >/dev/null; done
kill $tracer
wait $tracer
journalctl -D /run/log/journal --sync >/dev/null 2>&1 || true
sleep 1
sh "$5" >"$3/entries"
kill $journald
wait $journald || true
"#;

/// Each kill's line is in the journal, byte for byte, by the recipe's command.
pub fn run(recipe: &Path) -> Result<()> {
    let journald = JOURNALD.iter().find(|path| Path::new(path).exists());
    let journald = journald.context("no systemd-journald on this host: apt-get install systemd")?;
    let directory = tempfile::tempdir()?;
    let text = fs::read_to_string(recipe).with_context(|| recipe.display().to_string())?;
    let command = directory.path().join("recipe.sh");
    // The journal of the namespace is not where a host's is.
    fs::write(&command, text.replace("journalctl ", "journalctl -D /run/log/journal "))?;
    let mut unshare = workspace::as_root(Path::new("unshare"));
    unshare.args(["--mount", "sh", "-c", SCRIPT, "sh", journald]);
    unshare.arg(build::binary()?).arg(directory.path()).arg(KILLS.to_string()).arg(&command);
    let output = unshare.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);

    let kills: Vec<String> = fs::read_to_string(directory.path().join("lines"))?
        .lines()
        .filter(|line| line.contains("\"type\":\"oom_kill\""))
        .map(str::to_owned)
        .collect();
    ensure!(kills.len() >= KILLS, "{} kills were reported, of {KILLS}", kills.len());
    let mut entries = Vec::new();
    for entry in fs::read_to_string(directory.path().join("entries"))?.lines() {
        let entry: Value = serde_json::from_str(entry)?;
        let line = entry.get("OOMTRACE_JSON").and_then(Value::as_str);
        entries.push(line.with_context(|| format!("an entry without its line: {entry}"))?.to_owned());
    }
    ensure!(entries == kills, "{} kills, {} entries, not the same: {entries:?}", kills.len(), entries.len());
    eprintln!("{} kills, {} entries, equal byte for byte", kills.len(), entries.len());
    Ok(())
}

//! Compares `oomtrace log` with the kernel's own report: the log of this guest itself, and in the formats of
//! three programs. The formats are written here, from records that the tests' own reader parsed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::kernel_log::{self, LoggedKill, Record};
use crate::tracer::at;

/// Each kill of `logged` must be in the output of `oomtrace log`, in this order, with the kernel's figures.
pub fn check(binary: &Path, logged: &[LoggedKill]) -> Result<()> {
    let logged = once(logged);
    let records = kernel_log::records()?;
    let begins = records.first().map_or(0, |record| record.seq);
    for (form, input, is_exact) in [
        ("/dev/kmsg", None, true),
        ("a copy of /dev/kmsg", Some(as_kmsg(&records)), true),
        ("a journal's export", Some(as_export(&records)), true),
        ("a copy of /proc/kmsg", Some(as_proc_kmsg(&records)), false),
    ] {
        let lines = lines_of(binary, input.as_deref()).with_context(|| format!("oomtrace log of {form}"))?;
        // The log may have lost its beginning, and may contain kills from before the tests.
        let common = lines.len().min(logged.len());
        ensure!(
            common == logged.len() || begins > 0 && common > 0,
            "oomtrace log of {form}: the kernel logged {} kills, and {} are printed",
            logged.len(),
            lines.len()
        );
        // If the log has lost its beginning, its first report may be incomplete.
        let whole = lines.get(usize::from(begins > 0)..).unwrap_or_default();
        for (line, kill) in whole.iter().rev().zip(logged.iter().rev()) {
            compare(line, kill, is_exact)
                .with_context(|| format!("oomtrace log of {form}: {line}; the kernel: {kill:?}"))?;
        }
    }
    Ok(())
}

/// When the kernel kills a group, it logs the chosen process again. The process dies once.
fn once(logged: &[LoggedKill]) -> Vec<LoggedKill> {
    let mut kept: Vec<LoggedKill> = Vec::new();
    for kill in logged {
        let of_run = kept.iter().rev().take_while(|before| before.invoked.is_none());
        let first = kept.iter().rev().find(|before| before.invoked.is_some());
        let again = of_run.chain(first).any(|before| before.killed.tid == kill.killed.tid);
        if kill.invoked.is_some() || !again {
            kept.push(kill.clone());
        }
    }
    kept
}

fn compare(line: &Value, logged: &LoggedKill, is_exact: bool) -> Result<()> {
    let equal = |path: &str, expected: Value| {
        let found = at(line, path).cloned().unwrap_or(Value::Null);
        ensure!(found == expected, "field {path}: expected {expected}, oomtrace {found}");
        Ok(())
    };
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
    let killed = &logged.killed;
    equal("type", "oom_kill".into())?;
    equal("origin", "kmsg".into())?;
    equal("victim.tid", killed.tid.into())?;
    equal("victim.comm", text(&killed.comm))?;
    equal("victim.uid", killed.uid.into())?;
    equal("victim.oom_score_adj", killed.oom_score_adj.into())?;
    for (key, kilobytes) in [
        ("total_vm_bytes", killed.total_vm_kb),
        ("anon_rss_bytes", killed.anon_kb),
        ("file_rss_bytes", killed.file_kb),
        ("shmem_rss_bytes", killed.shmem_kb),
        ("pgtables_bytes", killed.pgtables_kb),
    ] {
        equal(&format!("victim.memory.{key}"), (kilobytes * 1024).into())?;
    }
    let (Some(invoked), Some(chosen)) = (&logged.invoked, &logged.chosen) else { return Ok(()) };
    equal("oom.constraint", chosen.constraint.clone().into())?;
    if let Some(Value::String(path)) = at(line, "oom.cgroup.path") {
        // A line has U+FFFD for bytes that are not UTF-8.
        let said = String::from_utf8_lossy(&chosen.place);
        ensure!(
            said.starts_with(&format!("oom_memcg={path},task_memcg=")),
            "field oom.cgroup.path: not so in the log"
        );
    }
    // In a format of lines, a newline in this name turns the text before it into a line that belongs to
    // nothing.
    if is_exact || !invoked.comm.contains(&b'\n') {
        equal("trigger.comm", text(&invoked.comm))?;
        equal("trigger.oom_score_adj", invoked.oom_score_adj.into())?;
        equal("oom.gfp_mask_raw", invoked.gfp_mask.into())?;
        equal("oom.order", invoked.order.into())?;
    }
    match logged.memory_kb {
        Some(kilobytes) if chosen.constraint == "CONSTRAINT_MEMCG" => {
            equal("oom.cgroup.usage_bytes", (kilobytes * 1024).into())
        }
        _ => Ok(()),
    }
}

fn lines_of(binary: &Path, input: Option<&[u8]>) -> Result<Vec<Value>> {
    let mut command = Command::new(binary);
    command.args(["log", "-o", "json"]).stdout(Stdio::piped());
    if input.is_some() {
        command.arg("-");
    }
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| anyhow!("no stdin"))?;
    let input = input.unwrap_or_default().to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow!("the writer panicked"))??;
    ensure!(output.status.success(), "{}", output.status);
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a line that is not JSON")).collect()
}

fn as_kmsg(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(|record| record.raw.iter().copied()).collect()
}

fn as_export(records: &[Record]) -> Vec<u8> {
    let mut export = Vec::new();
    for record in records {
        let transport = if record.priority < 8 { "kernel" } else { "syslog" };
        let head = format!("__REALTIME_TIMESTAMP={}\n_TRANSPORT={transport}\nMESSAGE\n", record.time_us);
        export.extend(head.into_bytes());
        export.extend((record.text.len() as u64).to_le_bytes());
        export.extend(&record.text);
        export.extend(b"\n\n");
    }
    export
}

fn as_proc_kmsg(records: &[Record]) -> Vec<u8> {
    let mut text = Vec::new();
    for record in records {
        let (seconds, micros) = (record.time_us / 1_000_000, record.time_us % 1_000_000);
        for line in record.text.split(|byte| *byte == b'\n') {
            text.extend(format!("<{}>[{seconds:5}.{micros:06}] ", record.priority).into_bytes());
            text.extend(line);
            text.push(b'\n');
        }
    }
    text
}

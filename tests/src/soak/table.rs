//! The table of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Result;

use super::account::{Account, Truth};
use super::lane::Report;

/// Prints it as Markdown.
pub(super) fn print(
    to: &mut impl Write,
    truth: &Truth,
    accounts: &[(&str, Account, Report)],
    minutes: f64,
    seed: u64,
) -> Result<()> {
    let mut shapes = BTreeMap::<&str, usize>::new();
    for death in &truth.deaths {
        *shapes.entry(death.shape).or_default() += 1;
    }
    let shapes: Vec<String> = shapes.iter().map(|(shape, count)| format!("{count} {shape}")).collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    writeln!(
        to,
        "{minutes} minutes, seed {seed}, Linux {}: {} victims ({}).\n",
        kernel.trim(),
        truth.deaths.len(),
        shapes.join(", ").replace('_', " ")
    )?;
    let row = |to: &mut dyn Write, name: &str, value: &dyn Fn(&Account, &Report) -> String| {
        let values: Vec<String> =
            accounts.iter().map(|(_, account, report)| value(account, report)).collect();
        writeln!(to, "| {name} | {} |", values.join(" | "))
    };
    let names: Vec<&str> = accounts.iter().map(|account| account.0).collect();
    writeln!(to, "| | {} |\n|---{}|", names.join(" | "), "|---:".repeat(names.len()))?;
    let faults: BTreeSet<&str> =
        accounts.iter().flat_map(|(.., report)| report.faults.keys().copied()).collect();
    for fault in faults {
        let count = |_: &Account, report: &Report| report.faults.get(fault).copied().unwrap_or(0).to_string();
        row(to, fault, &count)?;
    }
    row(to, "starts of the tracer", &|_, report| report.starts.to_string())?;
    row(to, "**victims**", &|_, _| format!("**{}**", truth.deaths.len()))?;
    row(to, "reported once", &|account, _| account.once.to_string())?;
    row(to, "reported twice or more", &|account, _| account.more.to_string())?;
    row(to, "not reported", &|account, _| account.untold.len().to_string())?;
    let evidence: BTreeSet<&String> =
        accounts.iter().flat_map(|(_, account, _)| account.evidence.keys()).collect();
    for found in evidence {
        let count =
            |account: &Account, _: &Report| account.evidence.get(found).copied().unwrap_or(0).to_string();
        let found = if found.is_empty() { "none" } else { found };
        row(to, &format!("lines with `oom.evidence`: {found}"), &count)?;
    }
    let reasons: BTreeSet<&String> =
        accounts.iter().flat_map(|(_, account, _)| account.lost.keys()).collect();
    for reason in reasons {
        let count =
            |account: &Account, _: &Report| account.lost.get(reason).copied().unwrap_or(0).to_string();
        row(to, &format!("counted by `lost` lines: `{reason}`"), &count)?;
    }
    row(to, "of these, also reported (two sets of programs attached)", &|account, _| {
        account.also_counted.to_string()
    })?;
    row(to, "**unaccounted**", &|account, _| format!("**{}**", account.unaccounted()))?;
    row(to, "kills of others on the machine meanwhile", &|account, _| account.of_others.to_string())?;
    row(to, "half lines left by SIGKILL", &|account, _| account.cut.to_string())?;
    row(to, "most memory of a tracer, KiB", &|_, report| report.memory_kb.to_string())?;
    to.flush()?;
    Ok(())
}

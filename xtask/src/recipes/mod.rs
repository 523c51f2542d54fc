//! `cargo xtask recipes`: runs the files of docs/prometheus, docs/kubernetes and docs/recipes, as far as
//! possible.
//!
//! The input is the lines of docs/EVENTS.md, and copies of its kills; the last
//! stage makes real kills and takes their lines. The files of docs are run as they are;
//! only paths and addresses are replaced by those of the test.

mod chart;
mod daemon;
mod dashboard;
mod fleet;
mod journald;
mod pipeline;
mod receiver;
mod shippers;
mod sql;
mod stores;

use std::{fs, path::Path, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{setup, stage::Stages, stage::quietly, workspace};

/// Run what docs/ offers to other tools: alerts, dashboard, manifest, shippers, SQL
#[derive(clap::Args)]
pub struct Args {
    /// Only those whose title contains this
    name: Option<String>,
}

/// The versions with which the recipes say they were tested.
const PYTHON: [&str; 3] = ["duckdb==2.0.1", "chdb-core-lite==26.5.0", "kubernetes-validate==1.37.0"];
/// The three newest releases of Kubernetes that this validator knows.
const KUBERNETES: [&str; 3] = ["1.35.0", "1.36.0", "1.37.0"];

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::RECIPES)?;
    let docs = workspace::root().join("docs");
    let lines = lines(&docs)?;
    let mut stages = Stages::default();
    let mut ran = 0;
    let mut stage = |title: &str, test: &dyn Fn() -> Result<()>| {
        if args.name.as_ref().is_none_or(|name| title.contains(name)) {
            ran += 1;
            stages.call(title, test);
        }
    };
    let prometheus = docs.join("prometheus");
    stage("alerts: promtool test rules", &|| {
        passes(
            pipeline::program("promtool")?
                .args(["test", "rules", "oomtrace.rules.test.yml"])
                .current_dir(&prometheus),
        )
    });
    stage("metrics: promtool check metrics", &|| {
        let page = fs::File::open(prometheus.join("example.prom"))?;
        passes(pipeline::program("promtool")?.args(["check", "metrics"]).stdin(page))
    });
    stage("Alertmanager: amtool check-config", &|| {
        passes(
            pipeline::program("amtool")?.args(["check-config", "alertmanager.yml"]).current_dir(&prometheus),
        )
    });
    stage("pipeline: from a kill to a webhook, and a tracer that is dead", &|| pipeline::run(&prometheus));
    stage("dashboard: its queries", &|| dashboard::queries(&prometheus));
    stage("dashboard: its types", &|| dashboard::types(&prometheus));
    stage("Kubernetes: the manifest, strict", &|| kubernetes(&docs.join("kubernetes/daemonset.yaml")));
    stage("Kubernetes: the Helm chart", &|| chart::run(&docs.join("kubernetes")));
    stage("rsyslog", &|| shippers::rsyslog(&docs.join("recipes/rsyslog.conf"), &lines));
    stage("syslog-ng", &|| shippers::syslog_ng(&docs.join("recipes/syslog-ng.conf"), &lines));
    stage("DuckDB", &|| sql::run("duckdb", &docs.join("recipes/duckdb.sql"), &lines, &python()?));
    stage("ClickHouse (chDB)", &|| {
        sql::run("chdb", &docs.join("recipes/clickhouse.sql"), &lines, &python()?)
    });
    stage("fleet: a million kills in ClickHouse (chDB)", &|| {
        fleet::run(&docs.join("recipes/clickhouse.sql"), &lines, &python()?)
    });
    stage("real kills through journald", &|| journald::run(&docs.join("recipes/journald.sh")));
    stage("real kills through rsyslog and syslog-ng", &|| {
        let lines = stores::real_lines()?;
        shippers::rsyslog(&docs.join("recipes/rsyslog.conf"), &lines)?;
        shippers::syslog_ng(&docs.join("recipes/syslog-ng.conf"), &lines)
    });
    stage("real kills into DuckDB and chDB, without a schema", &|| stores::run(&python()?));
    ensure!(ran > 0, "no recipe has this in its title");
    stages.finish()
}

/// Each line of docs/EVENTS.md, and a hundred copies of its kills, each with its own `seq` as in a real
/// stream.
fn lines(docs: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(docs.join("EVENTS.md"))?;
    let samples = text.lines().filter(|line| line.starts_with("{\"schema\":1,"));
    let (kills, others): (Vec<&str>, Vec<&str>) =
        samples.partition(|line| line.contains("\"type\":\"oom_kill\""));
    ensure!(!kills.is_empty() && !others.is_empty(), "docs/EVENTS.md has no lines");
    let mut lines: Vec<String> = others.iter().map(|line| (*line).to_owned()).collect();
    let number = "\"seq\":42,";
    for (seq, kill) in (1000..).zip(kills.iter().cycle().take(100 * kills.len())) {
        ensure!(kill.contains(number), "the kill in docs/EVENTS.md has another seq");
        lines.push(kill.replace(number, &format!("\"seq\":{seq},")));
    }
    Ok(lines)
}

fn kubernetes(manifest: &Path) -> Result<()> {
    let program = python()?.with_file_name("kubernetes-validate");
    for version in KUBERNETES {
        passes(Command::new(&program).args(["--strict", "-k", version]).arg(manifest))?;
    }
    Ok(())
}

/// A Python with the packages, in the tools' directory.
fn python() -> Result<PathBuf> {
    let home = setup::tools_dir()?.join("recipes-python");
    let python = home.join("bin/python");
    let made = home.join("packages");
    if fs::read_to_string(&made).is_ok_and(|known| known == PYTHON.join("\n")) {
        return Ok(python);
    }
    let mut venv = Command::new("python3");
    quietly("python3 -m venv", "some seconds", venv.args(["-m", "venv", "--clear"]).arg(&home))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet"]).args(PYTHON);
    quietly(&format!("pip: {}", PYTHON.join(" ")), "about 100 MB, once", &mut pip)?;
    fs::write(&made, PYTHON.join("\n")).with_context(|| made.display().to_string())?;
    Ok(python)
}

/// Shows the output of a command only if it fails.
fn passes(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| name.clone())?;
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name}: {}\n{said}{complaint}", output.status);
    Ok(())
}

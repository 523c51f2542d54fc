//! Checks the dashboard without a Grafana: its queries with promtool, its shape with the types that Grafana
//! publishes.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{passes, pipeline::program};
use crate::{setup, stage::quietly};

const SCHEMA: &str = "@grafana/schema@13.2.3";
const TYPESCRIPT: &str = "typescript@5.9.3";
/// Panels that the dashboard may have, and the files with the types of their options.
const PANELS: [(&str, &str); 3] = [("stat", "Stat"), ("table", "Table"), ("timeseries", "TimeSeries")];
/// In JSON an enumeration is its text.
const JSON: &str = "type Json<T> = T extends string ? `${T}` : T extends (infer E)[] ? Json<E>[] : \
                    T extends object ? { [K in keyof T]: Json<T[K]> } : T;\n";

fn read(directory: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(directory.join("dashboard.json"))?)?)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Checks that each query parses and uses only series that exist.
pub fn queries(directory: &Path) -> Result<()> {
    let dashboard = read(directory)?;
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    let mut asked = BTreeSet::new();
    let mut count = 0;
    for panel in list(&dashboard, "panels") {
        for target in list(panel, "targets") {
            let query = target.get("expr").and_then(Value::as_str).context("a target without a query")?;
            let query =
                query.replace("$__rate_interval", "5m").replace("$__range", "1d").replace("$instance", ".*");
            count += 1;
            let _infallible = writeln!(
                rules,
                "      - record: panel:{count}\n        expr: {}",
                Value::from(query.as_str())
            );
            let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
            asked.extend(words.filter(|word| word.contains("oomtrace_")).map(str::to_owned));
        }
    }
    ensure!(count > 0, "the dashboard asks nothing");
    let known = fs::read_to_string(directory.join("README.md"))?;
    let recorded = fs::read_to_string(directory.join("oomtrace.rules.yml"))?;
    for name in asked {
        let is_known =
            known.contains(&format!("`{name}`")) || recorded.contains(&format!("record: {name}\n"));
        ensure!(is_known, "the dashboard asks for {name}, which docs/prometheus/README.md does not list");
    }
    let file = tempfile::NamedTempFile::with_suffix(".yml")?;
    fs::write(file.path(), rules)?;
    passes(program("promtool")?.args(["check", "rules"]).arg(file.path()))
}

/// Checks the whole dashboard against the types of @grafana/schema.
pub fn types(directory: &Path) -> Result<()> {
    let home = setup::tools_dir()?.join("recipes-npm");
    let wanted = format!("{SCHEMA} {TYPESCRIPT}");
    if !fs::read_to_string(home.join("packages")).is_ok_and(|known| known == wanted) {
        fs::create_dir_all(&home)?;
        fs::write(home.join("package.json"), "{\"private\": true}\n")?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", SCHEMA, TYPESCRIPT]).current_dir(&home);
        quietly(&format!("npm: {wanted}"), "about 50 MB, once", &mut npm)?;
        fs::write(home.join("packages"), wanted)?;
    }
    // In the directory of the packages, where the compiler looks for them.
    let scratch = tempfile::tempdir_in(&home)?;
    let program = scratch.path().join("check.ts");
    fs::write(&program, typescript(&read(directory)?)?)?;
    let options =
        ["--noEmit", "--strict", "--skipLibCheck", "--module", "preserve", "--moduleResolution", "bundler"];
    passes(Command::new(home.join("node_modules/.bin/tsc")).args(options).arg(&program))
}

/// A program that is only compiled, to check the types.
fn typescript(dashboard: &Value) -> Result<String> {
    let mut text = String::from("import type { Dashboard } from \"@grafana/schema\";\n");
    for (kind, name) in PANELS {
        let module =
            format!("@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen");
        let _infallible = writeln!(text, "import type {{ Options as {name} }} from \"{module}\";");
        if kind == "timeseries" {
            let _infallible = writeln!(text, "import type {{ FieldConfig }} from \"{module}\";");
        }
    }
    text.push_str(JSON);
    let _infallible = writeln!(text, "export const dashboard: Json<Dashboard> = {dashboard};");
    for (place, panel) in list(dashboard, "panels").iter().enumerate() {
        let kind = panel.get("type").and_then(Value::as_str).unwrap_or_default();
        let known = PANELS.iter().find(|(name, _)| *name == kind);
        let (_, name) = known.with_context(|| format!("no types are known for a panel of type {kind}"))?;
        let options = panel.get("options").context("a panel without options")?;
        let _infallible = writeln!(text, "export const options{place}: Json<{name}> = {options};");
        if let Some(custom) = panel.pointer("/fieldConfig/defaults/custom") {
            let _infallible = writeln!(text, "export const custom{place}: Json<FieldConfig> = {custom};");
        }
    }
    Ok(text)
}

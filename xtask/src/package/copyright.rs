//! Writes the copyright file in Debian's format (DEP-5): who owns the code in the binary, and under which
//! licence.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{setup, workspace};

/// The whole file.
pub fn text() -> Result<String> {
    let packaging = workspace::root().join("packaging");
    let mut text = fs::read_to_string(packaging.join("copyright"))?;
    let mut licences =
        BTreeSet::from([String::from("MIT"), String::from("GPL-2"), String::from("LGPL-2.1+")]);
    for (name, part) in parts()? {
        let licence = taken(&part.licence);
        let owners = part.owners.join("\n           ");
        let _infallible = writeln!(text, "\nFiles: crates/{name}/*\nCopyright: {owners}\nLicense: {licence}");
        licences.insert(licence);
    }
    for licence in licences {
        let path = packaging.join("licences").join(&licence);
        let body = fs::read_to_string(&path)
            .with_context(|| format!("a crate is under {licence}: write its text to {}", path.display()))?;
        text = text + "\n" + &body;
    }
    Ok(text)
}

/// A crate that is part of the binary or of the eBPF object.
struct Part {
    licence: String,
    owners: Vec<String>,
}

/// All these crates, by name and version.
fn parts() -> Result<BTreeMap<String, Part>> {
    let mut parts = BTreeMap::new();
    let trees = [
        ("oomtrace", "Cargo.toml", "x86_64-unknown-linux-gnu"),
        ("oomtrace", "Cargo.toml", "aarch64-unknown-linux-gnu"),
        ("oomtrace-ebpf", "oomtrace-ebpf/Cargo.toml", "bpfel-unknown-none"),
    ];
    for (root, manifest, target) in trees {
        let metadata = metadata(manifest, target)?;
        for package in linked(&metadata, root)? {
            let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            // oomtrace itself.
            if package.get("source").is_none_or(Value::is_null) {
                continue;
            }
            let part = Part { licence: text("license"), owners: owners(&package) };
            ensure!(!part.licence.is_empty(), "crate {} names no licence", text("name"));
            parts.insert(format!("{}-{}", text("name"), text("version")), part);
        }
    }
    Ok(parts)
}

fn metadata(manifest: &str, target: &str) -> Result<Value> {
    setup::ensure(setup::BUILD)?;
    let mut cargo = workspace::cargo("metadata");
    cargo.args([
        "--format-version",
        "1",
        "--locked",
        "--manifest-path",
        manifest,
        "--filter-platform",
        target,
    ]);
    let output = cargo.output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The packages that `root` is linked with, without procedural macros, build dependencies and test
/// dependencies.
fn linked(metadata: &Value, root: &str) -> Result<Vec<Value>> {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let id = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(metadata, "packages").into_iter().map(|package| (id(&package, "id"), package)).collect();
    let nodes = list(metadata.get("resolve").context("no resolve in the metadata")?, "nodes");
    let nodes: BTreeMap<String, Value> = nodes.into_iter().map(|node| (id(&node, "id"), node)).collect();

    let start = packages.values().find(|package| id(package, "name") == root);
    let mut waiting = vec![id(start.context("cargo metadata has no such package")?, "id")];
    let mut found = BTreeMap::new();
    while let Some(next) = waiting.pop() {
        let (Some(package), Some(node)) = (packages.get(&next), nodes.get(&next)) else { continue };
        let targets = list(package, "targets");
        let is_macro =
            targets.iter().any(|target| list(target, "kind").iter().any(|kind| kind == "proc-macro"));
        if is_macro || found.insert(next, package.clone()).is_some() {
            continue;
        }
        for dependency in list(node, "deps") {
            let is_normal = |kind: &Value| kind.get("kind").is_none_or(Value::is_null);
            if list(&dependency, "dep_kinds").iter().any(is_normal) {
                waiting.push(id(&dependency, "pkg"));
            }
        }
    }
    Ok(found.into_values().collect())
}

/// If there is a choice of licences: MIT, which demands the least of those that all others allow too.
fn taken(expression: &str) -> String {
    let choices = expression.replace('/', " OR ");
    let mut choices = choices.split(" OR ");
    if choices.any(|choice| choice.trim() == "MIT") { String::from("MIT") } else { expression.to_owned() }
}

/// The owners in the notices of the crate's licence files, else its authors.
fn owners(package: &Value) -> Vec<String> {
    let manifest = package.get("manifest_path").and_then(Value::as_str).unwrap_or_default();
    let mut found = BTreeSet::new();
    for entry in
        Path::new(manifest).parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten()
    {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            found.extend(text.lines().filter_map(notice));
        }
    }
    if found.is_empty() {
        let authors = package.get("authors").and_then(Value::as_array).cloned().unwrap_or_default();
        found.extend(authors.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    if found.is_empty() {
        let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
        found.insert(format!("the authors of {name}"));
    }
    found.into_iter().collect()
}

/// The text after "Copyright" in a notice. A text about notices gives `None`.
fn notice(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("Copyright")?.trim_start();
    let rest = ["(c)", "(C)", "©"].iter().find_map(|sign| rest.strip_prefix(sign)).unwrap_or(rest).trim();
    let is_template = rest.contains(['[', '{', '<']) && rest.contains("yyyy");
    let begins_with_year = rest.starts_with(|c: char| c.is_ascii_digit());
    (!is_template && (begins_with_year || line.contains("(c)"))).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mit_is_taken_where_it_is_offered() {
        for offered in ["MIT", "MIT OR Apache-2.0", "Apache-2.0/MIT", "Unlicense OR MIT"] {
            assert_eq!(taken(offered), "MIT", "{offered}");
        }
        for other in ["Zlib", "MIT AND Zlib", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert_eq!(taken(other), other);
        }
    }

    #[test]
    fn notices_name_owners_and_templates_do_not() {
        assert_eq!(notice("  Copyright (c) 2019 A, B").as_deref(), Some("2019 A, B"));
        assert_eq!(notice("Copyright 2019 A").as_deref(), Some("2019 A"));
        assert_eq!(notice("   Copyright [yyyy] [name of copyright owner]"), None);
        assert_eq!(notice("Copyright license to reproduce"), None);
    }
}

//! `oomtrace containers`: lists the containers that oomtrace knows, so that an operator can check the names
//! before a kill.

use std::{io, path::Path};

use serde::Serialize;

use crate::{
    cgroups::memory_files::MemoryFiles,
    cgroups::tree::{CgroupTree, Seen, TreeLimits},
    cli::{self, Containers, Form},
    commands::{print::print, run::nothing_there},
    containers::{Runtimes, owner::Identity},
    event::{Absence, CgroupVersion, Container, K8s, Missing, name_of_user, text_from_kernel},
    facts::{CgroupId, Limit},
    failure::{Code, Failure},
    host::{clock, root::Root},
    kernel::Kernel,
    outputs::encode::json,
    stderr::say,
};

/// A container, with the names that a kill in it would have now.
#[derive(Debug, Serialize)]
struct Row {
    /// Its cgroup.
    cgroup: crate::event::Cgroup,
    /// The container.
    container: Container,
    /// Its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s: Option<K8s>,
    /// The limit of its cgroup; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    /// The memory that is charged to its cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_bytes: Option<u64>,
    /// Why facts are absent.
    #[serde(skip_serializing_if = "Missing::is_empty")]
    missing: Missing,
}

/// `oomtrace containers`.
///
/// # Errors
/// If this host has no memory cgroups to read.
pub fn containers(args: &Containers) -> Result<(), Failure> {
    let root = Root::host().guarded();
    let hierarchy = Kernel::read(&root)?.hierarchy;
    let mount = hierarchy.mount.ok_or_else(|| {
        Failure::message(
            Code::RunTime,
            "this kernel has no memory cgroups, or they are not mounted: there are no containers to list",
        )
    })?;
    let labels = cli::labels(&args.label).unwrap_or_else(|error| error.exit());
    let runtimes = Runtimes::discover(root, &args.runtime_root).with_labels(labels);
    let wrong = nothing_there(&args.runtime_root, &runtimes.found());
    for wrong in wrong.iter().map(String::as_str).chain(runtimes.closed()) {
        say(&format!("oomtrace: {wrong}"));
    }
    let mut tree = CgroupTree::new(runtimes, TreeLimits::default());
    tree.walk(&mount, clock::boot_time())
        .map_err(|error| Failure::message(Code::RunTime, error.to_string()))?;
    while tree.resolve_next() {}
    let rows = rows(&mut tree, &mount, hierarchy.version);
    print(|out| match args.output {
        Form::Json => rows.iter().try_for_each(|row| json::print(row, out)),
        Form::Text => text(&rows, out),
    })
}

/// One row for each cgroup that is a container's own. Cgroups inside it and above it have none.
fn rows(tree: &mut CgroupTree, mount: &Path, version: CgroupVersion) -> Vec<Row> {
    let mut cgroups: Vec<(CgroupId, Vec<u8>)> = tree.live().collect();
    cgroups.sort_by(|(_, one), (_, other)| one.cmp(other));
    let mut rows: Vec<Row> = Vec::new();
    for (id, path) in cgroups {
        let identity =
            tree.identify(Seen { ids: &[id], path: &path, path_is_whole: true }, clock::boot_time());
        let Identity { container: Some(container), k8s, missing, .. } = identity else { continue };
        let files = MemoryFiles::of(mount, &path, version != CgroupVersion::V2);
        let path = text_from_kernel(&path);
        let is_inside = rows.iter().rev().any(|row| {
            row.container.id == container.id
                && row.container.runtime.user == container.runtime.user
                && row.cgroup.path.as_deref().is_some_and(|above| path.starts_with(above))
        });
        if is_inside {
            continue;
        }
        rows.push(Row {
            limit_bytes: match files.limit() {
                Some(Limit::Bytes(bytes)) => Some(bytes),
                Some(Limit::Unlimited) | None => None,
            },
            usage_bytes: files.usage_bytes(),
            cgroup: crate::event::Cgroup { path: Some(path), id: Some(id.to_string()) },
            container,
            k8s,
            missing,
        });
    }
    rows
}

fn text(rows: &[Row], out: &mut dyn io::Write) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "no containers");
    }
    writeln!(out, "{:<16} {:<12} {:<32} {:>10} {:>10}  CGROUP", "RUNTIME", "ID", "NAME", "LIMIT", "USAGE")?;
    for row in rows {
        let in_pod = row.k8s.as_ref().and_then(K8s::names).map(|names| names.join("/"));
        let name = in_pod.as_deref().or(row.container.name.as_deref()).unwrap_or("-");
        let name = name_of_user(row.container.runtime.user, name);
        let short = row.container.id.get(..12).unwrap_or(&row.container.id);
        let size = |bytes: Option<u64>| {
            bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
        };
        let line = format!(
            "{:<16} {short:<12} {:<32} {:>10} {:>10}  {}",
            row.container.runtime.name,
            name,
            size(row.limit_bytes),
            size(row.usage_bytes),
            row.cgroup.path.as_deref().unwrap_or("-"),
        );
        // Others choose these names, so control characters must not reach the terminal.
        writeln!(out, "{}", line.replace(char::is_control, "\u{fffd}"))?;
        for Absence { key, reason, detail } in &row.missing {
            let detail = detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
            let line = format!("                 no {key}: {}{detail}", reason.word());
            writeln!(out, "{}", line.replace(char::is_control, "\u{fffd}"))?;
        }
    }
    Ok(())
}

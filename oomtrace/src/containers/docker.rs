//! Docker: `<data-root>/containers/ID/config.v2.json`. The OCI bundle has no name. The bundle or
//! `hostconfig.json` says where the cgroup is.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::containers::{
    Facts, LeftOut, PodFacts, Runtime, Texts,
    files::{FILE_MAX_BYTES, FileError, StateDir},
    grammar::is_hex_id,
    kept,
    labels::kept_labels,
    oci::{self, RuntimeCgroup, count},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigV2 {
    name: Option<String>,
    restart_count: Option<u32>,
    config: Option<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<String>,
    labels: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    cgroup_parent: Option<String>,
}

/// Docker's container `id` in the data-root `dir`. [`runtime_cgroup`] finds its cgroup.
pub fn container(dir: &StateDir, id: &str, texts: &mut Texts) -> Result<Facts, FileError> {
    if !is_hex_id(id) {
        return Err(FileError::Absent);
    }
    let file: PathBuf = ["containers", id, "config.v2.json"].iter().collect();
    let read: ConfigV2 = dir.json(&file, FILE_MAX_BYTES)?;
    let (image, labels) = read.config.map_or((None, None), |config| (config.image, config.labels));
    let labels = labels.unwrap_or_default();
    Ok(Facts {
        runtime: Runtime::Docker,
        name: read.name.and_then(|name| kept(name.strip_prefix('/').unwrap_or(&name))),
        image: image.filter(|image| !image.is_empty()).and_then(|image| texts.shared(&image)),
        restart_count: read.restart_count,
        pod: pod(&labels, texts),
        labels: kept_labels(labels.iter(), texts),
        runtime_cgroup: RuntimeCgroup::NotSaid,
        of_user: false,
        left_out: LeftOut::Nothing,
    })
}

/// The cgroup of Docker's container `id`: from its bundle in one of `bundles` (state directories of
/// containerd), else from `hostconfig.json`.
pub fn runtime_cgroup(dir: &StateDir, bundles: &[StateDir], id: &str, path: &[u8]) -> RuntimeCgroup {
    let bundle = oci::docker_bundle(id);
    if let Some(runtime_cgroup) =
        bundles.iter().find_map(|dir| oci::runtime_cgroup_in(dir, &bundle, path).ok())
    {
        return runtime_cgroup;
    }
    let file: PathBuf = ["containers", id, "hostconfig.json"].iter().collect();
    let host = dir.json::<HostConfig>(&file, FILE_MAX_BYTES).ok();
    match host.and_then(|host| host.cgroup_parent).filter(|parent| !parent.is_empty()) {
        Some(slice) if slice.ends_with(".slice") && !slice.contains('/') => {
            RuntimeCgroup::of(&format!("{slice}:docker:{id}"), path)
        }
        Some(parent) => RuntimeCgroup::of(&format!("{}/{id}", parent.trim_end_matches('/')), path),
        None => {
            // The daemon may use another default parent, which these files do not hold.
            let usual = [format!("/docker/{id}"), format!("system.slice:docker:{id}")];
            let at = usual
                .iter()
                .map(|said| RuntimeCgroup::of(said, path))
                .find(|runtime_cgroup| matches!(runtime_cgroup, RuntimeCgroup::Here { .. }));
            at.unwrap_or(RuntimeCgroup::NotSaid)
        }
    }
}

/// The kubelet's labels, if Kubernetes runs on Docker through cri-dockerd.
fn pod(labels: &HashMap<String, String>, texts: &mut Texts) -> Option<Box<PodFacts>> {
    let label = |key: &str| labels.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let name = label("io.kubernetes.pod.name")?;
    let sandbox = label("io.kubernetes.docker.type") == Some("podsandbox");
    Some(Box::new(PodFacts {
        namespace: label("io.kubernetes.pod.namespace").and_then(|text| texts.shared(text)),
        name: texts.shared(name),
        uid: label("io.kubernetes.pod.uid").and_then(|text| texts.shared(text)),
        container: label("io.kubernetes.container.name")
            .filter(|_| !sandbox)
            .and_then(|text| texts.shared(text)),
        restart_count: count(label("annotation.io.kubernetes.container.restartCount")),
        sandbox,
    }))
}

//! Builds the container image (Open Container Initiative image-spec 1.0): one layer without a base, for each
//! architecture.
//!
//! Writes `oomtrace-VERSION-image/` (an image layout), and the same as an archive for `podman load`, `ctr
//! image import` and `skopeo copy oci-archive:`.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    architecture::Architecture,
    archive,
    release::{Release, sha256},
    tree::File,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The name of the image after it is loaded.
pub fn reference(release: &Release) -> String {
    format!("localhost/oomtrace:{}", release.version)
}

/// Writes the layout and the archive.
pub fn write(layers: &[(Architecture, Vec<File>)], release: &Release, out: &Path) -> Result<()> {
    let mut blobs = Blobs::default();
    let mut manifests = Vec::new();
    for (architecture, files) in layers {
        let mut manifest = image(&mut blobs, *architecture, files, release)?;
        set(&mut manifest, "platform", json!({"architecture": architecture.debian(), "os": "linux"}));
        manifests.push(manifest);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": annotations(release)?});
    let mut named = blobs.add(INDEX, serde_json::to_vec(&index)?);
    let names = json!({
        "org.opencontainers.image.ref.name": release.version,
        // Where containerd looks for the full name.
        "io.containerd.image.name": reference(release),
    });
    set(&mut named, "annotations", names);
    blobs
        .files
        .push(file("index.json", serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [named]}))?));
    blobs.files.push(file("oci-layout", serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?));
    blobs.files.sort_by(|a, b| a.path.cmp(&b.path));

    let name = format!("oomtrace-{}-image", release.version);
    for file in &blobs.files {
        let path = out.join(&name).join(&file.path);
        fs::create_dir_all(path.parent().context("a file in no directory")?)?;
        fs::write(&path, &file.data).with_context(|| path.display().to_string())?;
    }
    fs::write(out.join(format!("{name}.tar")), archive::tar(&blobs.files, release)?)?;
    Ok(())
}

/// Adds the image of one architecture. Returns the descriptor of its manifest.
fn image(blobs: &mut Blobs, architecture: Architecture, files: &[File], release: &Release) -> Result<Value> {
    let layer = archive::tar(files, release)?;
    let date = release.date()?;
    let config = json!({
        "created": date,
        "architecture": architecture.debian(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/oomtrace"],
            "Cmd": ["run", "--output=json"],
            "Labels": annotations(release)?,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        "history": [{"created": date, "created_by": "cargo xtask package"}],
    });
    let config = blobs.add(CONFIG, serde_json::to_vec(&config)?);
    let layer = blobs.add(LAYER, archive::gzip(&layer)?);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    Ok(blobs.add(MANIFEST, serde_json::to_vec(&manifest)?))
}

fn annotations(release: &Release) -> Result<Value> {
    Ok(json!({
        "org.opencontainers.image.title": "oomtrace",
        "org.opencontainers.image.description": "Reports every OOM kill on a Linux host",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.created": release.date()?,
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
    }))
}

/// The blobs of the layout, each named by its checksum.
#[derive(Default)]
struct Blobs {
    files: Vec<File>,
}

impl Blobs {
    /// Adds a blob and returns its descriptor.
    fn add(&mut self, media_type: &str, data: Vec<u8>) -> Value {
        let (digest, size) = (sha256(&data), data.len());
        self.files.push(file(&format!("blobs/sha256/{digest}"), data));
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
    }
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn file(path: &str, data: Vec<u8>) -> File {
    File { path: path.to_owned(), mode: 0o644, data }
}

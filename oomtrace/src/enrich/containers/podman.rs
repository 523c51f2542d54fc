//! Podman: `<graphroot>/overlay-containers/containers.json` lists all containers of a
//! store; a container's own directory there has its bundle.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::{FileError, StateDir};
use super::grammar::is_hex_id;
use super::oci::{self, Seat};
use super::{Facts, Runtime, Texts, kept};

/// The directories that the storage drivers of Podman have.
const STORES: [&str; 4] = ["overlay-containers", "vfs-containers", "btrfs-containers", "zfs-containers"];
/// Containers that go with a reboot (`--rm`) have a list of their own.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

#[derive(Deserialize)]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    metadata: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "image-name")]
    image_name: Option<String>,
}

/// There is a list of Podman's containers: one that has Podman's database beside it or, if
/// `alone`, any.
pub fn is_store(dir: &StateDir, alone: bool) -> bool {
    let listed =
        || STORES.iter().any(|store| LISTS.iter().any(|list| dir.holds(&Path::new(store).join(list))));
    (alone || ["libpod", "db.sql"].iter().any(|own| dir.holds(Path::new(own)))) && listed()
}

/// Podman's container `id`, by the graph root `dir`.
pub fn container(dir: &StateDir, id: &str, path: &[u8], texts: &mut Texts) -> Result<Facts, FileError> {
    if !is_hex_id(id) {
        return Err(FileError::Absent);
    }
    let mut worst = FileError::Absent;
    for store in STORES {
        for list in LISTS {
            match dir.json::<Vec<Listed>>(&Path::new(store).join(list), dir.list_max_bytes()) {
                Ok(listed) => {
                    if let Some(found) = listed.into_iter().find(|listed| listed.id == id) {
                        let bundle: PathBuf = [store, id, "userdata", "config.json"].iter().collect();
                        return Ok(Facts {
                            // A bundle that cannot be read says nothing; the name stands.
                            seat: oci::seat_in(dir, &bundle, path).unwrap_or(Seat::Unsaid),
                            ..facts(found, texts)
                        });
                    }
                }
                Err(FileError::Absent) => {}
                Err(why) => worst = why,
            }
        }
    }
    Err(worst)
}

fn facts(listed: Listed, texts: &mut Texts) -> Facts {
    let metadata = listed.metadata.and_then(|text| serde_json::from_str::<Metadata>(&text).ok());
    let image = metadata.and_then(|metadata| metadata.image_name).filter(|image| !image.is_empty());
    Facts {
        runtime: Runtime::Podman,
        name: listed.names.unwrap_or_default().first().and_then(|name| kept(name)),
        image: image.and_then(|image| texts.shared(&image)),
        restart_count: None,
        labels: Box::default(),
        pod: None,
        seat: Seat::Unsaid,
        of_user: false,
    }
}

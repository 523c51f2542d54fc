//! Podman: `<graphroot>/overlay-containers/containers.json` lists all containers of a
//! store; a container's own directory there has its bundle.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::containers::{
    Facts, Runtime, Texts,
    files::{FileError, StateDir},
    grammar::is_hex_id,
    kept,
    oci::{self, Seat},
};

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
            match listed(dir, &Path::new(store).join(list), id) {
                Ok(Some(found)) => {
                    let bundle: PathBuf = [store, id, "userdata", "config.json"].iter().collect();
                    return Ok(Facts {
                        // A bundle that cannot be read says nothing; the name stands.
                        seat: oci::seat_in(dir, &bundle, path).unwrap_or(Seat::Unsaid),
                        ..facts(found, texts)
                    });
                }
                Ok(None) | Err(FileError::Absent) => {}
                Err(why) => worst = why,
            }
        }
    }
    Err(worst)
}

/// What `list` has of the container `id`.
fn listed(dir: &StateDir, list: &Path, id: &str) -> Result<Option<Listed>, FileError> {
    let bytes = dir.read(list, dir.list_max_bytes())?;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let found = Wanted(id).deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

/// The first of a list with this id. Of the others no more than one is held at a time.
struct Wanted<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Option<Listed>;

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<Self::Value, D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Option<Listed>;

    fn expecting(&self, words: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        words.write_str("a list of containers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(one) = list.next_element::<Listed>()? {
            if one.id == self.0 {
                found = Some(one);
                break;
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn id(number: u32) -> String {
        format!("{number:064x}")
    }

    fn store(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(STORES[0])).unwrap();
        std::fs::write(dir.path().join(STORES[0]).join(LISTS[0]), text).unwrap();
        dir
    }

    fn name(dir: &StateDir, number: u32) -> Result<Option<Box<str>>, FileError> {
        container(dir, &id(number), b"", &mut Texts::default()).map(|facts| facts.name)
    }

    #[test]
    fn one_of_a_list() {
        let entry = |number: u32| format!(r#"{{"id":"{}","names":["n{number}"]}}"#, id(number));
        let all = (1..=3).map(entry).collect::<Vec<_>>().join(",");
        let host = store(&format!("[{all}]\n"));
        let dir = StateDir::system(host.path());
        for number in 1..=3 {
            assert_eq!(name(&dir, number).unwrap().as_deref(), Some(format!("n{number}").as_str()));
        }
        assert!(matches!(name(&dir, 4), Err(FileError::Absent)));
        // Half-written, or more than a list: nothing of it counts.
        for text in [format!("[{all}"), format!("[{all}] x"), format!("[{all},"), "{}".to_owned()] {
            let host = store(&text);
            assert!(matches!(name(&StateDir::system(host.path()), 1), Err(FileError::Content(_))), "{text}");
        }
    }

    #[test]
    fn a_users_list_is_a_short_one() {
        let long = format!(r#"[{{"id":"{}","names":["x"]}}{}]"#, id(1), " ".repeat(600 << 10));
        let host = store(&long);
        assert!(name(&StateDir::system(host.path()), 1).is_ok());
        assert!(matches!(name(&StateDir::of_user(host.path(), ""), 1), Err(FileError::TooLarge(_))));
    }
}

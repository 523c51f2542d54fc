//! Podman: `<graphroot>/overlay-containers/containers.json` lists all containers of a store. The directory of
//! a container there holds its bundle.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::containers::{
    Facts, LeftOut, Runtime, Texts,
    files::{FileError, LIST_MAX_BYTES, Stamp, StateDir},
    grammar::is_hex_id,
    kept,
    oci::{self, RuntimeCgroup},
};

/// The directories of Podman's storage drivers.
pub const STORES: [&str; 4] = ["overlay-containers", "vfs-containers", "btrfs-containers", "zfs-containers"];
/// The second list has containers that a reboot removes (`--rm`).
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

/// Whether `dir` has a list of Podman's containers. It must have Podman's database too, unless `alone`.
pub fn is_store(dir: &StateDir, alone: bool) -> bool {
    let listed =
        || STORES.iter().any(|store| LISTS.iter().any(|list| dir.holds(&Path::new(store).join(list))));
    (alone || ["libpod", "db.sql"].iter().any(|own| dir.holds(Path::new(own)))) && listed()
}

/// Podman's container `id` in the graph root `dir`. [`runtime_cgroup`] finds its cgroup.
pub fn container(dir: &StateDir, id: &str, lists: &mut Lists, texts: &mut Texts) -> Result<Facts, FileError> {
    if !is_hex_id(id) {
        return Err(FileError::Absent);
    }
    let mut worst = FileError::Absent;
    let mut there = 0;
    for file in STORES.iter().flat_map(|store| LISTS.map(|list| Path::new(store).join(list))) {
        // A user has one store. Who makes more of them only wants them to be read.
        if dir.is_foreign() && there >= LISTS.len() {
            break;
        }
        match lists.find(dir, &file, id, texts) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => there += 1,
            Err(FileError::Absent) => {}
            Err(why) => {
                there += 1;
                worst = why;
            }
        }
    }
    Err(worst)
}

/// The cgroup of Podman's container `id`, from its bundle. If the bundle cannot be read, it says nothing.
pub fn runtime_cgroup(dir: &StateDir, id: &str, path: &[u8]) -> RuntimeCgroup {
    let bundle = |store: &str| [store, id, "userdata", "config.json"].iter().collect::<PathBuf>();
    STORES
        .iter()
        .find_map(|store| oci::runtime_cgroup_in(dir, &bundle(store), path).ok())
        .unwrap_or(RuntimeCgroup::NotSaid)
}

/// A container of a list.
#[derive(Debug)]
struct Entry {
    id: Box<str>,
    name: Option<Box<str>>,
    image: Option<Box<str>>,
}

impl Entry {
    fn bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len() + 16);
        size_of::<Self>() + self.id.len() + 16 + text(&self.name) + text(&self.image)
    }

    fn of(listed: Listed) -> Self {
        let metadata = listed.metadata.and_then(|text| serde_json::from_str::<Metadata>(&text).ok());
        Self {
            id: listed.id.into(),
            name: listed.names.unwrap_or_default().first().and_then(|name| kept(name)),
            image: metadata.and_then(|metadata| metadata.image_name).and_then(|image| kept(&image)),
        }
    }
}

/// A list that was read.
#[derive(Debug)]
struct List {
    dir: StateDir,
    file: PathBuf,
    stamp: Stamp,
    /// Sorted by id.
    entries: Vec<Entry>,
    bytes: usize,
}

/// Lists that were read, each valid until its file changes. Many containers of a user may be killed, and each
/// lookup needs the whole list.
#[derive(Debug, Default)]
pub struct Lists(Vec<List>);

impl Lists {
    /// The most bytes of all lists of the host that are kept, and of all lists of users.
    const MAX_BYTES: (usize, usize) = (4 << 20, 1 << 20);

    /// The facts of the container `id` in `file` of `dir`.
    fn find(
        &mut self,
        dir: &StateDir,
        file: &Path,
        id: &str,
        texts: &mut Texts,
    ) -> Result<Option<Facts>, FileError> {
        // Read before the list: if the file changes in between, the list is read again the next time.
        let stamp = dir.stamp(file)?;
        let is_it = |list: &List| list.stamp == stamp && list.dir == *dir && list.file == file;
        if !self.0.iter().any(is_it) {
            self.0.retain(|list| list.dir != *dir || list.file != file);
            let bytes = dir.read(file, LIST_MAX_BYTES)?;
            let mut entries = serde_json::from_slice::<Entries>(&bytes)?.0;
            entries.sort_by(|one, other| one.id.cmp(&other.id));
            entries.shrink_to_fit();
            let bytes = entries.iter().map(Entry::bytes).sum();
            self.0.push(List { dir: dir.clone(), file: file.to_owned(), stamp, entries, bytes });
        }
        let list = self.0.iter().find(|list| is_it(list));
        let found = list.and_then(|list| {
            let at = list.entries.binary_search_by(|entry| (*entry.id).cmp(id)).ok()?;
            Some(facts(list.entries.get(at)?, texts))
        });
        self.fit();
        Ok(found)
    }

    /// Drops the oldest lists until the rest is small enough.
    fn fit(&mut self) {
        for (foreign, max) in [(false, Self::MAX_BYTES.0), (true, Self::MAX_BYTES.1)] {
            let mut sum: usize = 0;
            let newest_first: Vec<List> = self.0.drain(..).rev().collect();
            self.0.extend(newest_first.into_iter().filter(|list| {
                let counts = list.dir.is_foreign() == foreign;
                sum += if counts { list.bytes } else { 0 };
                !counts || sum <= max
            }));
            self.0.reverse();
        }
    }
}

/// The containers of a list. Other content of the file is held for one container at a time.
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        list.deserialize_seq(AsEntries)
    }
}

struct AsEntries;

impl<'de> Visitor<'de> for AsEntries {
    type Value = Entries;

    fn expecting(&self, words: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        words.write_str("a list of containers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(one) = list.next_element::<Listed>()? {
            if is_hex_id(&one.id) {
                entries.push(Entry::of(one));
            }
        }
        Ok(Entries(entries))
    }
}

fn facts(entry: &Entry, texts: &mut Texts) -> Facts {
    Facts {
        runtime: Runtime::Podman,
        name: entry.name.clone(),
        image: entry.image.as_deref().and_then(|image| texts.shared(image)),
        restart_count: None,
        labels: Box::default(),
        pod: None,
        runtime_cgroup: RuntimeCgroup::NotSaid,
        of_user: false,
        left_out: LeftOut::Nothing,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

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
        container(dir, &id(number), &mut Lists::default(), &mut Texts::default()).map(|facts| facts.name)
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
        // Incomplete, or more than a list: nothing of it counts.
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

    #[test]
    fn a_list_is_read_once_for_each_version_of_it() {
        let entry = |number: u32, name: &str| format!(r#"{{"id":"{}","names":["{name}"]}}"#, id(number));
        let host = store(&format!("[{},{}]", entry(1, "one"), entry(2, "two")));
        let dir = StateDir::of_user(host.path(), "");
        let mut lists = Lists::default();
        let mut name = |number| {
            let found = container(&dir, &id(number), &mut lists, &mut Texts::unshared());
            (
                found.ok().and_then(|facts| facts.name).map(String::from),
                lists.0.first().map(|list| list.entries.as_ptr()),
            )
        };
        let (one, first) = name(1);
        assert_eq!(one.as_deref(), Some("one"));
        assert_eq!((name(2), name(3)), ((Some("two".into()), first), (None, first)), "the same was read");
        // As Podman does it: a new file with the same name.
        let file = host.path().join(STORES[0]).join(LISTS[0]);
        let other = file.with_extension("new");
        std::fs::write(&other, format!("[{},{}]", entry(1, "new"), entry(2, "two"))).unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_eq!(name(1).0.as_deref(), Some("new"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(name(1).0, None);
    }

    #[test]
    fn lists_are_kept_up_to_a_size_and_the_hosts_own_apart() {
        let long = |number: u32| {
            let entry =
                |at: u32| format!(r#"{{"id":"{}","names":["{number}-{}"]}}"#, id(at), "n".repeat(500));
            store(&format!("[{}]", (1..=200).map(entry).collect::<Vec<_>>().join(",")))
        };
        let hosts: Vec<_> = (0..13).map(long).collect();
        let mut lists = Lists::default();
        let mut read = |dir: &StateDir| container(dir, &id(7), &mut lists, &mut Texts::unshared()).unwrap();
        read(&StateDir::system(hosts[0].path()));
        for (number, host) in (0..).zip(&hosts).skip(1) {
            let name = read(&StateDir::of_user(host.path(), "")).name.unwrap();
            assert!(name.starts_with(&format!("{number}-")), "each is read, kept or not");
        }
        let kept: Vec<_> = lists.0.iter().map(|list| list.dir.clone()).collect();
        assert_eq!(kept[0], StateDir::system(hosts[0].path()));
        assert_eq!(kept.last(), Some(&StateDir::of_user(hosts[12].path(), "")));
        assert!((7..=9).contains(&(kept.len() - 1)), "a list takes 125 kB: {}", kept.len());
    }

    #[test]
    fn of_a_user_no_more_stores_are_read_than_a_user_has() {
        let host = tempfile::tempdir().unwrap();
        for (at, (store, list)) in
            STORES.iter().flat_map(|store| LISTS.map(|list| (*store, list))).enumerate()
        {
            std::fs::create_dir_all(host.path().join(store)).unwrap();
            let entry = format!(r#"[{{"id":"{}","names":["x"]}}]"#, id(u32::try_from(at).unwrap()));
            std::fs::write(host.path().join(store).join(list), entry).unwrap();
        }
        let (system, user) = (StateDir::system(host.path()), StateDir::of_user(host.path(), ""));
        for at in 0..8 {
            assert!(name(&system, at).is_ok(), "{at}");
            assert_eq!(name(&user, at).is_ok(), at < 2, "{at}");
        }
    }
}

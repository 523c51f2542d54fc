//! Reads the runtimes' TOML configuration files, which belong to the host, for the directories of their
//! state.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{containers::files::host_file, host::root::Root};

/// The most files that are read for one configuration, including imported ones.
const FILES_MAX: usize = 32;

/// The directories in containerd's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Containerd {
    pub(super) state: Option<String>,
    pub(super) root: Option<String>,
}

#[derive(Deserialize)]
struct ContainerdFile {
    state: Option<String>,
    root: Option<String>,
    #[serde(default)]
    imports: Vec<String>,
}

/// Reads containerd's configuration as containerd does: an imported file overrides the file that imports it.
pub(super) fn containerd(root: &Root, file: &str) -> Containerd {
    let mut found = Containerd::default();
    let mut waiting = VecDeque::from([PathBuf::from(file)]);
    let mut read: Vec<PathBuf> = Vec::new();
    while let Some(path) = waiting.pop_front().filter(|_| read.len() < FILES_MAX) {
        if read.contains(&path) {
            continue;
        }
        if let Some(file) = toml_file::<ContainerdFile>(root, &path) {
            found.state = directory(file.state).or(found.state);
            found.root = directory(file.root).or(found.root);
            let dir = path.parent().unwrap_or(Path::new("/"));
            waiting.extend(
                file.imports.iter().take(FILES_MAX).flat_map(|import| imported(root, &dir.join(import))),
            );
        }
        read.push(path);
    }
    found
}

/// The files that an import names. A `*` is allowed in the file name, not in a directory's name.
fn imported(root: &Root, import: &Path) -> Vec<PathBuf> {
    let name = import.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (Some((before, after)), Some(dir)) = (name.split_once('*'), import.parent()) else {
        return vec![import.to_owned()];
    };
    let entries = std::fs::read_dir(root.path(dir)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let fits = |name: &String| {
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    let mut names: Vec<String> = names.filter(fits).take(FILES_MAX).collect();
    // In the order of a shell.
    names.sort();
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// The directories in the storage configuration of Podman and CRI-O.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Storage {
    #[serde(rename = "graphroot")]
    pub(super) graph_root: Option<String>,
    #[serde(rename = "runroot")]
    pub(super) run_root: Option<String>,
}

/// Reads the administrator's file, and the distribution's for what the first leaves out.
pub(super) fn storage(root: &Root) -> Storage {
    #[derive(Default, Deserialize)]
    struct StorageFile {
        #[serde(default)]
        storage: Storage,
    }
    let of = |path: &str| toml_file::<StorageFile>(root, Path::new(path)).unwrap_or_default().storage;
    let (own, shipped) = (of("/etc/containers/storage.conf"), of("/usr/share/containers/storage.conf"));
    Storage {
        graph_root: directory(own.graph_root).or_else(|| directory(shipped.graph_root)),
        run_root: directory(own.run_root).or_else(|| directory(shipped.run_root)),
    }
}

fn toml_file<T: DeserializeOwned>(root: &Root, path: &Path) -> Option<T> {
    toml::from_slice(&host_file(&root.path(path))?).ok()
}

/// An empty path counts as none.
fn directory(path: Option<String>) -> Option<String> {
    path.filter(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    fn dirs(state: &str, root: &str) -> Containerd {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Containerd { state: some(state), root: some(root) }
    }

    const MAIN: &str = "/etc/containerd/config.toml";

    #[test]
    fn a_string_may_be_written_in_every_way_of_toml() {
        let text = "version = 3 # a comment\nroot = '/a' \n\"state\" = \"\"\"/b\"\"\"\n[plugins.\"x\"]\nroot = \"/wrong\"\n";
        let (_dir, root) = host(&[(MAIN, text)]);
        assert_eq!(containerd(&root, MAIN), dirs("/b", "/a"));
    }

    #[test]
    fn an_imported_file_counts_more_and_may_import_in_turn() {
        let (_dir, root) = host(&[
            (MAIN, "root = '/main'\nstate = '/main'\nimports = ['conf.d/*.toml', '/etc/other.toml']"),
            ("/etc/containerd/conf.d/b.toml", "root = '/b'"),
            ("/etc/containerd/conf.d/a.toml", "root = '/a'\nimports = ['../deep.toml']"),
            ("/etc/containerd/conf.d/c.json", "root = '/json'"),
            ("/etc/containerd/conf.d/../deep.toml", "state = '/deep'"),
            ("/etc/other.toml", "state = '/other'\nroot = ''"),
        ]);
        assert_eq!(containerd(&root, MAIN), dirs("/deep", "/b"));
    }

    #[test]
    fn files_that_import_each_other_or_are_broken_end() {
        let (_dir, root) = host(&[
            (MAIN, "state = '/main'\nimports = ['config.toml', 'a.toml', 'missing.toml', 'broken.toml']"),
            ("/etc/containerd/a.toml", "root = '/a'\nimports = ['config.toml', '*.toml']"),
            ("/etc/containerd/broken.toml", "root = '/broken"),
        ]);
        assert_eq!(containerd(&root, MAIN), dirs("/main", "/a"));
        let chain: Vec<(String, String)> = (0..2 * FILES_MAX)
            .map(|at| (format!("/etc/{at}.toml"), format!("root = '/{at}'\nimports = ['{}.toml']", at + 1)))
            .collect();
        let chain: Vec<(&str, &str)> =
            chain.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let (_dir, root) = host(&chain);
        let last = format!("/{}", FILES_MAX - 1);
        assert_eq!(containerd(&root, "/etc/0.toml"), dirs("", &last));
    }

    #[test]
    fn the_distribution_says_what_the_administrator_leaves_out() {
        let (_dir, root) = host(&[
            (
                "/etc/containers/storage.conf",
                "[storage]\ngraphroot = \"/own\"\n[other]\nrunroot = \"/wrong\"",
            ),
            (
                "/usr/share/containers/storage.conf",
                "[storage]\ngraphroot = \"/shipped\"\nrunroot = \"/shipped\"",
            ),
        ]);
        let found = storage(&root);
        assert_eq!(
            (found.graph_root.as_deref(), found.run_root.as_deref()),
            (Some("/own"), Some("/shipped"))
        );
    }
}

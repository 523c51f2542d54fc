//! Suites: a file of tests, or a directory of them, below `tests/` of a crate.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// A suite, named as cargo names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    pub package: String,
    pub name: String,
}

/// Every suite of the checkout's crates whose name contains `part`, by package and name.
///
/// # Errors
/// If the checkout cannot be read.
pub fn matching(root: &Path, part: &str) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for entry in fs::read_dir(root).with_context(|| root.display().to_string())? {
        let directory = entry?.path();
        let Ok(manifest) = fs::read_to_string(directory.join("Cargo.toml")) else { continue };
        let Some(package) = package(&manifest) else { continue };
        for file in fs::read_dir(directory.join("tests")).into_iter().flatten().flatten() {
            let path = file.path();
            let is_suite = match path.extension() {
                Some(extension) => extension == "rs",
                None => path.join("main.rs").is_file(),
            };
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if is_suite && name.contains(part) {
                suites.push(Suite { package: package.to_owned(), name });
            }
        }
    }
    suites.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    Ok(suites)
}

/// The first `name` of a manifest, which is the package's.
fn package(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn suites_are_files_and_directories_with_a_main() {
        let root = tempfile::tempdir().unwrap();
        let tests = root.path().join("one/tests");
        fs::create_dir_all(tests.join("lasting")).unwrap();
        fs::create_dir_all(tests.join("lasting_fixtures")).unwrap();
        fs::write(root.path().join("one/Cargo.toml"), "[package]\nname = \"the-one\"\n").unwrap();
        fs::write(tests.join("lasting/main.rs"), "").unwrap();
        fs::write(tests.join("everlasting.rs"), "").unwrap();
        fs::write(tests.join("lasting.txt"), "").unwrap();
        let found = matching(root.path(), "lasting").unwrap();
        let suite = |name: &str| Suite { package: "the-one".to_owned(), name: name.to_owned() };
        assert_eq!(found, [suite("everlasting"), suite("lasting")]);
    }

    #[test]
    fn the_checkout_has_the_suites_of_real_kills() {
        let found = matching(&crate::workspace::root(), "scenarios").unwrap();
        assert_eq!(found, [Suite { package: "oomtrace-tests".to_owned(), name: "scenarios".to_owned() }]);
    }
}

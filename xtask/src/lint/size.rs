//! Limits the length of source files, with a few exceptions.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The most lines of a Rust file.
const LINES: usize = 400;

/// The most exceptions.
const EXCEPTIONS: usize = 5;

/// Files that may be longer, each with the reason why splitting it would make it harder to read.
const LONGER: &[(&str, &str)] = &[
    ("oomtrace/tests/cli.rs", "one table of what can be typed and what comes out"),
    ("tests/src/tracer.rs", "one running tracer and what can be done to it"),
];

/// Fails if a Rust file of the checkout is too long, or if an exception is no longer needed.
///
/// # Errors
/// Names every such file.
pub fn check(root: &Path) -> Result<()> {
    check_with(root, LONGER)
}

fn check_with(root: &Path, longer: &[(&str, &str)]) -> Result<()> {
    ensure!(longer.len() <= EXCEPTIONS, "{} files may be longer: at most {EXCEPTIONS}", longer.len());
    let mut files = Vec::new();
    find(root, &mut files)?;
    ensure!(!files.is_empty(), "{} has no Rust file", root.display());
    let mut lengths = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        lengths.push((name, text.lines().count()));
    }
    let complaints = complaints(&lengths, longer);
    if !complaints.is_empty() {
        bail!("{}", complaints.join("\n"));
    }
    Ok(())
}

fn complaints(lengths: &[(String, usize)], longer: &[(&str, &str)]) -> Vec<String> {
    let excepted = |name: &str| longer.iter().any(|(file, reason)| *file == name && !reason.is_empty());
    let long = lengths.iter().filter(|(name, lines)| *lines > LINES && !excepted(name));
    let long = long.map(|(name, lines)| format!("{name} has {lines} lines: split it, {LINES} are the most"));
    let needless =
        longer.iter().filter(|(file, _)| !lengths.iter().any(|(name, lines)| name == file && *lines > LINES));
    let needless =
        needless.map(|(file, _)| format!("{file} is no longer than {LINES} lines: no exception is needed"));
    let mut complaints: Vec<String> = long.chain(needless).collect();
    complaints.sort();
    complaints
}

/// Every Rust file below a directory, except what cargo built and hidden files.
fn find(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && !name.as_encoded_bytes().starts_with(b".") {
            find(&path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_file_of_one_line_too_many_fails_unless_it_has_a_reason() {
        let lengths = [("a.rs".to_owned(), LINES), ("b.rs".to_owned(), LINES + 1)];
        assert_eq!(complaints(&lengths, &[]), ["b.rs has 401 lines: split it, 400 are the most"]);
        assert_eq!(complaints(&lengths, &[("b.rs", "one table")]), [""; 0]);
        assert_eq!(complaints(&lengths, &[("b.rs", "")]).len(), 1);
    }

    #[test]
    fn an_exception_that_nothing_needs_fails() {
        let lengths = [("a.rs".to_owned(), LINES)];
        for file in ["a.rs", "gone.rs"] {
            assert_eq!(complaints(&lengths, &[(file, "one table")]).len(), 1);
        }
    }

    #[test]
    fn what_cargo_built_is_not_looked_at() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["target", ".hidden", "src"] {
            fs::create_dir(root.path().join(directory)).unwrap();
            fs::write(root.path().join(directory).join("long.rs"), "\n".repeat(LINES + 1)).unwrap();
        }
        let said = check_with(root.path(), &[]).unwrap_err().to_string();
        assert_eq!(said, "src/long.rs has 401 lines: split it, 400 are the most");
    }
}

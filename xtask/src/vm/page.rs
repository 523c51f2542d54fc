//! The page on kernels: what a run found, between two marks of its architecture; all else on it is written by hand.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{kernels::Arch, table::Table, word};

/// Replaces what stands between the marks of the page at `path`; `took` tells of the run.
///
/// # Errors
/// If the page cannot be read or written, or has no marks.
pub fn write(path: &Path, arch: Arch, table: &Table, took: &str) -> Result<()> {
    let page = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let text = format!("{table}\n{took} The kernels say of themselves:\n\n{}", table.offered());
    let fresh = replaced(&page, &word(arch), &text)
        .with_context(|| format!("{} has no place for the table of {}", path.display(), word(arch)))?;
    fs::write(path, fresh).with_context(|| format!("{} cannot be written", path.display()))
}

fn replaced(page: &str, arch: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {arch}: from here on by cargo xtask vm -->\n");
    let end = format!("<!-- {arch}: up to here -->\n");
    let (head, rest) = page.split_once(&begin)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{begin}\n{text}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_stays_and_so_does_another_machine() {
        let marked = |arch: &str, text: &str| {
            format!("<!-- {arch}: from here on by cargo xtask vm -->\n{text}\n<!-- {arch}: up to here -->\n")
        };
        let page =
            |text: &str| format!("above\n{}between\n{}below\n", marked("x", text), marked("y", "kept"));
        assert_eq!(replaced(&page("old"), "x", "new"), Some(page("\nnew")));
        assert_eq!(replaced("above\nbelow\n", "x", "new"), None);
    }
}

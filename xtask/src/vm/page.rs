//! The page on kernels: what a run found, between two marks; all else on it is written by hand.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::table::Table;

const BEGIN: &str = "<!-- from here on by cargo xtask vm -->\n";
const END: &str = "<!-- up to here -->\n";

/// Replaces what stands between the marks of the page at `path`.
///
/// # Errors
/// If the page cannot be read or written, or has no marks.
pub fn write(path: &Path, table: &Table, seconds: u64) -> Result<()> {
    let page = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let fresh = replaced(&page, &format!("{table}\nAll of it took {seconds} s.\n{}", table.offered()))
        .with_context(|| format!("{} has no place for the table", path.display()))?;
    fs::write(path, fresh).with_context(|| format!("{} cannot be written", path.display()))
}

fn replaced(page: &str, text: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{text}\n{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_stays() {
        let page = format!("above\n{BEGIN}old\n{END}below\n");
        assert_eq!(replaced(&page, "new"), Some(format!("above\n{BEGIN}\nnew\n{END}below\n")));
        assert_eq!(replaced("above\nbelow\n", "new"), None);
    }
}

//! Pages into which commands write their results, between two marks. Everything else on them is written by
//! hand.

use std::{
    fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::workspace;

/// The place for one text on one page.
pub struct Place {
    path: PathBuf,
    begin: String,
    end: String,
}

impl Place {
    /// The place for the table of `cargo xtask COMMAND`. To be called before anything is measured.
    ///
    /// # Errors
    /// If the page cannot be read or has no such place.
    pub fn of_table(page: &Path, command: &str) -> Result<Self> {
        let begin = format!("<!-- table: cargo xtask {command} --write -->\n");
        Self::find(page, begin, "<!-- end of table -->\n".to_owned())
    }

    /// The place for the results of the guests of an architecture.
    ///
    /// # Errors
    /// As [`Self::of_table`].
    pub fn of_guests(page: &Path, arch: &str) -> Result<Self> {
        let begin = format!("<!-- {arch}: from here on by cargo xtask vm -->\n");
        Self::find(page, begin, format!("<!-- {arch}: up to here -->\n"))
    }

    /// The place for the verifier's costs on an architecture.
    ///
    /// # Errors
    /// As [`Self::of_table`].
    pub fn of_verifier(page: &Path, arch: &str) -> Result<Self> {
        let begin = format!("<!-- verifier, {arch}: from here on by cargo xtask vm -->\n");
        Self::find(page, begin, format!("<!-- verifier, {arch}: up to here -->\n"))
    }

    /// A relative path is relative to the checkout.
    fn find(page: &Path, begin: String, end: String) -> Result<Self> {
        let place = Self { path: workspace::root().join(page), begin, end };
        place.with("").map(|_| place)
    }

    /// Replaces the text at this place.
    ///
    /// # Errors
    /// If the page cannot be read or written, or no longer has this place.
    pub fn fill(&self, text: &str) -> Result<()> {
        fs::write(&self.path, self.with(text)?)
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }

    /// The text at this place.
    ///
    /// # Errors
    /// If the page cannot be read, or no longer has this place.
    pub fn text(&self) -> Result<String> {
        let page = fs::read_to_string(&self.path)
            .with_context(|| format!("{} cannot be read", self.path.display()))?;
        let inner = page.split_once(&self.begin).and_then(|(_, rest)| rest.split_once(&self.end));
        let (inner, _) = inner.with_context(|| format!("{} has lost its place", self.path.display()))?;
        Ok(inner.to_owned())
    }

    /// The page with this text in its place.
    fn with(&self, text: &str) -> Result<String> {
        let path = self.path.display();
        let page = fs::read_to_string(&self.path).with_context(|| format!("{path} cannot be read"))?;
        replaced(&page, &self.begin, &self.end, text)
            .with_context(|| format!("{path} has no lines {} and {}", self.begin.trim(), self.end.trim()))
    }
}

/// Makes a table and prints it; with a page, also writes it into its place there, which is looked for before anything is measured.
///
/// # Errors
/// As [`Place::of_table`], and those of `make`.
pub fn table(page: Option<&Path>, command: &str, make: impl FnOnce() -> Result<String>) -> Result<()> {
    let place = page.map(|page| Place::of_table(page, command)).transpose()?;
    let table = make()?;
    stdout().write_all(table.as_bytes())?;
    place.map_or(Ok(()), |place| place.fill(&table))
}

fn replaced(page: &str, begin: &str, end: &str, text: &str) -> Option<String> {
    let (head, rest) = page.split_once(begin)?;
    let (_, tail) = rest.split_once(end)?;
    Some(format!("{head}{begin}{text}{end}{tail}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_by_hand_stays_and_so_does_another_machine() {
        let page = |text: &str| format!("above\n<x>\n{text}</x>\nbetween\n<y>\nkept\n</y>\nbelow\n");
        assert_eq!(replaced(&page("old\n"), "<x>\n", "</x>\n", "new\n"), Some(page("new\n")));
        assert_eq!(replaced("above\nbelow\n", "<x>\n", "</x>\n", "new\n"), None);
    }

    #[test]
    fn each_page_has_its_places() {
        let found = |page: &str, place: fn(&Path, &str) -> Result<Place>, of| {
            place(Path::new(page), of).map(|_| ()).unwrap();
        };
        found(crate::bench::PAGE, Place::of_table, "bench");
        found(crate::bench::PAGE, Place::of_table, "bench --guest");
        found(crate::bench::PAGE, Place::of_table, crate::bench::PROGRAMS);
        found(crate::soak::PAGE, Place::of_table, "soak");
        found(crate::soak::PAGE, Place::of_table, "soak --guest");
        found(crate::vm::PAGE, Place::of_guests, "x86_64");
        found(crate::vm::PAGE, Place::of_guests, "arm64");
        found(crate::vm::PAGE, Place::of_verifier, "x86_64");
        found(crate::vm::PAGE, Place::of_verifier, "arm64");
        let nowhere = Place::of_table(Path::new("docs/NONE.md"), "bench").err().unwrap();
        assert!(format!("{nowhere:#}").contains("docs/NONE.md cannot be read"), "{nowhere:#}");
        assert!(Place::of_table(Path::new(crate::vm::PAGE), "bench").is_err());
    }
}

//! The release: its version and date from packaging/changelog, and the checksums of its files.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::workspace;

/// A version and its release date.
pub struct Release {
    pub version: String,
    /// Seconds since 1970: the date of every file.
    pub epoch: u64,
}

impl Release {
    /// Reads the newest entry of the changelog. Its version must be the one that is built.
    pub fn read() -> Result<Self> {
        let path = workspace::root().join("packaging/changelog");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let release = Self::parse(&text).with_context(|| path.display().to_string())?;
        let built = env!("CARGO_PKG_VERSION");
        ensure!(
            release.version == built,
            "packaging/changelog begins with version {}, but Cargo.toml says {built}: add an entry",
            release.version
        );
        Ok(release)
    }

    fn parse(changelog: &str) -> Result<Self> {
        let first = changelog.lines().next().unwrap_or_default();
        let version = first.split_once('(').and_then(|(_, rest)| rest.split_once("-1)"));
        let (version, _) = version.context("the first line is not: oomtrace (VERSION-1) …")?;
        let signed = changelog.lines().find(|line| line.starts_with(" -- "));
        let date =
            signed.and_then(|line| line.split_once(">  ")).context("no line ` -- NAME <MAIL>  DATE`")?.1;
        let date = jiff::fmt::rfc2822::parse(date).with_context(|| format!("the date {date}"))?;
        Ok(Self { version: version.to_owned(), epoch: date.timestamp().as_second().try_into()? })
    }

    /// In the format of container images.
    pub fn date(&self) -> Result<String> {
        Ok(jiff::Timestamp::from_second(self.epoch.try_into()?)?.to_string())
    }
}

/// The checksum of these bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Writes SHA256SUMS of the files in `out`. Returns these files and SHA256SUMS.
pub fn sums(out: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(out)? {
        files.push(entry?.path());
    }
    files.retain(|path| path.is_file());
    files.sort();
    let mut text = String::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().display();
        let _infallible = writeln!(text, "{}  {name}", sha256(&fs::read(file)?));
    }
    let sums = out.join("SHA256SUMS");
    fs::write(&sums, text)?;
    files.push(sums);
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entry_is_the_release() {
        let entry = "oomtrace (1.2.3-1) unstable; urgency=medium\n\n  * x\n\n -- A <a@b>  Thu, 01 Jan 1970 00:02:00 +0001\n";
        let older = entry.replace("1.2.3", "1.2.2");
        let release = Release::parse(&(entry.to_owned() + "\n" + &older)).unwrap();
        assert_eq!((release.version.as_str(), release.epoch), ("1.2.3", 60));
        assert_eq!(release.date().unwrap(), "1970-01-01T00:01:00Z");
        assert!(Release::parse("").is_err() && Release::parse("oomtrace (1-1) x\n").is_err());
    }
}

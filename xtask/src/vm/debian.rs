//! Fetches packages of Debian without changing this machine's apt.
//!
//! Uses the mirrors of the machine's own apt sources, and unpacks a package into a directory of the cache. A
//! mirror's address is written only in that cache. Nothing is installed.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::tools::output;

/// The archive keys that Debian itself installs. They cover bullseye to the suites after stable.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The suites with the tested kernels, and the archive of each.
const SUITES: [(Archive, &str); 6] = [
    (Archive::Main, "bookworm"),
    (Archive::Main, "trixie"),
    (Archive::Main, "trixie-backports"),
    (Archive::Security, "bullseye-security"),
    (Archive::Security, "bookworm-security"),
    (Archive::Security, "trixie-security"),
];

#[derive(Clone, Copy, PartialEq)]
enum Archive {
    Main,
    Security,
}

/// A private apt: its own sources, lists and archives, for one Debian architecture (`amd64`, `arm64`).
pub struct Apt {
    directory: PathBuf,
    configuration: PathBuf,
}

impl Apt {
    /// Writes the configuration and fetches the lists of all suites.
    ///
    /// # Errors
    /// If the machine's sources name no Debian mirror, or the lists cannot be fetched.
    pub fn update(cache: &Path, architecture: &str) -> Result<Self> {
        let directory = cache.join(format!("apt-{architecture}"));
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let sources = directory.join("sources.list");
        fs::write(&sources, sources_list(&machine_sources()?)?)?;
        let status = directory.join("status");
        fs::write(&status, "")?;
        let configuration = directory.join("apt.conf");
        let show = |path: &Path| path.display().to_string();
        fs::write(
            &configuration,
            format!(
                r#"APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Languages "none";
Dir::State "{directory}";
Dir::State::lists "{directory}/lists";
Dir::State::status "{status}";
Dir::Cache "{directory}";
Dir::Etc::sourcelist "{sources}";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"#,
                directory = show(&directory),
                status = show(&status),
                sources = show(&sources),
            ),
        )?;
        let apt = Self { directory, configuration };
        apt.output("apt-get", ["update", "--error-on=any"]).context("the package lists cannot be fetched")?;
        Ok(apt)
    }

    /// The newest package whose name is `prefix`, a version and `suffix`.
    ///
    /// # Errors
    /// If there is none.
    pub fn newest(&self, prefix: &str, suffix: &str) -> Result<Option<String>> {
        let names = self.output("apt-cache", ["pkgnames", prefix])?;
        Ok(names
            .lines()
            .filter(|name| name.starts_with(prefix) && name.ends_with(suffix))
            // If a long-term kernel was also built for an older Debian, take the original.
            .filter(|name| !name.contains("deb11"))
            .max_by_key(|name| numbers(name))
            .map(str::to_owned))
    }

    /// The private sources of `suite` and its security updates, as lines of a `sources.list`.
    ///
    /// # Errors
    /// If there are none.
    pub fn sources(&self, suite: &str) -> Result<String> {
        let all = fs::read_to_string(self.directory.join("sources.list"))?;
        let of_suite =
            |line: &&str| line.split(' ').any(|word| word.strip_suffix("-security").unwrap_or(word) == suite);
        let found: String = all.lines().filter(of_suite).map(|line| format!("{line}\n")).collect();
        ensure!(!found.is_empty(), "no suite {suite} is known");
        Ok(found)
    }

    /// Unpacks `package` into `directory`, which must not exist. Runs nothing of it.
    ///
    /// # Errors
    /// If the package cannot be fetched or unpacked.
    pub fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        let download = tempfile::tempdir_in(&self.directory)?;
        let mut apt = self.command("apt-get");
        apt.args(["download", package]).current_dir(download.path());
        output(&mut apt).with_context(|| format!("{package} cannot be fetched"))?;
        let archive = fs::read_dir(download.path())?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension() == Some(OsStr::new("deb")))
            .with_context(|| format!("apt-get fetched nothing for {package}"))?;
        output(Command::new("dpkg").arg("-x").arg(archive).arg(directory))?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }

    fn output<const N: usize>(&self, program: &str, arguments: [&str; N]) -> Result<String> {
        output(self.command(program).args(arguments))
    }
}

/// The numbers in a package's name, in order: `6.12.117+deb13` is newer than `6.12.94+deb13.1`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// All of the machine's apt sources, in both of apt's formats.
fn machine_sources() -> Result<String> {
    let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    for entry in fs::read_dir("/etc/apt/sources.list.d").context("this machine has no apt sources")? {
        let path = entry?.path();
        if matches!(path.extension().and_then(OsStr::to_str), Some("list" | "sources")) {
            text.push('\n');
            text.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(text)
}

/// The private sources: every suite, on the mirrors that `machine` names.
fn sources_list(machine: &str) -> Result<String> {
    let mirrors: Vec<&str> = machine
        .lines()
        .filter_map(|line| line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb ")))
        .flat_map(str::split_whitespace)
        .filter(|word| word.contains("://"))
        .map(|uri| uri.trim_end_matches('/'))
        .collect();
    let Some(main) = mirrors.iter().find(|uri| uri.ends_with("/debian")) else {
        bail!(
            "this machine's apt sources name no mirror of Debian; give a kernel with --kernel-image instead"
        );
    };
    // A mirror of the archive usually has the security updates beside it.
    let security = mirrors
        .iter()
        .find(|uri| uri.ends_with("/debian-security"))
        .map_or_else(|| format!("{main}-security"), |uri| (*uri).to_owned());
    let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    Ok(SUITES
        .iter()
        .map(|(archive, suite)| {
            let mirror = if *archive == Archive::Main { *main } else { &security };
            format!("deb {signed}{mirror} {suite} main\n")
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn both_source_formats_name_the_mirrors() {
        let deb822 = "URIs: http://other.test/debian-security\nSuites: x\n\nTypes: deb\nURIs: http://mirror.test/debian/\n";
        let list = sources_list(deb822).unwrap();
        assert!(list.contains("http://mirror.test/debian trixie-backports main\n"), "{list}");
        assert!(list.contains("http://other.test/debian-security bullseye-security main\n"), "{list}");
        let one_line =
            "# deb http://no.test/debian x main\ndeb [arch=amd64] http://mirror.test/debian bookworm main\n";
        let list = sources_list(one_line).unwrap();
        assert!(list.contains("http://mirror.test/debian-security trixie-security main\n"), "{list}");
        assert!(!list.contains("no.test"), "{list}");
        assert!(sources_list("deb http://mirror.test/ubuntu noble main\n").is_err());
    }

    #[test]
    fn newest_goes_by_number_not_by_letter() {
        let newest = |names: [&'static str; 2]| names.into_iter().max_by_key(|name| numbers(name)).unwrap();
        assert_eq!(newest(["linux-6.12.117+deb13", "linux-6.12.94+deb13.1"]), "linux-6.12.117+deb13");
        assert_eq!(newest(["linux-6.12.95+deb13", "linux-6.12.94+deb13"]), "linux-6.12.95+deb13");
        assert_eq!(newest(["linux-6.12.115+deb13", "linux-6.12.115+deb13.1"]), "linux-6.12.115+deb13.1");
    }
}

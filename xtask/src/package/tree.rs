//! The files to install, made once for all kinds of packages.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{archive, copyright, release::Release};
use crate::{build, toolchain::says, workspace};

/// A file of a package.
#[derive(Clone)]
pub struct File {
    /// Path below the root, without a leading slash.
    pub path: String,
    pub mode: u32,
    pub data: Vec<u8>,
}

/// The files that a package installs, with the paths of RPM.
pub struct Tree {
    files: Vec<File>,
    copyright: String,
    /// The units for a binary in /usr/local, by the ends of their names.
    local_units: [(&'static str, String); 2],
}

/// The manual pages: oomtrace's own, and one for each command that it names.
fn pages(program: &Path) -> Result<Vec<(String, String)>> {
    let page = |arguments: &[&str]| {
        let mut man = std::process::Command::new(program);
        says(man.arg("man").args(arguments)).context("oomtrace man failed")
    };
    let main = page(&[])?;
    let named = main.lines().filter_map(|line| line.strip_suffix("(1)"));
    let names: Vec<String> = named.map(|line| line.replace('\\', "")).collect();
    let mut pages = vec![(String::from("oomtrace"), main)];
    for name in names {
        let command = name.strip_prefix("oomtrace-").context(name.clone())?;
        pages.push((name.clone(), page(&[command])?));
    }
    ensure!(pages.len() > 1, "oomtrace's page names no command's page");
    Ok(pages)
}

impl Tree {
    /// For this binary.
    pub fn new(binary: &Path, release: &Release) -> Result<Self> {
        let copyright = copyright::text()?;
        let source = |path: &str| fs::read(workspace::root().join(path)).with_context(|| path.to_owned());
        let unit = String::from_utf8(source("docs/oomtrace.service")?)?;
        let socket = String::from_utf8(source("docs/oomtrace-metrics.socket")?)?;
        let mut files = vec![
            file("usr/bin/oomtrace", fs::read(binary).with_context(|| binary.display().to_string())?),
            file("etc/default/oomtrace", source("packaging/oomtrace.default")?),
            file("etc/logrotate.d/oomtrace", source("packaging/oomtrace.logrotate")?),
            file("usr/lib/systemd/system/oomtrace.service", packaged(&unit, "/usr")?.into_bytes()),
            file("usr/lib/systemd/system/oomtrace-metrics.socket", documented(&socket, "/usr")?.into_bytes()),
        ];
        for document in ["EVENTS.md", "OPERATIONS.md"] {
            files.push(file(
                &format!("usr/share/doc/oomtrace/{document}"),
                source(&format!("docs/{document}"))?,
            ));
        }
        // A binary of another architecture does not run here, but its texts are the same.
        let program = build::binary()?;
        for (name, page) in pages(&program)? {
            let page = dated(&page, release);
            files.push(file(&format!("usr/share/man/man1/{name}.1.gz"), archive::gzip(page.as_bytes())?));
        }
        for (shell, path) in [
            ("bash", "bash-completion/completions/oomtrace"),
            ("fish", "fish/vendor_completions.d/oomtrace.fish"),
            ("zsh", "zsh/site-functions/_oomtrace"),
        ] {
            let mut completions = std::process::Command::new(&program);
            let text =
                says(completions.args(["completions", shell])).context("oomtrace completions failed")?;
            files.push(file(&format!("usr/share/{path}"), text.into_bytes()));
        }
        if let Some(binary) = files.first_mut() {
            binary.mode = 0o755;
        }
        let local = "/usr/local";
        let local_units = [(".service", packaged(&unit, local)?), (".socket", documented(&socket, local)?)];
        Ok(Self { files, copyright, local_units })
    }

    /// Writes the files to target/package, where the packagers read them (see oomtrace/Cargo.toml).
    pub fn lay_out(&self) -> Result<()> {
        let base = workspace::root().join("target/package");
        if base.is_dir() {
            fs::remove_dir_all(&base).with_context(|| base.display().to_string())?;
        }
        for file in &self.files {
            write(&base.join("root").join(&file.path), &file.data, file.mode)?;
            // cargo-deb takes a unit from beside the scripts and adds systemd's part to the scripts.
            if file.path.ends_with(".service") {
                write(&base.join("deb/service"), &file.data, file.mode)?;
            }
        }
        write(&base.join("copyright"), self.copyright.as_bytes(), 0o644)?;
        let packaging = workspace::root().join("packaging");
        let detach = fs::read_to_string(packaging.join("detach-pins.sh"))?;
        for script in ["deb/prerm", "deb/postrm", "rpm/post.sh", "rpm/preun.sh", "rpm/postun.sh"] {
            let text = fs::read_to_string(packaging.join(script)).with_context(|| script.to_owned())?;
            write(&base.join(script), text.replace("#DETACH#\n", &detach).as_bytes(), 0o755)?;
        }
        Ok(())
    }

    /// The files of the tarball, below `name`. It is unpacked into /usr/local.
    pub fn tarball(&self, name: &str) -> Vec<File> {
        let mut files = Vec::new();
        for installed in &self.files {
            let Some(path) = installed.path.strip_prefix("usr/") else { continue };
            let mut moved = installed.clone();
            moved.path = format!("{name}/{path}");
            if let Some((_, unit)) = self.local_units.iter().find(|(end, _)| path.ends_with(end)) {
                moved.data = unit.clone().into_bytes();
            }
            files.push(moved);
        }
        let copyright = self.copyright.clone().into_bytes();
        files.push(file(&format!("{name}/share/doc/oomtrace/copyright"), copyright));
        files
    }

    /// The files of the container image.
    pub fn image(&self) -> Vec<File> {
        let mut files: Vec<File> =
            self.files.iter().filter(|file| file.path == "usr/bin/oomtrace").cloned().collect();
        files.push(file("usr/share/doc/oomtrace/copyright", self.copyright.clone().into_bytes()));
        files
    }
}

fn file(path: &str, data: Vec<u8>) -> File {
    File { path: path.to_owned(), mode: 0o644, data }
}

fn write(path: &PathBuf, data: &[u8], mode: u32) -> Result<()> {
    let name = || path.display().to_string();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(name)?;
    }
    fs::write(path, data).with_context(name)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(name)
}

/// The page with the release's date, which clap leaves out.
fn dated(page: &str, release: &Release) -> String {
    let date = release.date().unwrap_or_default();
    let day = date.split('T').next().unwrap_or_default();
    let dated = |line: &str| match line.strip_prefix(".TH ") {
        Some(_) => line.replacen("  \"", &format!(" \"{day}\" \""), 1),
        None => line.to_owned(),
    };
    page.lines().map(dated).fold(String::new(), |text, line| text + &line + "\n")
}

/// The unit of docs/ for a package: its paths are below `prefix`.
fn packaged(unit: &str, prefix: &str) -> Result<String> {
    let start = "ExecStart=/usr/local/bin/oomtrace run ";
    ensure!(unit.matches(start).count() == 1, "docs/oomtrace.service has not one {start:?}");
    let text = documented(&unit.replace(start, &format!("ExecStart={prefix}/bin/oomtrace run ")), prefix)?;
    let comment =
        format!("# Settings: /etc/default/oomtrace. More: {prefix}/share/doc/oomtrace/OPERATIONS.md\n");
    let body = text.split_once("[Unit]").map(|(_, body)| format!("{comment}[Unit]{body}"));
    body.context("docs/oomtrace.service has no [Unit]")
}

/// A unit whose documentation is below `prefix`.
fn documented(unit: &str, prefix: &str) -> Result<String> {
    let place = "file:///usr/local/share/doc/";
    ensure!(unit.matches(place).count() == 1, "a unit has not one {place:?}");
    Ok(unit.replace(place, &format!("file://{prefix}/share/doc/")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_package_names_nothing_in_usr_local() {
        let unit = fs::read_to_string(workspace::root().join("docs/oomtrace.service")).unwrap();
        let packaged = packaged(&unit, "/usr").unwrap();
        assert!(!packaged.contains("/usr/local"), "{packaged}");
        for line in
            ["EnvironmentFile=-/etc/default/oomtrace", "ExecStart=/usr/bin/oomtrace run $OOMTRACE_ARGS"]
        {
            assert!(unit.contains(&line.replace("/usr/", "/usr/local/")), "the unit itself: {line}");
            assert!(packaged.contains(&format!("\n{line}\n")), "{packaged}");
        }
        assert!(super::packaged("[Unit]\n", "/usr").is_err(), "a unit that was changed beyond this is said");
    }
}

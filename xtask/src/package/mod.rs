//! `cargo xtask package`: builds what users install, in `dist/`: .deb, .rpm, tarball, container image, SBOM,
//! checksums.
//!
//! The same commit gives the same bytes in any directory: paths of this machine are removed from the build,
//! and every date is the date of the newest entry in packaging/changelog.

mod architecture;
mod archive;
mod arm64;
mod check;
mod compile;
mod copyright;
mod image;
mod release;
mod sbom;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{setup, stage::quietly, workspace};
use architecture::Architecture;
use release::Release;
use tree::Tree;

/// Make the packages in dist/: .deb, .rpm, tarball, container image, SBOM and checksums
#[derive(clap::Args)]
pub struct Args {
    /// Only for this machine: amd64 or arm64 [default: both]
    #[arg(long, value_enum)]
    arch: Vec<Architecture>,
    /// Directory for the packages [default: dist]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Then test them: lint, install, upgrade, remove, run the image, and build everything again elsewhere
    /// (as root). With a name: run only the tests that contain it, with the existing packages
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    check: Option<String>,
}

pub fn main(args: &Args) -> Result<()> {
    let architectures = if args.arch.is_empty() { &Architecture::ALL } else { args.arch.as_slice() };
    let out = args.out.clone().unwrap_or_else(|| workspace::root().join("dist"));
    if args.check.as_ref().is_none_or(String::is_empty) {
        for file in make(architectures, &out)? {
            eprintln!("{}", file.display());
        }
    }
    args.check.as_ref().map_or(Ok(()), |name| check::run(architectures, &out, name))
}

/// Makes every package. Returns their files.
fn make(architectures: &[Architecture], out: &Path) -> Result<Vec<PathBuf>> {
    for need in [setup::BUILD, setup::CARGO_DEB, setup::CARGO_GENERATE_RPM, setup::CARGO_CYCLONEDX] {
        setup::ensure(need)?;
    }
    let release = Release::read()?;
    if out.is_dir() {
        fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;

    let mut layers = Vec::new();
    for architecture in architectures {
        let binary = compile::binary(*architecture)?;
        let tree = Tree::new(&binary, &release)?;
        tree.lay_out()?;
        deb(*architecture, &release, out)?;
        rpm(*architecture, &release, out)?;
        let name = format!("oomtrace-{}-linux-{}", release.version, architecture.debian());
        let packed = archive::gzip(&archive::tar(&tree.tarball(&name), &release)?)?;
        fs::write(out.join(format!("{name}.tar.gz")), packed)?;
        layers.push((*architecture, tree.image()));
    }
    image::write(&layers, &release, out)?;
    sbom::write(&release, out)?;
    release::sums(out)
}

/// The command of a packager, with its paths and date.
fn packager(tool: &str, release: &Release) -> Result<Command> {
    let mut command = Command::new(setup::tool(tool)?);
    command.current_dir(workspace::root()).env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    Ok(command)
}

fn deb(architecture: Architecture, release: &Release, out: &Path) -> Result<()> {
    let mut deb = packager("cargo-deb", release)?;
    deb.args(["--no-build", "--no-strip", "--locked", "--manifest-path", "oomtrace/Cargo.toml"])
        .args(["--target", architecture.target(), "--output"])
        .arg(out.join(format!("oomtrace_{}-1_{}.deb", release.version, architecture.debian())));
    quietly(&format!("cargo-deb, {}", architecture.debian()), "some seconds", &mut deb)
}

fn rpm(architecture: Architecture, release: &Release, out: &Path) -> Result<()> {
    let mut rpm = packager("cargo-generate-rpm", release)?;
    rpm.args(["generate-rpm", "--package", "oomtrace", "--payload-compress", "gzip"])
        .args(["--arch", architecture.kernel(), "--output"])
        .arg(out.join(format!("oomtrace-{}-1.{}.rpm", release.version, architecture.kernel())));
    quietly(&format!("cargo-generate-rpm, {}", architecture.debian()), "some seconds", &mut rpm)
}

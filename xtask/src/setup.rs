//! `cargo xtask setup`: installs what the machine lacks.
//!
//! It checks files to see what is there, so it is quick if nothing is missing. As root it installs with apt.
//! Without Debian's compiler the eBPF compiler is a rustup nightly. If it cannot install something, the error
//! is the command to run.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    stage::quietly,
    toolchain::{self, Compiler, NIGHTLY, says},
    workspace,
};

/// Install what building and testing need
#[derive(clap::Args)]
pub struct Args {
    /// Also the container runtimes that tests start: Docker, containerd, Podman
    #[arg(long)]
    containers: bool,
    /// Also QEMU, for tests under other kernels
    #[arg(long)]
    vm: bool,
    /// Also bpftrace, for the benchmark
    #[arg(long)]
    bench: bool,
}

/// What a command may need.
#[derive(Clone, Copy)]
pub enum Need {
    /// The eBPF compiler and bpf-linker.
    Build,
    /// Debian packages, each with a program that shows that it is installed, also from another source such as
    /// Docker's own packages. Without a program, only dpkg knows.
    Packages(&'static [(&'static str, Option<&'static str>)]),
    /// A program that cargo builds into the tools' directory.
    Tool {
        name: &'static str,
        version: &'static str,
        options: &'static [&'static str],
        expected: &'static str,
    },
}

/// For building.
pub const BUILD: Need = Need::Build;
/// For tests on this host. Images and guests contain the static busybox.
pub const TEST: Need = Need::Packages(&[("busybox-static", None)]);
/// For real containers.
pub const CONTAINERS: Need = Need::Packages(&[
    ("docker.io", Some("dockerd")),
    ("containerd", Some("containerd")),
    ("podman", Some("podman")),
    ("runc", Some("runc")),
    // Programs that leak in a container.
    ("nodejs", Some("node")),
    ("python3", Some("python3")),
    ("default-jdk-headless", Some("javac")),
]);
/// Docker's client, a separate package since Debian 13. To be ensured after [`CONTAINERS`].
pub const DOCKER_CLI: Need = Need::Packages(&[("docker-cli", Some("docker"))]);
/// For booting other kernels.
pub const VM: Need = Need::Packages(&[("qemu-system-x86", Some("qemu-system-x86_64"))]);
/// For the benchmark: a tracer to compare with.
pub const BENCH: Need = Need::Packages(&[("bpftrace", Some("bpftrace"))]);

/// For the benchmark in a guest: another one.
pub const BENCH_GUEST: Need = Need::Packages(&[("libbpf-tools", Some("oomkill"))]);

/// For checking dependencies against `deny.toml`.
pub const DENY: Need = Need::Tool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &["--no-default-features"],
    expected: "about 3 min on 2 cores, once",
};
/// For making packages.
pub const CARGO_DEB: Need = packager("cargo-deb", "3.8.0");
pub const CARGO_GENERATE_RPM: Need = packager("cargo-generate-rpm", "0.21.1");
pub const CARGO_CYCLONEDX: Need = packager("cargo-cyclonedx", "0.5.9");
/// For linking for arm64.
pub const ARM64: Need = Need::Packages(&[
    ("gcc-aarch64-linux-gnu", Some("aarch64-linux-gnu-gcc")),
    ("libc6-dev-arm64-cross", None),
]);
/// For testing packages.
pub const PACKAGE_TESTS: Need = Need::Packages(&[
    ("lintian", Some("lintian")),
    ("rpm", Some("rpm")),
    ("rpmlint", Some("rpmlint")),
    ("qemu-user-static", Some("qemu-aarch64-static")),
]);

/// For looking at the page of `oomtrace report`.
pub const BROWSER: Need = Need::Packages(&[("chromium", Some("chromium"))]);

/// For running the recipes of docs/.
pub const RECIPES: Need = Need::Packages(&[("python3-venv", Some("python3")), ("npm", Some("npm"))]);

/// Built without optimization, because compiling it optimized takes longer than it saves.
const fn packager(name: &'static str, version: &'static str) -> Need {
    Need::Tool { name, version, options: &["--debug"], expected: "about 1 min on 2 cores, once" }
}

const BPF_LINKER: &str = "0.13.0";
/// The LLVM versions that this bpf-linker supports.
const BPF_LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

pub fn main(args: &Args) -> Result<()> {
    let asked =
        [(args.containers, CONTAINERS), (args.containers, DOCKER_CLI), (args.vm, VM), (args.bench, BENCH)];
    let asked = asked.into_iter().filter_map(|(asked, need)| asked.then_some(need));
    for need in [BUILD, TEST, DENY].into_iter().chain(asked) {
        ensure(need)?;
    }
    eprintln!("nothing is missing");
    Ok(())
}

/// Installs what is missing of one need. Quick if nothing is missing.
pub fn ensure(need: Need) -> Result<()> {
    if is_met(need) {
        return Ok(());
    }
    // Two set-ups at the same time would break each other's apt and build bpf-linker twice.
    let tools = tools_dir()?;
    fs::create_dir_all(&tools).with_context(|| tools.display().to_string())?;
    let lock = File::create(tools.join("setup.lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("waiting for another set-up on this machine");
        lock.lock()?;
        // The other one may have brought it.
        if is_met(need) {
            return Ok(());
        }
    }
    match need {
        Need::Build => linker(compiler()?),
        Need::Packages(packages) => apt(&missing(packages), "a minute or two"),
        Need::Tool { name, version, options, expected } => {
            let mut install = install(name, version)?;
            quietly(&format!("cargo: {name} {version}"), expected, install.args(options))
        }
    }
}

fn is_met(need: Need) -> bool {
    match need {
        Need::Build => Compiler::find().is_some() && linker_starts(),
        Need::Packages(packages) => missing(packages).is_empty(),
        Need::Tool { name, version, .. } => toolchain::made(name).is_some() && is_listed(name, version),
    }
}

fn missing(packages: &[(&'static str, Option<&'static str>)]) -> Vec<&'static str> {
    let is_there = |program: &str| {
        // `PATH` may lack the directories for root's programs.
        toolchain::in_path(program).is_some() || Path::new("/usr/sbin").join(program).is_file()
    };
    let is_installed = |package| {
        let query = says(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]));
        query.is_some_and(|status| status == "installed")
    };
    let lacks = |(package, program): &(&'static str, Option<&'static str>)| {
        (!program.map_or_else(|| is_installed(package), is_there)).then_some(*package)
    };
    packages.iter().filter_map(lacks).collect()
}

/// The eBPF compiler, installed if necessary: Debian's if apt has it, else the pinned nightly of rustup.
fn compiler() -> Result<Compiler> {
    const DEBIAN: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
    if let Some(compiler) = Compiler::find() {
        return Ok(compiler);
    }
    apt_update()?;
    if says(Command::new("apt-cache").arg("show").args(DEBIAN)).is_some() {
        apt(&DEBIAN, "about 1 min")?;
    } else if toolchain::in_path("rustup").is_some() {
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"]);
        quietly(&format!("rustup: {NIGHTLY} with rust-src"), "about 1 min", &mut rustup)?;
    } else {
        bail!(
            "no Rust compiler for eBPF; with rustup, run: rustup toolchain install {NIGHTLY} --component rust-src"
        );
    }
    Compiler::find().context("the eBPF compiler was installed but has no core library for eBPF")
}

/// bpf-linker, built for the LLVM of the compiler whose bitcode it reads.
fn linker(compiler: Compiler) -> Result<()> {
    if linker_starts() {
        return Ok(());
    }
    let version = says(compiler.tool("rustc").arg("-vV")).context("rustc -vV failed")?;
    let version = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let llvm: u32 = version
        .and_then(|version| version.split('.').next()?.parse().ok())
        .context("rustc -vV names no LLVM version")?;
    ensure!(
        BPF_LINKER_LLVM.contains(&llvm),
        "the eBPF compiler has LLVM {llvm}, which bpf-linker {BPF_LINKER} does not know; put a newer bpf-linker in PATH"
    );
    if llvm_prefix(llvm).is_none() {
        apt(&[&format!("llvm-{llvm}-dev")], "about 1 min")?;
    }
    let prefix = llvm_prefix(llvm).with_context(|| format!("llvm-config of LLVM {llvm} is missing"))?;
    let mut install = install("bpf-linker", BPF_LINKER)?;
    install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]).env("LLVM_PREFIX", prefix);
    quietly(&format!("cargo: bpf-linker {BPF_LINKER}"), "about 3 min on 2 cores, once", &mut install)?;
    ensure!(linker_starts(), "bpf-linker was built but does not start");
    Ok(())
}

/// Builds a program into the tools' directory, with the locked versions of its dependencies.
fn install(name: &str, version: &str) -> Result<Command> {
    let mut install = workspace::cargo("install");
    install.args([name, "--version", version, "--locked", "--force", "--root"]).arg(tools_dir()?);
    install.env_remove("RUSTFLAGS");
    Ok(install)
}

fn linker_starts() -> bool {
    toolchain::linker().is_some_and(|linker| says(Command::new(linker).arg("--version")).is_some())
}

/// Where this version of LLVM is installed with its headers.
fn llvm_prefix(version: u32) -> Option<String> {
    let named = format!("llvm-config-{version}");
    let debian = format!("/usr/lib/llvm-{version}/bin/llvm-config");
    [named.as_str(), &debian, "llvm-config"].into_iter().find_map(|config| {
        let found = says(Command::new(config).arg("--version"))?;
        (found.split('.').next()? == version.to_string()).then_some(())?;
        Some(says(Command::new(config).arg("--prefix"))?.trim_end().to_owned())
    })
}

/// From cargo's own list, because not every program has a `--version`.
fn is_listed(name: &str, version: &str) -> bool {
    let list = tools_dir().and_then(|tools| Ok(fs::read_to_string(tools.join(".crates.toml"))?));
    list.is_ok_and(|list| list.contains(&format!("\"{name} {version} ")))
}

/// A program that [`Need::Tool`] installed.
pub fn tool(name: &str) -> Result<PathBuf> {
    toolchain::made(name).with_context(|| format!("{name} was installed but is not there"))
}

pub fn tools_dir() -> Result<PathBuf> {
    toolchain::tools_dir().context("no place for tools: neither XDG_CACHE_HOME nor HOME is set")
}

/// Installs Debian packages, or fails with the command that would.
fn apt(packages: &[&str], expected: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if toolchain::in_path("apt-get").is_none() {
        bail!("this machine has no apt; install what it calls these Debian packages: {names}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("not root; run as root: apt-get install -y --no-install-recommends {names}");
    }
    apt_update()?;
    let mut install = apt_get("install");
    install.args(["-y", "--no-install-recommends"]).args(packages);
    quietly(&format!("apt: {names}"), expected, &mut install)
}

/// Updates apt's lists once, if this is root and there is an apt.
fn apt_update() -> Result<()> {
    static ONCE: Once = Once::new();
    const TRIES: u32 = 24;
    if !rustix::process::geteuid().is_root() || toolchain::in_path("apt-get").is_none() || ONCE.is_completed()
    {
        return Ok(());
    }
    for attempt in 1.. {
        let outcome = quietly("apt: package lists", "some seconds", &mut apt_get("update"));
        if outcome.is_ok() || attempt == TRIES {
            outcome?;
            break;
        }
        // apt waits for dpkg's lock but not for the lock of the lists: if another apt runs, this one fails at
        // once.
        eprintln!("  once more in 5 s");
        sleep(Duration::from_secs(5));
    }
    ONCE.call_once(|| ());
    Ok(())
}

fn apt_get(subcommand: &str) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Use-Pty=0", subcommand])
        .env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

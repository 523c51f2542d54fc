//! Writes the eBPF object to `$OUT_DIR/oomtrace.bpf.o`. The binary embeds it.
//!
//! A nested cargo builds it, because it needs another target and another compiler than this crate.
//! `OOMTRACE_EBPF_OBJECT=FILE` uses a finished object instead.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use toolchain::{BPF_TARGET, Compiler};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The sources of the object, relative to this crate.
const SOURCES: [&str; 7] = [
    "../oomtrace-common/Cargo.toml",
    "../oomtrace-common/src",
    "../oomtrace-ebpf/.cargo/config.toml",
    "../oomtrace-ebpf/Cargo.lock",
    "../oomtrace-ebpf/Cargo.toml",
    "../oomtrace-ebpf/src",
    "../xtask/src/toolchain.rs",
];

/// Variables that the outer cargo sets, or a user sets for it, and that would mislead the inner one. All
/// others that begin with `CARGO_` or `RUSTC_` are removed too.
const OUTER: [&str; 12] = [
    "CARGO",
    "DEBUG",
    "HOST",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "TARGET",
];

/// Prefixes of the variables for registries and network access, which both cargos need.
const SHARED: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];

fn main() {
    if let Err(error) = object() {
        // This line fails the build. With an exit code too, cargo would print all output of this script
        // again.
        println!("cargo::error={error}");
    }
}

fn object() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=OOMTRACE_EBPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let object = out.join("oomtrace.bpf.o");

    if let Some(given) = env::var_os("OOMTRACE_EBPF_OBJECT") {
        let given = Path::new(&given);
        println!("cargo::rerun-if-changed={}", given.display());
        fs::copy(given, &object)
            .map_err(|error| format!("OOMTRACE_EBPF_OBJECT={}: {error}", given.display()))?;
        return Ok(());
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    build(&out)?;
    strip(&out.join("oomtrace-ebpf"), &object)
}

/// Writes `oomtrace-ebpf` to `out`.
fn build(out: &Path) -> Result<()> {
    let compiler = Compiler::find().ok_or("no Rust compiler for eBPF here; run: cargo xtask setup")?;
    let linker = toolchain::linker().ok_or("no bpf-linker here; run: cargo xtask setup")?;
    let crate_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let root = crate_dir.parent().ok_or("this crate lies in no workspace")?;
    // One directory for all profiles and checks of this crate, because the object is always the same.
    let target_dir = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into())).join("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;

    // The layout of `pt_regs` depends on the kernel's machine, not on the building machine.
    let mut flags = vec![format!("--cfg=bpf_target_arch=\"{arch}\"")];
    // BTF contains the names of source files.
    flags.extend(toolchain::remapped(root));

    let mut cargo = compiler.tool("cargo");
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let misleads =
            OUTER.contains(&text.as_ref()) || text.starts_with("CARGO_") || text.starts_with("RUSTC_");
        if misleads && !SHARED.iter().any(|beginning| text.starts_with(beginning)) {
            cargo.env_remove(&name);
        }
    }
    match compiler {
        // aya-ebpf needs an unstable feature of the compiler. Debian's compiler accepts it only with this
        // variable.
        Compiler::Debian => cargo
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTDOC", "/usr/bin/rustdoc")
            .env("RUSTC_BOOTSTRAP", "1"),
        Compiler::Nightly => cargo.arg("-Zbuild-std=core"),
    };
    cargo
        .current_dir(root.join("oomtrace-ebpf"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .args(["build", "--quiet", "--release", "--config"])
        .arg(format!("target.{BPF_TARGET}.rustflags={flags:?}"))
        .arg("--target-dir")
        .arg(target_dir)
        // Copied under cargo's own lock, so that two builds in one target directory cannot swap objects.
        .args(["-Zunstable-options", "--artifact-dir"])
        .arg(out);
    let output = cargo.output().map_err(|error| format!("{}: {error}", cargo.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::error={line}");
    }
    Err("the eBPF object did not build".into())
}

/// Removes the debug sections, four fifths of the object, but keeps BTF. An object with them works too, so a
/// missing LLVM tool is no error.
fn strip(built: &Path, object: &Path) -> Result<()> {
    let stripped = llvm("objcopy").is_some_and(|mut objcopy| {
        objcopy.args(renamed(built)).arg("--strip-debug").arg(built).arg(object);
        objcopy.status().is_ok_and(|status| status.success())
    });
    if !stripped {
        fs::copy(built, object)?;
    }
    Ok(())
}

/// Options that remove cargo's hash from the names of functions that were not inlined. The hash depends on
/// the checkout's path, and the object must be the same everywhere.
fn renamed(built: &Path) -> Vec<String> {
    let symbols = llvm("nm").and_then(|mut nm| toolchain::says(nm.arg("--format=just-symbols").arg(built)));
    let mangled = |name: &&str| name.starts_with("_R") || name.starts_with("_ZN");
    let rename =
        |(place, name): (usize, &str)| [String::from("--redefine-sym"), format!("{name}=local.{place}")];
    symbols.iter().flat_map(|text| text.lines().filter(mangled).enumerate()).flat_map(rename).collect()
}

/// One of LLVM's tools, if it is there.
fn llvm(tool: &str) -> Option<Command> {
    let versions = ["-23", "-22", "-21", ""];
    versions.iter().find_map(|version| toolchain::in_path(&format!("llvm-{tool}{version}"))).map(Command::new)
}

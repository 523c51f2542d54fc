//! Leaves the eBPF object in `$OUT_DIR/oomtrace.bpf.o`, for the binary to carry.
//!
//! It is built by a nested cargo, because it needs another target and another compiler than this crate.
//! `OOMTRACE_EBPF_OBJECT=FILE` takes a finished object instead.

#![expect(clippy::print_stdout, reason = "cargo reads a build script's stdout")]

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use toolchain::Toolchain;

type Error = Box<dyn std::error::Error>;

/// What the object is made of, seen from this crate.
const SOURCES: [&str; 7] = [
    "../oomtrace-common/Cargo.toml",
    "../oomtrace-common/src",
    "../oomtrace-ebpf/.cargo/config.toml",
    "../oomtrace-ebpf/Cargo.lock",
    "../oomtrace-ebpf/Cargo.toml",
    "../oomtrace-ebpf/src",
    "../xtask/src/toolchain.rs",
];

fn main() -> ExitCode {
    match object() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn object() -> Result<(), Error> {
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
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let root = root.parent().ok_or("this crate lies in no workspace")?;
    let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into())).join("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;

    let mut cargo = Toolchain::find()?.build(&root.join("oomtrace-ebpf"), &arch, &target, &out);
    if !cargo.status().map_err(|error| format!("{}: {error}", cargo.get_program().display()))?.success() {
        return Err("the eBPF object did not build; the compiler's own words are above or below".into());
    }
    strip(&out.join("oomtrace-ebpf"), &object)?;
    Ok(())
}

/// Leaves out the debug sections, 4/5 of the object; BTF stays. An object that keeps them works too, so a
/// machine without LLVM's tools is no error.
fn strip(built: &Path, object: &Path) -> Result<(), Error> {
    let named =
        |tool: &str| [format!("{tool}-23"), format!("{tool}-22"), format!("{tool}-21"), tool.to_owned()];
    let tool = named("llvm-strip").into_iter().chain(named("llvm-objcopy")).find_map(toolchain::in_path);
    let stripped = tool.is_some_and(|tool| {
        let mut strip = Command::new(tool);
        strip.arg("--strip-debug").arg(built);
        // llvm-objcopy takes the output as its second operand, llvm-strip only by this option.
        let is_objcopy = strip.get_program().to_string_lossy().contains("objcopy");
        if is_objcopy { strip.arg(object) } else { strip.arg("-o").arg(object) }
            .status()
            .is_ok_and(|status| status.success())
    });
    if !stripped {
        fs::copy(built, object)?;
    }
    Ok(())
}

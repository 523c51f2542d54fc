//! `cargo xtask test`: every test of this host, those that need no privilege first.

mod matching;

use std::{ffi::OsString, process::Command};

use anyhow::{Result, ensure};

use crate::{build, fuzz, setup, stage::Stages, workspace};

/// Run the tests: pure ones, fixtures and replay, then real OOM kills (as root)
#[derive(clap::Args)]
pub struct Args {
    /// Only the tests whose names contain this; and options for the test harness
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<OsString>,
}

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TEST)?;
    setup::ensure(setup::CONTAINERS)?;
    setup::ensure(setup::DOCKER_CLI)?;

    let name = args.filter.iter().find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let mut matching = 0;
    let mut stages = Stages::default();
    let mut tests = |stages: &mut Stages, title: &str, command: &mut Command| match name {
        Some(_) => {
            stages.call(title, || matching::run(command, &mut matching));
        }
        None => stages.run(title, command),
    };
    tests(
        &mut stages,
        "tests without privilege",
        workspace::cargo("test")
            .args(["--workspace", "--exclude", "oomtrace-tests", "--no-fail-fast", "--"])
            .args(&args.filter),
    );
    if args.filter.is_empty() {
        stages.run("mutated input for every parser, 20 s", &mut fuzz::shortly());
    }
    let mut binary = None;
    if stages.call("build", || build::binary().map(|built| binary = Some(built))) {
        let mut kills = workspace::cargo("test");
        kills
            .args(["--package", "oomtrace-tests", "--no-fail-fast", "--"])
            .args(&args.filter)
            .envs(binary.map(|binary| ("OOMTRACE_BIN", binary)));
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: the tests of real kills run by sudo");
            let runner =
                format!("CARGO_TARGET_{}_RUNNER", workspace::host().to_uppercase().replace('-', "_"));
            kills.env(runner, "sudo --preserve-env=OOMTRACE_BIN");
        }
        tests(&mut stages, "real OOM kills", &mut kills);
    }
    stages.finish()?;
    if let Some(name) = name {
        ensure!(matching > 0, "no test has a name that contains {}", name.display());
    }
    Ok(())
}

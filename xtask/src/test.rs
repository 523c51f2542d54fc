//! `cargo xtask test`: runs every test of this host, first those that need no privilege.

mod busy;
mod matching;
mod suites;

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::{build, fuzz, setup, stage::Stages, workspace};

use self::{busy::Busy, suites::Suite};

/// The package whose tests make real kills, as root.
const KILLS: &str = "oomtrace-tests";

/// Run the tests: pure ones, fixtures and replay, then real OOM kills (as root)
#[derive(clap::Args)]
pub struct Args {
    /// Only what needs neither root nor a daemon: under a minute after the build
    #[arg(long, conflicts_with = "busy")]
    quick: bool,
    /// While another program makes 2,000 cgroups and a kill each second, in its own cgroup, which is removed
    /// at the end
    #[arg(long)]
    busy: bool,
    /// Only the tests and suites (files of tests) whose names contain this; and options for the test harness
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<OsString>,
}

impl Args {
    /// The name that was asked for.
    fn name(&self) -> Option<&OsString> {
        self.filter.iter().find(|word| !word.as_encoded_bytes().starts_with(b"-"))
    }

    /// All words but the name: a suite runs as a whole.
    fn options(&self) -> impl Iterator<Item = &OsString> {
        self.filter.iter().filter(|word| word.as_encoded_bytes().starts_with(b"-"))
    }
}

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    if !args.quick {
        for need in [setup::TEST, setup::CONTAINERS, setup::DOCKER_CLI] {
            setup::ensure(need)?;
        }
    }
    let suites = match args.name() {
        Some(name) => suites::matching(&workspace::root(), &name.to_string_lossy())?,
        None => Vec::new(),
    };
    let mut tests = Tests { args, matching: 0, stages: Stages::default() };
    tests.unprivileged(&suites);
    if !args.quick {
        tests.real_kills(&suites)?;
    }
    let Tests { matching, stages, .. } = tests;
    stages.finish()?;
    if let Some(name) = args.name() {
        ensure!(matching > 0, "no test and no suite has a name that contains {}", name.display());
    }
    Ok(())
}

/// A run of tests.
struct Tests<'a> {
    args: &'a Args,
    /// How many tests had the name that was asked for.
    matching: usize,
    stages: Stages,
}

impl Tests<'_> {
    fn unprivileged(&mut self, suites: &[Suite]) {
        let all = ["--workspace", "--exclude", KILLS, "--no-fail-fast", "--"];
        self.run("tests without privilege", workspace::cargo("test").args(all).args(&self.args.filter));
        // The harness of the real kills has tests of its own, which need no kill.
        let harness = ["--package", KILLS, "--lib", "--bins", "--no-fail-fast", "--"];
        if self.args.quick {
            self.run(
                "the harness of real kills",
                workspace::cargo("test").args(harness).args(&self.args.filter),
            );
        }
        for suite in suites.iter().filter(|suite| suite.package != KILLS) {
            self.suite(suite, None);
        }
        if self.args.filter.is_empty() && !self.args.quick {
            self.stages.run("mutated input for every parser, 20 s", &mut fuzz::shortly());
        }
    }

    fn real_kills(&mut self, suites: &[Suite]) -> Result<()> {
        let mut binary = None;
        if !self.stages.call("build", || build::binary().map(|built| binary = Some(built))) {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: the tests of real kills run by sudo");
        }
        let busy = if self.args.busy { Some(Busy::start()?) } else { None };
        let mut kills = workspace::cargo("test");
        kills.args(["--package", KILLS, "--no-fail-fast", "--"]).args(&self.args.filter);
        as_root(&mut kills, binary.as_ref());
        self.run("real OOM kills", &mut kills);
        for suite in suites.iter().filter(|suite| suite.package == KILLS) {
            self.suite(suite, binary.as_ref());
        }
        if let Some(busy) = busy {
            // If it failed, the tests did not run beside any load.
            self.stages.call("other people's cgroups and kills, to the end", || busy.end());
        }
        Ok(())
    }

    fn suite(&mut self, suite: &Suite, binary: Option<&PathBuf>) {
        let mut command = workspace::cargo("test");
        command.args(["--package", &suite.package, "--test", &suite.name, "--"]).args(self.args.options());
        as_root(&mut command, binary);
        self.run(&format!("suite {}", suite.name), &mut command);
    }

    fn run(&mut self, title: &str, command: &mut Command) {
        if self.args.name().is_some() {
            self.stages.call(title, || matching::run(command, &mut self.matching));
        } else {
            self.stages.run(title, command);
        }
    }
}

/// Runs the tests with this binary as root.
fn as_root(command: &mut Command, binary: Option<&PathBuf>) {
    let Some(binary) = binary else { return };
    command.env("TEST_OOMTRACE_BIN", binary);
    if !rustix::process::geteuid().is_root() {
        let runner = format!("CARGO_TARGET_{}_RUNNER", workspace::host().to_uppercase().replace('-', "_"));
        command.env(runner, "sudo --preserve-env=TEST_OOMTRACE_BIN");
    }
}

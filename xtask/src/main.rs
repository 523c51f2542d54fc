//! `cargo xtask`: all commands of this checkout, one file for each.
//!
//! Each command first installs what it needs, so no order has to be remembered.

mod bench;
mod build;
mod fuzz;
mod lint;
mod package;
mod page;
mod recipes;
mod report;
mod run;
mod setup;
mod soak;
mod stage;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, runs and tests oomtrace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
    Test(test::Args),
    Lint(lint::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Soak(soak::Args),
    Package(package::Args),
    Recipes(recipes::Args),
    Report(report::Args),
    /// Run the scenarios on other kernels, under emulation
    Vm(Box<vm::Args>),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args),
        Command::Vm(args) => return vm(&args),
        Command::Build(args) => build::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Lint(args) => lint::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Soak(args) => soak::main(&args),
        Command::Package(args) => package::main(&args),
        Command::Recipes(args) => recipes::main(&args),
        Command::Report(args) => report::main(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// If a guest fails, its exit code becomes the exit code of this command.
fn vm(args: &vm::Args) -> ExitCode {
    match vm::run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

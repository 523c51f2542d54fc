//! `cargo xtask`

mod vm;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Run the scenarios on other kernels, under emulation
    Vm(vm::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Vm(args) => vm::run(&args),
    }
}

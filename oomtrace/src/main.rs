//! The binary: parses the command line and returns an exit code.

use std::{io::Write, process::ExitCode};

use oomtrace::{cli::Command, commands, environment};

fn main() -> ExitCode {
    let cli = environment::parse();
    let done = match cli.command.unwrap_or(Command::Run(Box::new(cli.run))) {
        Command::Run(args) => commands::run::run(*args),
        Command::Log(args) => commands::log::log(&args),
        Command::Show(args) => commands::show::show(&args),
        Command::Explain(args) => commands::explain::explain(&args),
        Command::Report(args) => commands::report::report(&args),
        Command::Check(args) => commands::check::check(&args),
        Command::Containers(args) => commands::containers::containers(&args),
        Command::Simulate(args) => commands::simulate::simulate(&args),
        Command::Detach { dir } => commands::detach::detach(&dir),
        Command::Schema => commands::print::schema(),
        Command::Completions { shell } => commands::print::completions(shell),
        Command::Man { command } => commands::print::man(command.as_deref()),
        Command::Replay(args) => commands::replay::replay(&args),
        Command::ReadFiles => commands::read_files::read_files(),
        Command::SimulateVictim { bytes } => commands::simulate::victim(bytes),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ignored = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

//! Options by environment: `OOMTRACE_FILE_KEEP=9` is `--file-keep 9`. What is typed goes first.
//!
//! Each option of `run` has a variable of its name, so that a package's configuration is a file of variables
//! and nobody edits a unit. `detach` reads the variable of `--pin`, because it removes what that option leaves.

use std::env;

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, builder::FalseyValueParser};

use crate::cli::Cli;

/// What leaves a flag unset, as [`FalseyValueParser`] reads it.
const OFF: [&str; 6] = ["0", "f", "false", "n", "no", "off"];

/// What was typed and what the environment adds. Ends the process with an error or a help text, as clap does.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn command() -> Command {
    Cli::command()
        .mut_args(by_environment)
        .mut_subcommand("run", |run| run.mut_args(by_environment))
        .mut_subcommand("detach", |detach| detach.mut_arg("dir", |dir| named(dir, "OOMTRACE_PIN")))
}

/// The same option with a variable of its name. Options that no help shows have none.
fn by_environment(option: Arg) -> Arg {
    let Some(long) = option.get_long().filter(|_| !option.is_hide_set()) else { return option };
    let variable = format!("OOMTRACE_{}", long.to_uppercase().replace('-', "_"));
    if !matches!(option.get_action(), ArgAction::SetTrue) {
        return named(option, &variable);
    }
    // `1` and `yes` set a flag too. To clap, one that is set to `0` would conflict with others all the same.
    let is_off = env::var(&variable).is_ok_and(|value| OFF.contains(&value.to_lowercase().as_str()));
    if is_off { option } else { named(option.value_parser(FalseyValueParser::new()), &variable) }
}

/// An empty variable is no value: a configuration file may name it without setting it.
fn named(option: Arg, variable: &str) -> Arg {
    if env::var_os(variable).is_none_or(|value| value.is_empty()) {
        return option;
    }
    option.env(variable.to_owned()).hide_env(true)
}

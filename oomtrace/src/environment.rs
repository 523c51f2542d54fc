//! Options from the environment: `OOMTRACE_FILE_KEEP=9` is `--file-keep 9`. The command line has priority.
//!
//! Each option of `run` has a variable, so that a package can be configured with a file of variables and
//! without editing the unit. `detach` reads the variable of `--pin`, because it removes what that option
//! leaves.

use std::env;

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, builder::FalseyValueParser};

use crate::cli::Cli;

/// Values that leave a flag unset, as [`FalseyValueParser`] reads them.
const OFF: [&str; 6] = ["0", "f", "false", "n", "no", "off"];

/// Parses the command line and the environment. Ends the process with an error or a help text, as clap does.
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

/// Gives the option its variable. Options that the help does not show have none.
fn by_environment(option: Arg) -> Arg {
    let Some(long) = option.get_long().filter(|_| !option.is_hide_set()) else { return option };
    let variable = format!("OOMTRACE_{}", long.to_uppercase().replace('-', "_"));
    if !matches!(option.get_action(), ArgAction::SetTrue) {
        return named(option, &variable);
    }
    // `1` and `yes` set a flag too. A flag that is set to `0` must be removed, because clap would report
    // conflicts with it.
    let is_off = env::var(&variable).is_ok_and(|value| OFF.contains(&value.to_lowercase().as_str()));
    if is_off { option } else { named(option.value_parser(FalseyValueParser::new()), &variable) }
}

/// An empty variable is no value: a configuration file may contain it without setting it.
fn named(option: Arg, variable: &str) -> Arg {
    if env::var_os(variable).is_none_or(|value| value.is_empty()) {
        return option;
    }
    option.env(variable.to_owned()).hide_env(true)
}

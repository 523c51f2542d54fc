//! Options from the environment: `OOMTRACE_FILE_KEEP=9` is `--file-keep 9`. The command line has priority.
//!
//! Each option of `run` has a variable, so that a package can be configured with a file of variables and
//! without editing the unit. `detach` reads the variable of `--pin`, because it removes what that option
//! leaves.

use std::env;

use clap::{
    Arg, ArgAction, Command, CommandFactory, FromArgMatches,
    builder::FalseyValueParser,
    error::{ContextKind, ContextValue},
};

use crate::{cli::Cli, stderr::say};

/// Values that leave a flag unset, as [`FalseyValueParser`] reads them.
const OFF: [&str; 6] = ["0", "f", "false", "n", "no", "off"];

/// The most unknown variables that are named.
const UNKNOWN_MAX: usize = 8;

/// Parses the command line and the environment. Ends the process with an error or a help text, as clap does.
pub fn parse() -> Cli {
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let matches = command(&arguments).try_get_matches().unwrap_or_else(|error| end_with(&error, &arguments));
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn command(arguments: &[String]) -> Command {
    let command = Cli::command()
        .mut_subcommand("run", |run| run.mut_args(by_environment))
        .mut_subcommand("detach", |detach| detach.mut_arg("dir", |dir| named(dir, "OOMTRACE_PIN")));
    // Without a command it is `run`. Variables for `run` are not in the way of the other commands.
    let has_no_command = arguments.first().is_none_or(|first| first.starts_with('-'));
    if has_no_command || arguments.first().is_some_and(|first| first == "run") {
        say_unknown(&command);
    }
    if has_no_command { command.mut_args(by_environment) } else { command }
}

/// Names variables that are no option's: somebody mistyped them, and would miss what they should do.
fn say_unknown(command: &Command) {
    // The unit splits the options in this variable.
    let mut known = vec![String::from("OOMTRACE_ARGS")];
    known.extend(command.get_arguments().filter_map(variable_of));
    let named = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    // Kubernetes sets these for a Service whose name begins so.
    let of_a_service = |name: &str| {
        name.ends_with("_PORT")
            || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part))
    };
    let unknown =
        named.filter(|name| name.starts_with("OOMTRACE_") && !of_a_service(name) && !known.contains(name));
    for name in unknown.take(UNKNOWN_MAX) {
        say(&format!(
            "oomtrace: the environment variable {} is no option of `run`, and is ignored",
            name.escape_debug()
        ));
    }
}

/// Ends as clap does. If the wrong value is a variable's, the message names the variable.
fn end_with(error: &clap::Error, arguments: &[String]) -> ! {
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) => option.split(' ').next().unwrap_or_default(),
        _ => "",
    };
    let long = option.strip_prefix("--").unwrap_or_default();
    let short = if long == "output" { "-o" } else { option };
    let typed = arguments.iter().any(|argument| argument.starts_with(option) || argument.starts_with(short));
    let variable = variable(long);
    let set = env::var_os(&variable).is_some_and(|value| !value.is_empty());
    if error.use_stderr() && !long.is_empty() && !typed && set {
        say(&format!("oomtrace: the environment variable {variable} sets this option:"));
    }
    error.exit()
}

/// The variable of an option.
fn variable(long: &str) -> String {
    format!("OOMTRACE_{}", long.to_uppercase().replace('-', "_"))
}

/// The same; options that the help does not show have none.
fn variable_of(option: &Arg) -> Option<String> {
    option.get_long().filter(|_| !option.is_hide_set()).map(variable)
}

/// Gives the option its variable.
fn by_environment(option: Arg) -> Arg {
    let Some(variable) = variable_of(&option) else { return option };
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

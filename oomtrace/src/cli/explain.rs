//! What can be typed after `explain`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::cli::recorded::Taken;

const AFTER_HELP: &str = "The first word is a file if a file of that name is there. Else it is the number of a kill if it has only \
                          digits, and a name if not. --event and --container never mean a file, and ./42 never means a number.";

/// Options of `explain`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Explain {
    /// The kill with this number (`seq`); or the last one of this container, pod, unit or service, by its name. Without it, the last kill.
    #[arg(value_name = "SEQ|CONTAINER")]
    pub which: Option<OsString>,
    /// Files that `run` wrote, of one host or many, also rotated ones and ones compressed with gzip, or `-` for standard input. Without
    /// one: all `*.jsonl*` in /var/log/oomtrace.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The kill with this number.
    #[arg(long, value_name = "SEQ", conflicts_with = "last")]
    pub event: Option<u64>,
    /// The last kill that the filters take. This is the default.
    #[arg(long)]
    pub last: bool,
    /// Where the kill is looked for.
    #[command(flatten)]
    pub taken: Taken,
}

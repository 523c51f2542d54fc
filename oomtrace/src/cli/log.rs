//! Options of `oomtrace log`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Filters, Output};

/// Options of `log`.
#[derive(Args, Debug)]
pub struct Log {
    /// Saved logs, or `-` for standard input: what `dmesg` or `journalctl -k` wrote (also with `-o export` or `-o json`), or a log
    /// daemon's kern.log. Files compressed with gzip are expanded. Without it:
    /// this host's log, as far back as it reaches.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to write events [default: text on a terminal, json elsewhere].
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Which kills are printed.
    #[command(flatten)]
    pub filters: Filters,
}

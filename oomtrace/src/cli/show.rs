//! What can be typed after `show`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Filters, Output, values};

/// Options of `show`.
#[derive(Args, Debug)]
pub struct Show {
    /// Files that `run` wrote, also rotated ones and ones compressed with gzip, or `-` for standard input. They are shown in the order
    /// of their first lines.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// How to write the events. `json` writes the lines as they are.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Show only events from this time on: `2026-11-21T03:00:00Z`, or so long ago: `2h`.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub since: Option<values::Moment>,
    /// Show only events before this time.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub until: Option<values::Moment>,
    /// Which events are shown.
    #[command(flatten)]
    pub filters: Filters,
}

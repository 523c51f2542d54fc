//! Which recorded lines a command reads.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Filters, values};

/// Options of `show` and `report`.
#[derive(Args, Debug)]
pub struct RecordedLines {
    /// Files that `run` wrote, of one host or many, also rotated ones and ones compressed with gzip, or `-` for standard input. They are
    /// read in the order of their first lines.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Which of the lines.
    #[command(flatten)]
    pub taken: Taken,
}

/// Which lines are taken.
#[derive(Args, Debug)]
pub struct Taken {
    /// Take only events from this time on: `2026-11-21T03:00:00Z`, or so long ago: `2h`.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub since: Option<values::Moment>,
    /// Take only events before this time.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub until: Option<values::Moment>,
    /// Which events are taken.
    #[command(flatten)]
    pub filters: Filters,
}

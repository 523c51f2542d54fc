//! What can be typed after `report`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Filters, values};

/// Options of `report`.
#[derive(Args, Debug)]
pub struct Report {
    /// Files that `run` wrote, of one host or many, also rotated ones and ones compressed with gzip, or `-` for standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Write one HTML page to this file instead of text to standard output. The page needs no network.
    #[arg(long, value_name = "PATH")]
    pub html: Option<PathBuf>,
    /// How many entries of each list are named. The rest is counted.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub most: u32,
    /// Count only events from this time on: `2026-11-21T03:00:00Z`, or so long ago: `7d`.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub since: Option<values::Moment>,
    /// Count only events before this time.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub until: Option<values::Moment>,
    /// Which events are counted.
    #[command(flatten)]
    pub filters: Filters,
}

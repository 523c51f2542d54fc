//! What can be typed after `report`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::RecordedLines;

/// Options of `report`.
#[derive(Args, Debug)]
pub struct Report {
    /// Write one HTML page to this file instead of text to standard output. The page needs no network.
    #[arg(long, value_name = "PATH")]
    pub html: Option<PathBuf>,
    /// How many entries of each list are named. The rest is counted.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub most: u32,
    /// What is counted.
    #[command(flatten)]
    pub lines: RecordedLines,
}

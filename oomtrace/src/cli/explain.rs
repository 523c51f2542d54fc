//! What can be typed after `explain`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Filters, values};

/// Options of `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// Files that `run` wrote, also rotated ones and ones compressed with gzip, or `-` for standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Explain the kill with this number (`seq`). Without it, the last kill that the filters take.
    #[arg(long, value_name = "SEQ")]
    pub event: Option<u64>,
    /// Look only at events from this time on: `2026-11-21T03:00:00Z`, or so long ago: `2h`.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub since: Option<values::Moment>,
    /// Look only at events before this time.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub until: Option<values::Moment>,
    /// Which kill is explained.
    #[command(flatten)]
    pub filters: Filters,
}

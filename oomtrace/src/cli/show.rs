//! What can be typed after `show`.

use clap::Args;

use crate::cli::{Output, RecordedLines};

/// Options of `show`.
#[derive(Args, Debug)]
pub struct Show {
    /// How to write the events. `json` writes the lines as they are.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// What is shown.
    #[command(flatten)]
    pub lines: RecordedLines,
}

//! What can be typed after `explain`.

use clap::Args;

use crate::cli::RecordedLines;

/// Options of `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// Explain the kill with this number (`seq`). Without it, the last kill that the filters take.
    #[arg(long, value_name = "SEQ")]
    pub event: Option<u64>,
    /// Where the kill is looked for.
    #[command(flatten)]
    pub lines: RecordedLines,
}

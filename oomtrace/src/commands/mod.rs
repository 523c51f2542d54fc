//! The commands, one file for each.

pub mod check;
pub mod containers;
pub mod detach;
pub mod explain;
pub mod log;
pub mod print;
pub mod read_files;
mod recorded;
pub mod replay;
pub mod report;
pub mod run;
pub mod show;
pub mod simulate;

use std::io::IsTerminal;

use crate::{
    cli::Output,
    outputs::encode::{Render, text::Palette},
};

/// How to write: as the operator asked, else text on a terminal and JSON elsewhere.
fn render(output: Option<Output>, terminal: bool) -> Render {
    match output.unwrap_or(if terminal { Output::Text } else { Output::Json }) {
        Output::Json => Render::Json,
        Output::Ecs => Render::Ecs,
        Output::Text => {
            // https://no-color.org: the variable must be set and not empty.
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Render::Text(if terminal && !plain { Palette::coloured() } else { Palette::default() })
        }
    }
}

/// Whether standard output is a terminal.
fn terminal() -> bool {
    std::io::stdout().is_terminal()
}

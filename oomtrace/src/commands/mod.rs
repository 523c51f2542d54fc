//! One file a command.

pub mod check;
pub mod containers;
pub mod detach;
pub mod print;
mod reconciliation;
pub mod replay;
pub mod run;
mod session;
pub mod simulate;

use std::io::IsTerminal;

use crate::{
    cli::Output,
    render::{Render, text::Palette},
};

/// How to write to where it goes.
fn render(output: Output, terminal: bool) -> Render {
    match output {
        Output::Json => Render::Json,
        Output::Text => {
            // https://no-color.org: set and not empty.
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Render::Text(if terminal && !plain { Palette::coloured() } else { Palette::default() })
        }
    }
}

/// Whether standard output is a terminal.
fn terminal() -> bool {
    std::io::stdout().is_terminal()
}

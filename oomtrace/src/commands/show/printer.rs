//! Lines to standard output: as they are, or as text.

use std::io::{self, BufWriter, Stdout, Write};

use crate::{event::Event, outputs::encode::Render, recorded::Recorded};

/// Why no more is shown.
pub(super) enum Ended {
    /// Nobody reads standard output any more.
    Closed,
    /// Standard output takes nothing.
    Output(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Output(error),
        }
    }
}

/// Standard output.
pub(super) struct Printer {
    out: BufWriter<Stdout>,
    render: Render,
    /// Whether a reader waits for each line.
    live: bool,
    line: Vec<u8>,
    /// The host of the latest line.
    host: Option<String>,
}

impl Printer {
    pub(super) fn new(render: Render, live: bool) -> Self {
        let out = BufWriter::with_capacity(64 << 10, io::stdout());
        Self { out, render, live, line: Vec::new(), host: None }
    }

    /// Whether lines are written as they are.
    pub(super) fn passes_lines(&self) -> bool {
        matches!(self.render, Render::Json)
    }

    pub(super) fn print(&mut self, line: &Recorded<'_>, event: Option<&Event>) -> Result<(), Ended> {
        let is_text = matches!(self.render, Render::Text(_));
        if is_text {
            self.name_host(line)?;
        }
        match event {
            _ if self.passes_lines() => {
                self.out.write_all(line.text.as_bytes())?;
                self.out.write_all(b"\n")?;
            }
            Some(event) => {
                self.render.line(event, &mut self.line).map_err(io::Error::from)?;
                self.out.write_all(&self.line)?;
            }
            None if is_text => {
                // Of another version: every line says itself in words, and a terminal must not obey them.
                let text = format!("{} {}", line.head.time, line.head.message);
                writeln!(self.out, "{}", text.replace(char::is_control, "\u{fffd}"))?;
            }
            // There is nothing that it could be mapped to.
            None => {}
        }
        if self.live { self.flush() } else { Ok(()) }
    }

    /// A remark where the lines of another host begin.
    fn name_host(&mut self, line: &Recorded<'_>) -> Result<(), Ended> {
        let Some(name) = &line.head.host.name else { return Ok(()) };
        if self.host.as_deref() == Some(&**name) {
            return Ok(());
        }
        if let Some(before) = self.host.replace(name.clone().into_owned()) {
            writeln!(self.out, "-- host {:?}, before: {before:?}", &**name)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Ended> {
        Ok(self.out.flush()?)
    }
}

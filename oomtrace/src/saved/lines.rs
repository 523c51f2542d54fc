//! Lines of a file, with a bound on each.

use std::io::{self, BufRead, Read as _};

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A line.
    Line,
    /// The beginning of a line that is longer than the bound. The rest was skipped.
    Long,
    /// Nothing: the file has ended.
    End,
}

/// Reads lines.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    most: usize,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads at most `most` bytes of each line.
    pub fn new(input: R, most: usize) -> Self {
        Self { input, most, line: Vec::new(), number: 0 }
    }

    /// Reads the next line.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn advance(&mut self) -> io::Result<Read> {
        self.line.clear();
        let read = (&mut self.input).take(self.most as u64).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(Read::End);
        }
        self.number += 1;
        let mut found = Read::Line;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read == self.most {
            found = Read::Long;
            self.skip_line()?;
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(found)
    }

    /// The line that was read, without its end.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Its number; the first is 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What follows the line.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let room = self.input.fill_buf()?;
            let (used, done) = match room.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (room.len(), room.is_empty()),
            };
            self.input.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

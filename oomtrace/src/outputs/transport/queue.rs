//! Lines that an output has not taken yet.

use rustix::io::Errno;

/// How much is kept. Some sixty kills: what is told of the run itself must fit beside the one kill that waits.
const QUEUE_BYTES: usize = 64 << 10;

/// What a queue writes to.
pub(super) trait Outlet {
    /// Called before the first byte of a line goes out.
    ///
    /// # Errors
    /// There is nothing that the line could go to.
    fn before_line(&mut self, bytes: usize) -> Result<(), Errno>;

    /// One `write(2)` that does not wait.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno>;

    /// Takes back the `written` first bytes of a line. False if that cannot be done.
    fn take_back(&mut self, written: usize) -> bool;
}

/// Whole lines, oldest first; of the first, the output may have the beginning.
#[derive(Debug)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// Bytes of the first line.
    first: usize,
    written: usize,
    refused: Option<Errno>,
}

impl Default for Queue {
    fn default() -> Self {
        // Taken now, it never grows.
        Self { bytes: Vec::with_capacity(QUEUE_BYTES), first: 0, written: 0, refused: None }
    }
}

impl Queue {
    /// Takes a line, and writes it if it can.
    ///
    /// # Errors
    /// Why the output takes nothing. The line was not taken, as the queue is full.
    pub(super) fn push(&mut self, line: &[u8], out: &mut impl Outlet) -> Result<(), Errno> {
        if !self.fits(line) {
            self.flush(out)?;
        }
        if !self.fits(line) {
            return Err(Errno::FBIG);
        }
        if self.bytes.is_empty() {
            self.first = line.len();
        }
        self.bytes.extend_from_slice(line);
        // It is kept: whoever asks for the reason flushes again.
        let _kept = self.flush(out);
        Ok(())
    }

    fn fits(&self, line: &[u8]) -> bool {
        self.bytes.len() + line.len() <= QUEUE_BYTES
    }

    /// Writes all lines.
    pub(super) fn flush(&mut self, out: &mut impl Outlet) -> Result<(), Errno> {
        let result = self.write_all(out);
        self.refused = result.err();
        result
    }

    fn write_all(&mut self, out: &mut impl Outlet) -> Result<(), Errno> {
        while !self.bytes.is_empty() {
            let len = self.first;
            if self.written == 0 {
                out.before_line(len)?;
            }
            let rest = self.bytes.get(self.written..len).unwrap_or_default();
            match write(out, rest) {
                Ok(count) => self.written += count,
                Err(errno) => {
                    // Whoever reads the output meanwhile finds no half of a line.
                    if self.written > 0 && out.take_back(self.written) {
                        self.written = 0;
                    }
                    return Err(errno);
                }
            }
            if self.written >= len {
                self.bytes.drain(..len);
                self.first = self.bytes.split_inclusive(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
                self.written = 0;
            }
        }
        Ok(())
    }

    /// Why the output did not take the first line.
    pub(super) fn refused(&self) -> Option<Errno> {
        self.refused.filter(|_| !self.bytes.is_empty())
    }

    /// How many lines are kept.
    pub(super) fn lines(&self) -> usize {
        self.bytes.split_inclusive(|byte| *byte == b'\n').count()
    }

    /// The output is another one: what is kept goes there, and whole.
    pub(super) fn start_over(&mut self) {
        self.written = 0;
    }
}

fn write(out: &mut impl Outlet, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match out.write(bytes) {
            // Only a device that refuses without an error does that; to ask again would be without end.
            Ok(0) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

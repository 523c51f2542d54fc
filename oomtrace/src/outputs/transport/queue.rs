//! Lines that an output has not taken yet.

use rustix::io::Errno;

/// The size of the queue, about sixty kills. Lines about the run itself must fit beside the one kill that
/// waits.
const QUEUE_BYTES: usize = 64 << 10;

/// What a queue writes to.
pub(super) trait Outlet {
    /// Called before the first byte of a line is written.
    ///
    /// # Errors
    /// If there is no file for the line.
    fn before_line(&mut self, bytes: usize) -> Result<(), Errno>;

    /// One `write(2)` that does not wait.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno>;

    /// Takes back the first `written` bytes of a line. Returns false if that is not possible.
    fn take_back(&mut self, written: usize) -> bool;
}

/// Complete lines, the oldest first. The output may already have the beginning of the first one.
#[derive(Debug)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// The size of the first line.
    first: usize,
    written: usize,
    refused: Option<Errno>,
}

impl Default for Queue {
    fn default() -> Self {
        // Allocated once, it never grows.
        Self { bytes: Vec::with_capacity(QUEUE_BYTES), first: 0, written: 0, refused: None }
    }
}

impl Queue {
    /// Takes a line, and writes it if possible.
    ///
    /// # Errors
    /// Why the output takes no lines. The line was not taken, because the queue is full.
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
        // The line is kept, and the next flush reports the reason.
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
                    // A reader of the output must not find half a line meanwhile.
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

    /// The output was replaced: kept lines are written to the new one, complete.
    pub(super) fn start_over(&mut self) {
        self.written = 0;
    }
}

fn write(out: &mut impl Outlet, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match out.write(bytes) {
            // Only a device that refuses without an error does this. Trying again would never end.
            Ok(0) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

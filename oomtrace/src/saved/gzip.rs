//! A gzip file as its text, with a bound on how much a little of it may become.

use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;

/// A log becomes 10 to 100 times as large. Deflate allows 1032.
const MOST_TIMES: u64 = 500;
/// So much may come of anything.
const ALWAYS: u64 = 16 << 20;

/// Expands a gzip file while it is read.
pub struct Expanding<R> {
    decoder: MultiGzDecoder<Counted<R>>,
    read: Rc<Cell<u64>>,
    expanded: u64,
}

impl<R: BufRead> Expanding<R> {
    /// Expands this.
    pub fn new(input: R) -> Self {
        let read = Rc::new(Cell::new(0));
        let counted = Counted { input, read: Rc::clone(&read) };
        Self { decoder: MultiGzDecoder::new(counted), read, expanded: 0 }
    }
}

impl<R: BufRead> Read for Expanding<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.decoder.read(buffer)?;
        self.expanded = self.expanded.saturating_add(len as u64);
        if self.expanded > ALWAYS && self.expanded / MOST_TIMES > self.read.get() {
            let why = format!("the compressed file becomes over {MOST_TIMES} times as large, as no log does");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(len)
    }
}

/// Counts what is read.
struct Counted<R> {
    input: R,
    read: Rc<Cell<u64>>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.read.set(self.read.get() + len as u64);
        Ok(len)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, len: usize) {
        self.read.set(self.read.get() + len as u64);
        self.input.consume(len);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_file_of_several_parts_is_read_whole() {
        let mut file = compressed(b"one\n");
        file.extend(compressed(b"two\n"));
        let mut text = String::new();
        Expanding::new(file.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_little_does_not_become_anything() {
        let bomb = compressed(&vec![b'a'; 64 << 20]);
        let mut expanding = Expanding::new(bomb.as_slice());
        let error = io::copy(&mut expanding, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("500 times"), "{error}");
        let small = compressed(&vec![b'a'; 16 << 20]);
        assert_eq!(io::copy(&mut Expanding::new(small.as_slice()), &mut io::sink()).unwrap(), 16 << 20);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let file = compressed(b"one\ntwo\n");
        let cut = file.get(..file.len() - 9).unwrap();
        assert!(io::copy(&mut Expanding::new(cut), &mut io::sink()).is_err());
    }
}

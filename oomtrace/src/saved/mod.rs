//! Files that were saved, perhaps compressed: opened, and read line by line with a bound on each.

mod gzip;
mod lines;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

pub use gzip::Expanding;
pub use lines::{Lines, Read};

/// What a message calls the file that [`open`] opens.
pub fn name(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() }
}

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Opens a file, or standard input for `-`. One that begins as gzip does is expanded while it is read.
///
/// # Errors
/// If it cannot be opened or read.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return expanded(BufReader::with_capacity(READ_BYTES, io::stdin()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    expanded(BufReader::with_capacity(READ_BYTES, file))
}

/// The text of what `input` holds, which may be compressed.
///
/// # Errors
/// If it cannot be read.
pub fn expanded(mut input: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    if input.fill_buf()?.starts_with(&MAGIC) {
        return Ok(Box::new(BufReader::with_capacity(READ_BYTES, Expanding::new(input))));
    }
    Ok(Box::new(input))
}

//! Fields of `/proc/PID/stat` and `/proc/PID/status`. Reading these files takes no lock of the process's memory.

use std::{fs::File, io::Read, path::Path};

/// A `stat` file. A name can contain anything, also `) `.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat<'a> {
    pub(crate) comm: &'a [u8],
    /// What is behind the name.
    after: &'a str,
}

impl<'a> Stat<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let comm = text.get(open + 1..close)?;
        Some(Self { comm, after: str::from_utf8(text.get(close + 1..)?).ok()? })
    }

    /// A field by its number in proc(5): the state is 3, the first behind the name.
    pub(crate) fn field(&self, number: usize) -> Option<&'a str> {
        self.after.split_ascii_whitespace().nth(number.checked_sub(3)?)
    }

    /// When it started, in ticks since boot.
    pub(crate) fn start_ticks(&self) -> Option<u64> {
        self.field(22)?.parse().ok()
    }
}

/// The words behind this name in a `status` file, such as `Uid:`. A line break in a name is escaped there.
pub(crate) fn status_words<'a>(status: &'a [u8], name: &[u8]) -> Vec<&'a [u8]> {
    let words = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
    words.unwrap_or_default().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect()
}

/// The first `most` bytes of a file.
pub(crate) fn beginning(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut text).ok()?;
    Some(text)
}

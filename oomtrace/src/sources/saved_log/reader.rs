//! Reads the entries of a saved log, each of bounded size: lines of text or JSON, and fields of a journal
//! export.

use std::{
    borrow::Cow,
    io::{self, BufRead, Read},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    facts::kernel_log::saved::{Prefixes, SavedLine, Stamp},
    recorded,
    saved::{self, Lines},
};

/// The most bytes that are read of a line. The OOM killer's lines have less than 12 KiB.
const LINE_BYTES: usize = 256 << 10;

/// What was not understood in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Lines and journal entries of an unknown format.
    pub unknown: u64,
    /// The line number of the first of them.
    pub first_unknown: Option<u64>,
    /// Lines that are longer than what is read of a line.
    pub long: u64,
    /// Some are lines that `oomtrace run` wrote.
    pub recorded: bool,
}

/// What was read from the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A line of a log, or an entry of a journal.
    Line {
        /// Its content.
        line: SavedLine<'a>,
        /// Names the host's boot.
        boot_id: Option<String>,
    },
    /// A line without a prefix: the text after a newline in the line before, if that line was torn.
    Rest(&'a [u8]),
    /// A line without content.
    Nothing,
}

/// Reads entries.
#[derive(Debug)]
pub struct Reader<R> {
    lines: Lines<R>,
    prefixes: Prefixes,
    /// Whether this is a journal export. The first line that is not empty decides.
    export: Option<bool>,
    /// What was not understood so far.
    pub unread: Unread,
}

/// The fields of a journal entry that are needed.
#[derive(Debug, Default, Deserialize)]
struct Fields {
    #[serde(rename = "MESSAGE")]
    message: Option<Value>,
    #[serde(rename = "_TRANSPORT")]
    transport: Option<String>,
    #[serde(rename = "_HOSTNAME")]
    host: Option<String>,
    #[serde(rename = "_BOOT_ID")]
    boot_id: Option<String>,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime: Option<String>,
    #[serde(skip)]
    text: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Reads a log that was written before `now`, nanoseconds since 1970.
    pub fn new(input: R, now: i128) -> Self {
        let (lines, unread) = (Lines::new(input, LINE_BYTES), Unread::default());
        Self { lines, prefixes: Prefixes::new(now), export: None, unread }
    }

    /// The next entry; `None` at the end.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry<'_>>> {
        if !self.read_line()? {
            return Ok(None);
        }
        let begin = self.lines.line();
        if begin.is_empty() {
            return Ok(Some(Entry::Nothing));
        }
        // Only the journal's own fields start like this, and they come first in an entry.
        if *self.export.get_or_insert_with(|| begin.starts_with(b"__") && begin.contains(&b'=')) {
            return self.exported().map(Some);
        }
        let (line, number) = (self.lines.line(), self.lines.number());
        if line.starts_with(b"{") {
            let entry = serde_json::from_slice(line).ok().and_then(entry);
            self.unread.recorded |= entry.is_none() && line.starts_with(recorded::BEGINS);
            return Ok(Some(entry.unwrap_or_else(|| self.unread.unknown(number))));
        }
        if let Some(line) = self.prefixes.parse(line) {
            return Ok(Some(Entry::Line { line, boot_id: None }));
        }
        // The further lines of a record are indented in each format. Remarks of the journal start with dashes.
        if !line.starts_with(b" ") && !line.starts_with(b"-- ") {
            self.unread.unknown(number);
        }
        Ok(Some(Entry::Rest(line)))
    }

    /// Reads a line. False at the end of the input.
    fn read_line(&mut self) -> io::Result<bool> {
        let read = self.lines.advance()?;
        self.unread.long += u64::from(read == saved::Read::Long);
        Ok(read != saved::Read::End)
    }

    /// Reads the rest of an entry whose first field was read.
    fn exported(&mut self) -> io::Result<Entry<'static>> {
        let (mut fields, first) = (Fields::default(), self.lines.number());
        loop {
            let line = self.lines.line();
            if line.is_empty() {
                break;
            }
            match line.iter().position(|byte| *byte == b'=') {
                Some(end) => {
                    let (name, value) = line.split_at_checked(end).unwrap_or_default();
                    fields.set(name, value.get(1..).unwrap_or_default());
                }
                None => self.binary_field(&mut fields)?,
            }
            if !self.read_line()? {
                break;
            }
        }
        Ok(entry(fields).unwrap_or_else(|| self.unread.unknown(first)))
    }

    /// Reads a field whose name was read: its length, its bytes and a newline.
    fn binary_field(&mut self, fields: &mut Fields) -> io::Result<()> {
        let name = self.lines.line().to_vec();
        let mut len = [0; 8];
        let is_name = !name.is_empty()
            && name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
        if !is_name {
            self.unread.unknown(self.lines.number());
            return Ok(());
        }
        // The file may end anywhere.
        let (input, mut value) = (self.lines.input(), Vec::new());
        if input.by_ref().take(8).read_to_end(&mut value)? == 8 {
            len.copy_from_slice(&value);
        }
        let len = u64::from_le_bytes(len);
        value.clear();
        let kept = len.min(LINE_BYTES as u64);
        input.by_ref().take(kept).read_to_end(&mut value)?;
        if kept < len {
            self.unread.long += 1;
            io::copy(&mut input.by_ref().take(len - kept), &mut io::sink())?;
        }
        fields.set(&name, &value);
        // The newline after the field.
        input.by_ref().take(1).read_to_end(&mut value)?;
        Ok(())
    }
}

impl Unread {
    fn unknown(&mut self, number: u64) -> Entry<'static> {
        self.unknown += 1;
        self.first_unknown.get_or_insert(number);
        Entry::Nothing
    }
}

impl Fields {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match name {
            b"MESSAGE" => self.text = Some(value.to_vec()),
            b"_TRANSPORT" => self.transport = text(),
            b"_HOSTNAME" => self.host = text(),
            b"_BOOT_ID" => self.boot_id = text(),
            b"__REALTIME_TIMESTAMP" => self.realtime = text(),
            _ => {}
        }
    }
}

/// Turns the fields of a journal entry into an entry. Only journald can write a field whose name starts with
/// `_`.
fn entry(fields: Fields) -> Option<Entry<'static>> {
    let Fields { message, transport, host, boot_id, realtime, text } = fields;
    let is_kernel = transport.as_deref() == Some("kernel");
    let text = text.or_else(|| match message? {
        Value::String(text) => Some(text.into_bytes()),
        // A text that cannot be printed.
        Value::Array(bytes) => bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
        _ => None,
    });
    let Some(text) = text else {
        // Entries of other writers may have no text.
        return (transport.is_some() && !is_kernel).then_some(Entry::Nothing);
    };
    let stamp = Stamp::Utc(i128::from(realtime?.parse::<u64>().ok()?) * 1000);
    let (host, text) = (host.map(Cow::Owned), Cow::Owned(text));
    let line = SavedLine { stamp, host, is_kernel, continues: false, text };
    Some(Entry::Line { line, boot_id: boot_id.as_deref().and_then(with_dashes) })
}

/// A boot id as the kernel writes it. The journal writes it without dashes.
fn with_dashes(boot_id: &str) -> Option<String> {
    if boot_id.len() != 32 || !boot_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut rest = boot_id;
    let mut parts = Vec::with_capacity(5);
    for len in [8, 4, 4, 4] {
        let (part, behind) = rest.split_at_checked(len)?;
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    Some(parts.join("-"))
}

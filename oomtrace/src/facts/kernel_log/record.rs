//! The frame of a record of `/dev/kmsg`: `prefix;text`, a newline, and ` KEY=value` lines, which are ignored.
//! See `Documentation/ABI/testing/dev-kmsg`.

use std::borrow::Cow;

/// The prefix of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// Number of the record since boot.
    pub seq: u64,
    /// The time, µs of the log's clock: close to `CLOCK_MONOTONIC`, with a difference of about 1 ms.
    pub time_us: u64,
    /// The writer: 0 is the kernel, and user space cannot use 0.
    pub facility: u32,
    /// `KERN_ERR` is 3, `KERN_INFO` is 6.
    pub level: u8,
    /// A fragment of a line that an earlier record began.
    pub continues: bool,
    /// The context that wrote it, if the kernel was built with `CONFIG_PRINTK_CALLER`.
    pub caller: Option<Caller>,
}

impl RecordMeta {
    /// Whether the kernel wrote it.
    pub fn is_kernel(&self) -> bool {
        self.facility == 0
    }
}

/// The context that wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A thread.
    Task(u32),
    /// An interrupt on this CPU.
    Cpu(u32),
}

/// Splits a record. The text is what the kernel's code wrote, any bytes.
pub(crate) fn parse(raw: &[u8]) -> Option<(RecordMeta, Cow<'_, [u8]>)> {
    let semicolon = raw.iter().position(|byte| *byte == b';')?;
    let prefix = str::from_utf8(raw.get(..semicolon)?).ok()?;
    let rest = raw.get(semicolon + 1..)?;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let text = rest.get(..end)?;

    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    let time_us = fields.next()?.parse().ok()?;
    let continues = fields.next()?.starts_with('c');
    // Unknown fields of later kernels are ignored.
    let caller = fields.find_map(|field| {
        let caller = field.strip_prefix("caller=")?;
        match caller.split_at_checked(1)? {
            ("T", id) => Some(Caller::Task(id.parse().ok()?)),
            ("C", cpu) => Some(Caller::Cpu(cpu.parse().ok()?)),
            _ => None,
        }
    });
    let level = u8::try_from(priority & 7).ok()?;
    Some((RecordMeta { seq, time_us, facility: priority >> 3, level, continues, caller }, unescape(text)))
}

/// Undoes `\xNN`. The kernel writes control characters, bytes above 126 and the backslash like this.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [b'x', high, low, after @ ..] if *first == b'\\' => {
                nibble(*high).zip(nibble(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, after));
        plain.push(byte);
        rest = after;
    }
    Cow::Owned(plain)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

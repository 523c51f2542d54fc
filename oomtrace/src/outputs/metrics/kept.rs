//! Stores counters as bytes for the next run (`--pin`), in places of a fixed size.
//!
//! The stored bytes may be from another version, so a value is used only if it can be read completely.

/// The size of a place: the longest labels and the counters.
pub const BYTES: usize = 704;

/// What one place holds.
pub type Value = [u8; BYTES];

/// Keeps counters for the next run.
pub trait Store {
    /// The number of places.
    fn places(&self) -> usize;

    /// The content of a place; zeros if nothing was kept.
    fn get(&self, place: usize) -> Option<Value>;

    /// Keeps a value, in one system call, which a SIGKILL cannot interrupt.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn put(&mut self, place: usize, value: &Value) -> Result<(), String>;
}

/// Writes the parts of a value.
pub(super) struct Packer {
    value: Value,
    at: usize,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self { value: [0; BYTES], at: 0 }
    }

    pub(super) fn numbers(&mut self, numbers: &[u64]) -> &mut Self {
        numbers.iter().for_each(|number| self.bytes(&number.to_le_bytes()));
        self
    }

    /// At most 255 bytes are written.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        let bytes = text.as_bytes();
        let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        self.bytes(&[len]);
        self.bytes(bytes.get(..usize::from(len)).unwrap_or_default());
        self
    }

    pub(super) fn done(&self) -> Value {
        self.value
    }

    /// What does not fit is left out. No caller writes that much.
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(room) = self.value.get_mut(self.at..self.at + bytes.len()) {
            room.copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }
}

/// Reads the parts of a value.
pub(super) struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        Self(value)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(super) fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Some(numbers)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let (len, rest) = self.0.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*len))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

//! Counters as bytes, for the store that the next run finds (`--pin`): fixed places, each of a fixed size.
//!
//! What comes back is of an earlier run, perhaps of another version: nothing is taken that does not read as a whole.

/// Bytes of a place: the longest labels and what is counted.
pub const BYTES: usize = 672;

/// What one place holds.
pub type Value = [u8; BYTES];

/// Where counters are kept over runs.
pub trait Store {
    /// How many places it has.
    fn places(&self) -> usize;

    /// What a place holds; zeros where nothing was kept.
    fn get(&self, place: usize) -> Option<Value>;

    /// Keeps a value: one system call, which no SIGKILL divides.
    ///
    /// # Errors
    /// Why it is not kept.
    fn put(&mut self, place: usize, value: &Value) -> Result<(), String>;
}

/// Writes a value from its start.
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

    /// At most 255 bytes of it.
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

    /// What has no room is left out: no caller has as much.
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(room) = self.value.get_mut(self.at..self.at + bytes.len()) {
            room.copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }
}

/// Reads a value from its start.
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

//! Makes inputs from a corpus: the same seed gives the same inputs on every machine.

/// Numbers that look random (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Different numbers for each pair of seed and batch.
    pub fn new(seed: u64, batch: u64) -> Self {
        let mixed = seed ^ batch.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = Self(mixed | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from((self.next() >> 16) % end).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }
}

/// The longest input.
const LONGEST: usize = 64 << 10;

/// Bytes that often break parsers.
const ODD: [u8; 16] =
    [0, 1, 0x7f, 0x80, 0xff, b'\n', b'/', b',', b'"', b'\\', b'{', b'}', b'[', b'=', b'-', b' '];

/// Pieces of many formats, and numbers at limits.
const PIECES: [&[u8]; 24] = [
    b"18446744073709551615",
    b"-9223372036854775808",
    b"99999999999999999999999",
    b"\\x00",
    b"\\x2d",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\0",
    b"\xe2\x80\xa6",
    b"\xed\xa0\x80",
    b",task_memcg=/",
    b",task=",
    b",pid=1,uid=0",
    b",oom_memcg=/",
    b": Killed process 1 (",
    b") total-vm:",
    b"kB, anon-rss:",
    b".scope",
    b"/docker-",
    b"/../",
    b"//",
    b"null",
    b"{\"a\":[",
    b"\"\"",
];

/// An input of the corpus, changed in a few places.
pub fn input(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    let mut bytes = pick(random);
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        let len = random.below(32).min(bytes.len() - at);
        match random.below(9) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.byte();
                }
            }
            2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = ODD.get(random.below(ODD.len())).copied().unwrap_or_default();
                }
            }
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let again = bytes.get(at..at + len).unwrap_or_default().to_vec();
                insert(&mut bytes, at, &again);
            }
            5 => insert(&mut bytes, at, PIECES.get(random.below(PIECES.len())).copied().unwrap_or_default()),
            6 => {
                let noise: Vec<u8> = (0..len).map(|_| random.byte()).collect();
                insert(&mut bytes, at, &noise);
            }
            7 => bytes.truncate(at),
            _ => {
                let other = pick(random);
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

//! The requests to a reader process and its answers, as bytes, and the loop of the reader.
//!
//! ```text
//! length (4 bytes)  kind (1)  number (8)  base  below  name, each after its length (4)
//! length (4 bytes)  outcome (1)  what it carries
//! ```

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use crate::host::files::{Dir, FileError, Stamp, of_process};

/// The kernel takes no longer paths.
const REQUEST_MAX: u32 = 3 * 4096 + 64;

/// What is asked about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether it exists.
    Find,
    /// Its content.
    Read,
    /// The names in a directory.
    List,
    /// Its version.
    Stamp,
    /// The content of a process's file: `base` is the process's directory in `/proc`.
    OfProcess,
}

const KINDS: [Kind; 5] = [Kind::Find, Kind::Read, Kind::List, Kind::Stamp, Kind::OfProcess];

/// A request about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// The most bytes, or names, that are read.
    pub(super) max: u64,
    pub(super) dir: Dir,
    pub(super) name: PathBuf,
}

impl Request {
    /// Reads the file in this process.
    pub(super) fn answer(&self) -> Result<Vec<u8>, FileError> {
        match self.kind {
            Kind::Find => self.dir.find(&self.name).map(|()| Vec::new()),
            Kind::Read => self.dir.read(&self.name, self.max),
            Kind::List => {
                let max = usize::try_from(self.max).unwrap_or(usize::MAX);
                Ok(self.dir.list(&self.name, max)?.join("\n").into_bytes())
            }
            Kind::Stamp => Ok(self.dir.stamp(&self.name)?.to_bytes()),
            Kind::OfProcess => of_process(&self.dir.base, self.name.as_os_str(), self.max),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.push(
            KINDS
                .iter()
                .position(|kind| *kind == self.kind)
                .and_then(|at| u8::try_from(at).ok())
                .unwrap_or(0),
        );
        bytes.push(self.dir.foreign.into());
        bytes.extend(self.max.to_le_bytes());
        for text in [self.dir.base.as_os_str(), self.dir.below.as_os_str(), self.name.as_os_str()] {
            bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        framed(bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let kind = *KINDS.get(usize::from(*rest.split_off_first()?))?;
        let foreign = *rest.split_off_first()? != 0;
        let max = u64::from_le_bytes(rest.split_off(..8)?.try_into().ok()?);
        let mut path = || {
            let len = u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?);
            let bytes = rest.split_off(..usize::try_from(len).ok()?)?;
            Some(PathBuf::from(OsString::from_vec(bytes.to_vec())))
        };
        let (base, below, name) = (path()?, path()?, path()?);
        rest.is_empty().then_some(Self { kind, max, dir: Dir { base, below, foreign }, name })
    }
}

impl Stamp {
    fn to_bytes(self) -> Vec<u8> {
        let Self { file: (device, inode), bytes, written_ns, changed_ns } = self;
        let numbers = [device.into(), inode.into(), bytes.into(), written_ns, changed_ns];
        numbers.into_iter().flat_map(i128::to_le_bytes).collect()
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut number = || Some(i128::from_le_bytes(rest.split_off(..16)?.try_into().ok()?));
        let file = (number()?.try_into().ok()?, number()?.try_into().ok()?);
        Some(Self { file, bytes: number()?.try_into().ok()?, written_ns: number()?, changed_ns: number()? })
    }
}

/// Writes the length of what follows into the first four bytes.
fn framed(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(bytes.len().saturating_sub(4)).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(head) = bytes.first_chunk_mut::<4>() {
        *head = len;
    }
    bytes
}

const READ: u8 = 0;
const ABSENT: u8 = 1;
const ASTRAY: u8 = 2;
const NOT_REGULAR: u8 = 3;
const TOO_LARGE: u8 = 4;
const SERVED: u8 = 5;
const SYSTEM: u8 = 6;

/// An answer as bytes.
fn answer_to_bytes(answer: Result<Vec<u8>, FileError>) -> Vec<u8> {
    let (outcome, carried) = match answer {
        Ok(bytes) => (READ, bytes),
        Err(FileError::Absent) => (ABSENT, Vec::new()),
        Err(FileError::Astray) => (ASTRAY, Vec::new()),
        Err(FileError::NotRegular) => (NOT_REGULAR, Vec::new()),
        Err(FileError::TooLarge(max)) => (TOO_LARGE, max.to_le_bytes().to_vec()),
        Err(FileError::Served(kind)) => (SERVED, kind.into_bytes()),
        Err(FileError::Io(error)) => {
            (SYSTEM, error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes().to_vec())
        }
        // Reading a file never gives these errors.
        Err(FileError::Late | FileError::Stuck(_) | FileError::Content(_)) => {
            (SYSTEM, libc::EIO.to_le_bytes().to_vec())
        }
    };
    let mut bytes = vec![0, 0, 0, 0, outcome];
    bytes.extend(carried);
    framed(bytes)
}

/// The answer in the bytes after the length; `None` if they are not a valid answer.
pub(super) fn answer_of(bytes: &[u8]) -> Option<Result<Vec<u8>, FileError>> {
    let (outcome, carried) = bytes.split_first()?;
    Some(match *outcome {
        READ => Ok(carried.to_vec()),
        ABSENT => Err(FileError::Absent),
        ASTRAY => Err(FileError::Astray),
        NOT_REGULAR => Err(FileError::NotRegular),
        TOO_LARGE => Err(FileError::TooLarge(u64::from_le_bytes(carried.try_into().ok()?))),
        SERVED => Err(FileError::Served(String::from_utf8_lossy(carried).into_owned())),
        SYSTEM => {
            Err(FileError::Io(io::Error::from_raw_os_error(i32::from_le_bytes(carried.try_into().ok()?))))
        }
        _ => return None,
    })
}

/// Answers requests until the socket is closed.
///
/// # Errors
/// If a request is not valid.
pub fn serve(mut asks: impl Read, mut hears: impl Write) -> io::Result<()> {
    loop {
        let mut len = [0; 4];
        match asks.read_exact(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let len = u32::from_le_bytes(len);
        if len > REQUEST_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        asks.read_exact(&mut bytes)?;
        let request = Request::parse(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        hears.write_all(&answer_to_bytes(request.answer()))?;
    }
}

/// A request about a file of a process.
pub(super) fn of(process: PathBuf, name: &OsStr, max: u64) -> Request {
    let dir = Dir { base: process, below: PathBuf::new(), foreign: false };
    Request { kind: Kind::OfProcess, max, dir, name: name.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn request(kind: Kind, base: &str, name: &str) -> Request {
        let dir = Dir { base: base.into(), below: "b".into(), foreign: true };
        Request { kind, max: 7, dir, name: name.into() }
    }

    #[test]
    fn what_is_asked_is_heard() {
        for kind in KINDS {
            let asked = request(kind, "/a", "n");
            let bytes = asked.to_bytes();
            assert_eq!(Request::parse(&bytes[4..]).unwrap(), asked);
            assert_eq!(Request::parse(&bytes[4..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn what_is_answered_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join("b/n"), "seven b").unwrap();
        std::fs::write(dir.path().join("b/larger"), "eight by").unwrap();
        let base = dir.path().to_str().unwrap();
        let asked = [
            request(Kind::Read, base, "n"),
            request(Kind::Find, base, "n"),
            request(Kind::Find, base, "none"),
            request(Kind::Read, base, "larger"),
            request(Kind::Read, base, ""),
            request(Kind::Read, base, "../x"),
            request(Kind::Find, "/proc", "x"),
            request(Kind::List, base, ""),
            request(Kind::Stamp, base, "n"),
        ];
        let bytes: Vec<u8> = asked.iter().flat_map(Request::to_bytes).collect();
        let mut heard = Vec::new();
        serve(bytes.as_slice(), &mut heard).unwrap();
        let mut rest = heard.as_slice();
        let mut next = || {
            let len = u32::from_le_bytes(rest[..4].try_into().unwrap());
            let (answer, after) = rest[4..].split_at(len.try_into().unwrap());
            rest = after;
            answer_of(answer).unwrap()
        };
        assert_eq!(next().unwrap(), b"seven b");
        assert_eq!(next().unwrap(), b"");
        assert!(matches!(next(), Err(FileError::Absent)));
        assert!(matches!(next(), Err(FileError::TooLarge(7))));
        assert!(matches!(next(), Err(FileError::NotRegular)));
        assert!(matches!(next(), Err(FileError::Astray)));
        assert!(matches!(next(), Err(FileError::Served(kind)) if kind == "proc"));
        let listed = next().unwrap();
        let mut names: Vec<&[u8]> = listed.split(|byte| *byte == b'\n').collect();
        names.sort();
        assert_eq!(names, [&b"larger"[..], b"n"]);
        assert_eq!(Stamp::parse(&next().unwrap()).unwrap(), asked[0].dir.stamp(Path::new("n")).unwrap());
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_no_request_ends_it() {
        let mut heard = Vec::new();
        assert!(serve(&[255, 255, 255, 255][..], &mut heard).is_err());
        assert!(serve(&[1, 0, 0, 0, 99][..], &mut heard).is_err());
        assert!(heard.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = (Request::parse(&bytes), answer_of(&bytes));
        }
    }
}

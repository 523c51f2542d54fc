//! `run --record`: raw records as they leave the rings, for `replay`.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Write},
    path::Path,
    rc::Rc,
};

use crate::{
    failure::{Code, Failure},
    outputs::transport::create_private,
    stderr::say,
};

/// Writes records to a file. A clone writes to the same one.
#[derive(Clone, Debug)]
pub struct Recorder(Rc<RefCell<Option<File>>>);

impl Recorder {
    /// Makes the file.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let failure =
            |error| Failure::message(Code::RunTime, format!("cannot create {}: {error}", path.display()));
        Ok(Self(Rc::new(RefCell::new(Some(create_private(path).map_err(failure)?)))))
    }

    /// Length, then bytes: what `replay` reads. The first failure is said, and ends the recording, not the run.
    pub fn write(&self, record: &[u8]) {
        let mut to = self.0.borrow_mut();
        let Some(file) = &mut *to else { return };
        let written = u32::try_from(record.len())
            .map_err(io::Error::other)
            .and_then(|len| file.write_all(&len.to_le_bytes()))
            .and_then(|()| file.write_all(record));
        if let Err(error) = written {
            *to = None;
            say(&format!("oomtrace: the recording ends here: {error}"));
        }
    }
}

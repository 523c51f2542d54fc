//! `run --record`: writes the raw records of the rings to a file for `replay`.

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

/// Writes records to a file. Clones write to the same file.
#[derive(Clone, Debug)]
pub struct Recorder(Rc<RefCell<Option<File>>>);

impl Recorder {
    /// Creates the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let failure =
            |error| Failure::message(Code::RunTime, format!("cannot create {}: {error}", path.display()));
        Ok(Self(Rc::new(RefCell::new(Some(create_private(path).map_err(failure)?)))))
    }

    /// Writes a length and the bytes, the format that `replay` reads. The first error is printed and ends the
    /// recording, not the run.
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

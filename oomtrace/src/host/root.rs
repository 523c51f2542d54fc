//! The host's files: where they begin, and who reads those that a user may slow down.

use std::path::{Path, PathBuf};

use crate::host::files::readers::Readers;

/// The directory that stands for `/`.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
    readers: Option<Readers>,
}

impl Root {
    /// The host itself.
    pub fn host() -> Self {
        Self::at("/")
    }

    /// A directory that holds a copy of what is read: for tests.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), readers: None }
    }

    /// The same, but what a user may slow down is read by other processes, for the thread that calls this.
    pub fn guarded(self) -> Self {
        Self { readers: Some(Readers::default()), ..self }
    }

    /// The same, for another thread.
    pub fn guarded_by(self, readers: &Readers) -> Self {
        Self { readers: self.readers.map(|_| readers.clone()), ..self }
    }

    /// The processes that read what a user may slow down; `None` where this one does.
    pub fn readers(&self) -> Option<&Readers> {
        self.readers.as_ref()
    }

    /// `absolute`, below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.dir.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }
}

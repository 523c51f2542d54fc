//! Where the host's files are, and who reads those that a user can slow down.

use std::path::{Path, PathBuf};

use crate::host::files::readers::Readers;

/// The directory that stands for `/`.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
    readers: Option<Readers>,
}

impl Root {
    /// The real host.
    pub fn host() -> Self {
        Self::at("/")
    }

    /// A directory with a copy of the files: for tests.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), readers: None }
    }

    /// The same root, but other processes read what a user can slow down. For the thread that calls this.
    pub fn guarded(self) -> Self {
        Self { readers: Some(Readers::default()), ..self }
    }

    /// The same, for another thread.
    pub fn guarded_by(self, readers: &Readers) -> Self {
        Self { readers: self.readers.map(|_| readers.clone()), ..self }
    }

    /// The processes that read what a user can slow down; `None` if this process reads it itself.
    pub fn readers(&self) -> Option<&Readers> {
        self.readers.as_ref()
    }

    /// `absolute`, below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.dir.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }
}

//! The host's files: where they begin.

use std::path::{Path, PathBuf};

/// The directory that stands for `/`.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The host itself.
    pub fn host() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A directory that holds a copy of what is read: for tests.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// `absolute`, below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }
}

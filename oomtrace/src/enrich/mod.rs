//! Facts to events: what a record cannot know is added here, from files of this host.
//!
//! Every reader takes a [`Root`], so that tests give it a tree of their own.

pub mod absent;
pub mod backfill;
pub mod clock;
pub mod containers;
pub mod enricher;
pub mod host;
pub mod kernel_log;
pub mod oom;
pub mod process;
pub mod tree;
pub mod unkilled;

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

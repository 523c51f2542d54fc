//! Whether the runtimes' directories are as they were, so that what was not there need not be looked for again at each
//! kill. By inotify: to ask costs one system call that reads nothing.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::host::files::{self, FileError};

/// Directories that are watched at the most.
const WATCHED_MAX: usize = 256;
/// Bytes of changes that are read at once.
const READ_BYTES: usize = 4096;

/// Directories, and how often something in them changed.
#[derive(Debug)]
pub struct Changes {
    inotify: Option<OwnedFd>,
    watched: Vec<(i32, Watched)>,
    generation: u32,
}

/// What matters in a directory.
#[derive(Debug)]
enum Watched {
    /// Everything: the containers are in it.
    All,
    /// Only this name: what is looked for is below it, and was not there.
    Name(PathBuf),
}

impl Changes {
    /// None yet. Where the kernel watches nothing, nothing is known to be as it was.
    pub fn none() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        Self { inotify, watched: Vec::new(), generation: 0 }
    }

    /// Watches `directories` instead; of one that is not there, for it to be made.
    pub fn watch(&mut self, directories: Vec<PathBuf>) {
        for (watch, _) in self.watched.drain(..) {
            // It is gone if its directory is.
            let _removed = self.inotify.as_ref().map(|inotify| inotify::remove_watch(inotify, watch));
        }
        self.generation = self.generation.wrapping_add(1);
        for directory in directories {
            self.watch_one(&directory);
        }
    }

    fn watch_one(&mut self, directory: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let made = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let changed = made | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let mut missing = None;
        for at in directory.ancestors() {
            if self.watched.len() >= WATCHED_MAX {
                // What is not watched is not known.
                self.inotify = None;
                return;
            }
            let flags = WatchFlags::MASK_ADD | if missing.is_none() { changed } else { made };
            let found = match files::find(at) {
                Ok(found) => found,
                Err(FileError::Absent) => {
                    missing = at.file_name().map(PathBuf::from);
                    continue;
                }
                Err(_) => break,
            };
            // Not its path: what is there by now may not answer.
            let same = format!("/proc/self/fd/{}", found.as_raw_fd());
            match inotify::add_watch(inotify, same, flags) {
                Ok(watch) => {
                    self.watched.push((watch, missing.map_or(Watched::All, Watched::Name)));
                    return;
                }
                Err(Errno::NOENT | Errno::NOTDIR) => missing = at.file_name().map(PathBuf::from),
                Err(_) => break,
            }
        }
        self.inotify = None;
    }

    /// A number that is another one after something changed; `None` where that cannot be known. After a change there may be
    /// other `directories` to watch.
    pub fn generation(&mut self, directories: impl FnOnce() -> Vec<PathBuf>) -> Option<u32> {
        if self.has_changed()? {
            self.watch(directories());
        }
        self.inotify.as_ref().map(|_| self.generation)
    }

    fn has_changed(&self) -> Option<bool> {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut reader = inotify::Reader::new(self.inotify.as_ref()?, &mut buffer);
        let mut changed = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes());
                    let matters = |what: &Watched| match what {
                        Watched::All => true,
                        Watched::Name(wanted) => name == Some(wanted.as_os_str().as_encoded_bytes()),
                    };
                    // Of a watch that was removed something may still come.
                    let mut of = self.watched.iter().filter(|(watch, _)| *watch == event.wd());
                    let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    changed |= lost || of.any(|(_, what)| matters(what));
                }
                Err(Errno::AGAIN) => return Some(changed),
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_change_is_seen_and_what_does_not_matter_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("containers")).unwrap();
        let mut changes = Changes::none();
        let directories = || vec![at("containers"), at("run/state/tasks")];
        changes.watch(directories());
        let mut last = changes.generation(directories).unwrap();
        let mut is_another = |what: &str, expected: bool| {
            let now = changes.generation(directories).unwrap();
            assert_eq!(now != last, expected, "{what}");
            last = now;
        };
        is_another("nothing", false);
        std::fs::create_dir(at("containers/one")).unwrap();
        is_another("a container", true);
        std::fs::write(at("containers/list.new"), "x").unwrap();
        is_another("a file", true);
        std::fs::rename(at("containers/list.new"), at("containers/list")).unwrap();
        is_another("a rename", true);
        std::fs::create_dir(at("other")).unwrap();
        is_another("a name that nobody looks for", false);
        std::fs::create_dir(at("run")).unwrap();
        is_another("the first part of what was not there", true);
        std::fs::create_dir_all(at("run/state/tasks")).unwrap();
        is_another("the rest of it", true);
        std::fs::create_dir(at("run/state/tasks/one")).unwrap();
        is_another("a container in it", true);
        std::fs::rename(at("containers"), at("moved")).unwrap();
        is_another("the directory itself", true);
    }
}

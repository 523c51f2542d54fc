//! Watches the runtimes' directories with inotify. If nothing changed, a file that was missing before need
//! not be looked for again at each kill. This check is one system call that reads nothing.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::host::files::{self, FileError};

/// The most directories that are watched.
const WATCHED_MAX: usize = 256;
/// How many bytes of changes are read at once.
const READ_BYTES: usize = 4096;

/// Watched directories, and a number that grows when something in them changes.
#[derive(Debug)]
pub struct Changes {
    inotify: Option<OwnedFd>,
    watched: Vec<(i32, Watched)>,
    generation: u32,
}

/// Which changes in a directory matter.
#[derive(Debug)]
enum Watched {
    /// All: it holds the containers.
    All,
    /// Only this name: a wanted directory is below it and did not exist.
    Name(PathBuf),
}

impl Changes {
    /// Watches nothing yet. If inotify is not available, changes are unknown.
    pub fn none() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        Self { inotify, watched: Vec::new(), generation: 0 }
    }

    /// Watches only `directories` from now on. If one does not exist, its nearest existing parent is watched.
    pub fn watch(&mut self, directories: Vec<PathBuf>) {
        for (watch, _) in self.watched.drain(..) {
            // Removing fails if the directory is gone already.
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
                // If a directory is not watched, changes are unknown.
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
            // Not by its path: another directory may be there now that does not answer.
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

    /// A number that differs after each change; `None` if changes are unknown. After a change, `directories`
    /// says which directories to watch.
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
                    // An event of a removed watch may still arrive.
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

//! The file for node_exporter's textfile collector. Each page replaces the whole file.
//!
//! A separate thread writes it, so a slow disk delays no kill. One page can wait; others are dropped
//! meanwhile.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use rustix::fs::{Mode, fchmod};

use crate::{host::protection, stderr::say};

/// It formats and reads nothing.
const STACK_BYTES: usize = 64 << 10;
/// How long the end of the run waits for the last page.
const LAST: Duration = Duration::from_millis(200);

/// Writes pages.
#[derive(Debug)]
pub(super) struct Writer {
    pages: Option<SyncSender<String>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Writer {
    /// Checks that the file can be written, and starts the thread.
    ///
    /// # Errors
    /// If one of these fails.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        if fs::symlink_metadata(&path).is_ok_and(|there| there.is_dir()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let aside = aside(&path);
        drop(create(&aside)?);
        fs::remove_file(&aside)?;
        let (pages, theirs) = sync_channel::<String>(1);
        let (end, ended) = sync_channel(0);
        thread::Builder::new().name("metrics-file".into()).stack_size(STACK_BYTES).spawn(move || {
            protection::ordinary();
            write_all(&theirs, &path, &aside);
            drop(end);
        })?;
        Ok(Self { pages: Some(pages), ended })
    }

    /// Passes a page to the thread. Returns false if the thread still has another one.
    pub(super) fn write(&self, page: String) -> bool {
        let sent = self.pages.as_ref().map(|pages| pages.try_send(page));
        !matches!(sent, Some(Err(TrySendError::Full(_))))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.pages = None;
        // A slower disk is not waited for.
        let _late: Result<(), RecvTimeoutError> = self.ended.recv_timeout(LAST);
    }
}

fn write_all(pages: &Receiver<String>, path: &Path, aside: &Path) {
    let mut failed = false;
    for page in pages {
        let written = replace(path, aside, &page);
        match &written {
            Err(error) if !failed => say(&format!(
                "oomtrace: cannot write {}: {error}\n  hint: it is tried again; until then its age shows the problem",
                path.display()
            )),
            Ok(()) if failed => say(&format!("oomtrace: {} is written again", path.display())),
            _ => {}
        }
        failed = written.is_err();
    }
}

fn replace(path: &Path, aside: &Path, page: &str) -> io::Result<()> {
    create(aside)?.write_all(page.as_bytes())?;
    fs::rename(aside, path)
}

/// In a directory that others can write, existing files are never written and links never followed.
fn create(aside: &Path) -> io::Result<File> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().write(true).create_new(true).mode(0o644).open(aside)?;
    // Independent of the umask, because node_exporter runs as another user.
    fchmod(&file, Mode::from_raw_mode(0o644))?;
    Ok(file)
}

/// Beside the file, with a name that the collector ignores.
fn aside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_last_page_replaces_the_file_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oomtrace.prom");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, aside(&path)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let writer = Writer::start(path.clone()).unwrap();
        assert!(writer.write("one\n".into()));
        drop(writer);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode(), 0o100_644);
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Writer::start(dir.path().join("missing/oomtrace.prom")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let directory = Writer::start(dir.path().to_owned()).unwrap_err();
        assert_eq!(directory.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_directory_that_comes_back_is_written_to_again() {
        let dir = tempfile::tempdir().unwrap();
        let collected = dir.path().join("collected");
        fs::create_dir(&collected).unwrap();
        let path = collected.join("oomtrace.prom");
        let writer = Writer::start(path.clone()).unwrap();
        fs::remove_dir(&collected).unwrap();
        assert!(writer.write("one\n".into()));
        // The second page waits until the first one has failed.
        while !writer.write("two\n".into()) {
            thread::yield_now();
        }
        fs::create_dir(&collected).unwrap();
        while !writer.write("three\n".into()) {
            thread::yield_now();
        }
        drop(writer);
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }
}

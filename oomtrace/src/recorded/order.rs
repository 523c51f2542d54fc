//! The order in which files are read: that of their first lines, so that `oom.jsonl*` may be typed.

use std::path::{Path, PathBuf};

use crate::{
    recorded::{LINE_BYTES, Recorded},
    saved::{self, Lines, Read},
};

/// Lines of a file that are looked at for one that is whole.
const LOOKED_AT: u64 = 16;

/// The files by the time of their first line. Those without one keep their place behind the one before; and all keep it where
/// one is standard input, which can be read only once.
pub(super) fn by_first_line(files: &[PathBuf]) -> Vec<&Path> {
    let mut times = Vec::with_capacity(files.len());
    let mut latest = String::new();
    let is_stdin = files.iter().any(|file| file.as_os_str() == "-");
    for file in files {
        if !is_stdin && let Some(time) = first_time(file) {
            latest = time;
        }
        times.push((latest.clone(), file.as_path()));
    }
    times.sort_by(|(one, _), (other, _)| one.cmp(other));
    times.into_iter().map(|(_, file)| file).collect()
}

fn first_time(file: &Path) -> Option<String> {
    // A pipe can be read only once.
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut lines = Lines::new(saved::open(file).ok()?, LINE_BYTES);
    while lines.number() < LOOKED_AT {
        match lines.advance().ok()? {
            Read::End => return None,
            Read::Long => {}
            Read::Line => {
                if let Some(line) = Recorded::of(lines.line()) {
                    return Some(line.head.time.into_owned());
                }
            }
        }
    }
    None
}

//! What the threads of a victim do that does not end: their state, and where in the kernel they wait.
//!
//! Only `stat` and `wchan` are read. Neither takes the lock of the process's memory, which a victim may hold for ever.

use std::{fs, path::Path};

use crate::{
    event::{Reason, StuckThread, Why, text_from_kernel},
    host::{
        process::fields::{Stat, beginning},
        root::Root,
    },
};

/// The most threads that are read, and that are told.
const READ_MAX: usize = 64;
const TOLD_MAX: usize = 8;
/// `stat` has at most some 500 bytes; a name of a function has at most 512.
const FILE_BYTES: u64 = 1024;

/// A process and its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Threads {
    pub(super) comm: String,
    pub(super) count: u64,
    /// Those in an uninterruptible wait come first.
    pub(super) told: Vec<StuckThread>,
}

/// Reads them. The caller makes sure that the process is still there afterwards: then it is the one that had this pid before.
pub(super) fn read(root: &Root, pid: u32) -> Result<Threads, Why> {
    let process = root.path(format!("/proc/{pid}"));
    let stat = beginning(&process.join("stat"), FILE_BYTES).ok_or(Reason::ProcUnreadable)?;
    let (comm, _, count) = parsed(&stat).ok_or(Reason::ProcUnreadable)?;
    let comm = text_from_kernel(comm);
    let entries = fs::read_dir(process.join("task"))
        .map_err(|error| Why::with(Reason::ProcUnreadable, error.kind().to_string()))?;
    let mut told: Vec<StuckThread> =
        entries.take(READ_MAX).filter_map(|entry| thread(&entry.ok()?.path())).collect();
    told.sort_by_key(|thread| (thread.state != "D", thread.tid));
    told.truncate(TOLD_MAX);
    Ok(Threads { comm, count, told })
}

fn thread(task: &Path) -> Option<StuckThread> {
    let tid = task.file_name()?.to_str()?.parse().ok()?;
    let stat = beginning(&task.join("stat"), FILE_BYTES)?;
    let (_, state, _) = parsed(&stat)?;
    let wchan = beginning(&task.join("wchan"), FILE_BYTES).map(|text| text_from_kernel(text.trim_ascii()));
    // `0`: it does not wait, or the kernel does not say where.
    let wchan = wchan.filter(|name| !name.is_empty() && name != "0");
    Some(StuckThread { tid, state: char::from(state).to_string(), wchan })
}

/// The name, the state and the number of threads of a `stat` file.
fn parsed(stat: &[u8]) -> Option<(&[u8], u8, u64)> {
    let stat = Stat::parse(stat)?;
    let state = *stat.field(3)?.as_bytes().first()?;
    let threads = stat.field(20)?.parse().ok()?;
    state.is_ascii_alphabetic().then_some((stat.comm, state, threads))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn stat(comm: &str, state: char) -> String {
        format!("7 ({comm}) {state} 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 12 0 100 0 0\n")
    }

    #[test]
    fn a_name_can_look_like_the_rest() {
        let text = stat("a) R 1 (b", 'D');
        assert_eq!(parsed(text.as_bytes()), Some((b"a) R 1 (b".as_slice(), b'D', 12)));
        assert_eq!(parsed(b"7 (a) D 1"), None);
        assert_eq!(parsed(b"7 (a) 4 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 12 0"), None);
        assert_eq!(parsed(b") ("), None);
    }

    #[test]
    fn the_waiting_ones_come_first_and_few_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("proc/7");
        for tid in 7..40 {
            let task = process.join(format!("task/{tid}"));
            fs::create_dir_all(&task).unwrap();
            let state = if tid >= 35 { 'D' } else { 'S' };
            fs::write(task.join("stat"), stat("x", state)).unwrap();
            fs::write(task.join("wchan"), if tid == 36 { "folio_wait_bit" } else { "0" }).unwrap();
        }
        fs::write(process.join("stat"), stat("java", 'Z')).unwrap();
        let threads = read(&Root::at(dir.path().to_owned()), 7).unwrap();
        assert_eq!((threads.comm.as_str(), threads.count), ("java", 12));
        let tids: Vec<u32> = threads.told.iter().map(|thread| thread.tid).collect();
        assert_eq!(tids, [35, 36, 37, 38, 39, 7, 8, 9]);
        let wchans: Vec<_> = threads.told.iter().filter_map(|thread| thread.wchan.as_deref()).collect();
        assert_eq!(wchans, ["folio_wait_bit"]);
        let why = read(&Root::at(dir.path().to_owned()), 8).unwrap_err();
        assert_eq!(why.reason, Reason::ProcUnreadable);
        // This process, whose threads are known.
        let own = read(&Root::host(), std::process::id()).unwrap();
        assert!(own.count >= 1 && own.told.iter().all(|thread| thread.tid > 0));
    }
}

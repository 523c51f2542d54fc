//! A second source of truth: the kernel's own trace event `oom:mark_victim`, which the kernel prints into a
//! private trace instance.
//!
//! oomtrace must report the memory figures of this event. The log's may differ: some kernels add to the log
//! what each processor still holds back, but not to the trace event. No version number shows this, only a
//! comparison of the two.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const TRACEFS: &str = "/sys/kernel/tracing";
/// The buffer of a processor: room for about 400 events.
const BUFFER_KB: &str = "64";

/// The trace event's figures of a victim, kB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// The thread.
    pub tid: u32,
    /// Address space.
    pub total_vm_kb: u64,
    /// Anonymous memory.
    pub anon_kb: u64,
    /// Memory of files.
    pub file_kb: u64,
    /// Shared memory.
    pub shmem_kb: u64,
    /// Page tables.
    pub pgtables_kb: u64,
}

impl Marked {
    /// All its memory.
    pub fn rss_kb(&self) -> u64 {
        self.anon_kb + self.file_kb + self.shmem_kb
    }
}

/// Follows the trace event from the time when it is opened.
#[derive(Debug)]
pub struct TraceEvents {
    // Must be closed before its directory is removed.
    pipe: Option<File>,
    directory: PathBuf,
    unread: Vec<u8>,
    /// The thread that the last line named, if its figures have not come yet.
    named: Option<u32>,
    marks: Vec<Marked>,
}

impl TraceEvents {
    /// Makes the instance. `None` if there is no tracefs, or if the event does not have these figures.
    pub fn follow() -> Result<Option<Self>> {
        let event = |root: &Path| root.join("events/oom/mark_victim");
        let format = fs::read_to_string(event(Path::new(TRACEFS)).join("format"));
        if !format.is_ok_and(|format| format.contains("total_vm")) {
            return Ok(None);
        }
        let directory = Path::new(TRACEFS).join(format!("instances/oomtrace-test-{}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut events = Self {
            pipe: None,
            directory: directory.clone(),
            unread: Vec::new(),
            named: None,
            marks: Vec::new(),
        };
        let write = |file: PathBuf, value: &str| {
            fs::write(&file, value).with_context(|| format!("write {value} to {}", file.display()))
        };
        write(directory.join("buffer_size_kb"), BUFFER_KB)?;
        write(event(&directory).join("enable"), "1")?;
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(directory.join("trace_pipe"))
            .context("open trace_pipe")?;
        events.pipe = Some(pipe);
        Ok(Some(events))
    }

    /// The latest mark of a thread. Fails if events were lost, because then nothing can be proved.
    pub fn of(&mut self, tid: u32) -> Result<Option<Marked>> {
        self.read()?;
        Ok(self.marks.iter().rev().find(|mark| mark.tid == tid).cloned())
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = vec![0; 8192];
        loop {
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            match pipe.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.unread.extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read trace_pipe"),
            }
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                self.take(&String::from_utf8_lossy(&line))?;
            }
        }
    }

    /// Takes a line. A process's name may break a line in two, so the thread and its figures are searched
    /// separately.
    fn take(&mut self, line: &str) -> Result<()> {
        if line.contains(" EVENTS]") && line.contains("[LOST ") {
            bail!("the trace event cannot be trusted: {line}");
        }
        if let Some((_, rest)) = line.split_once("mark_victim: pid=") {
            self.named = rest.split(' ').next().and_then(|pid| pid.parse().ok());
        }
        // The last match: an earlier one may be part of a process's name.
        if let Some(at) = line.rfind(" total-vm=")
            && let Some(tid) = self.named.take()
        {
            let figures = line.get(at..).unwrap_or_default();
            let figure = |name: &str| -> Result<u64> {
                let word = figures.split_whitespace().find_map(|word| word.strip_prefix(name));
                let kilobytes = word.and_then(|word| word.get(1..)?.strip_suffix("kB")?.parse().ok());
                kilobytes.with_context(|| format!("the trace event has no {name}: {line}"))
            };
            self.marks.push(Marked {
                tid,
                total_vm_kb: figure("total-vm")?,
                anon_kb: figure("anon-rss")?,
                file_kb: figure("file-rss")?,
                shmem_kb: figure("shmem-rss")?,
                pgtables_kb: figure("pgtables")?,
            });
        }
        Ok(())
    }
}

impl Drop for TraceEvents {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // A test that is killed leaves the instance behind. It is small and has the process's id in its name.
        let _removed = fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_name_cannot_pass_for_figures() {
        let mut events = TraceEvents {
            pipe: None,
            directory: PathBuf::new(),
            unread: Vec::new(),
            named: None,
            marks: Vec::new(),
        };
        let figures =
            "total-vm=40kB anon-rss=30kB file-rss:20kB shmem-rss:10kB uid=0 pgtables=44kB oom_score_adj=-7";
        for line in [
            format!("  hog-7  [001] .....  12.345678: mark_victim: pid=71 comm= total-vm=1kB {figures}\n"),
            "  hog-7  [001] .....  12.345678: mark_victim: pid=72 comm=a\n".to_owned(),
            format!("b {figures}\n"),
        ] {
            events.take(&line).unwrap();
        }
        let expected =
            |tid| Marked { tid, total_vm_kb: 40, anon_kb: 30, file_kb: 20, shmem_kb: 10, pgtables_kb: 44 };
        assert_eq!(events.marks, [expected(71), expected(72)]);
        assert!(events.take("CPU:1 [LOST 3 EVENTS]\n").is_err());
    }
}

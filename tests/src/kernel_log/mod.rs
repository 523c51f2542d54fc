//! The kernel's own report of each kill, read from `/dev/kmsg`, as the truth to compare with.
//!
//! This is a separate reader on purpose: it shares nothing with oomtrace's. It returns what the kernel wrote,
//! in the kernel's units.

mod report;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail, ensure};

pub use report::{Chosen, Invoked, Killed, LoggedKill, Reports};

/// Follows the log from the time when it is opened.
#[derive(Debug)]
pub struct KernelLog {
    shared: Arc<Shared>,
    follower: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    reports: Mutex<(Reports, Option<String>)>,
    end: AtomicBool,
}

impl KernelLog {
    /// Starts at the current end.
    pub fn follow() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("open /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("go to the end of /dev/kmsg")?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let follower =
            std::thread::Builder::new().name("kernel-log".into()).spawn(move || follow(file, &theirs))?;
        Ok(Self { shared, follower: Some(follower) })
    }

    /// Calls `look` with all reports so far. Fails if records were lost, because then nothing can be proved.
    pub fn look<T>(&self, look: impl FnOnce(&Reports) -> T) -> Result<T> {
        let state = self.shared.reports.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.1 {
            Some(trouble) => bail!("the kernel log cannot be trusted: {trouble}"),
            None => Ok(look(&state.0)),
        }
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(follower) = self.follower.take() {
            let _panicked = follower.join();
        }
    }
}

fn follow(mut file: File, shared: &Shared) {
    let mut buffer = vec![0; 8192];
    while !shared.end.load(Ordering::Relaxed) {
        let result = file.read(&mut buffer);
        let mut state = shared.reports.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(0) => return,
            Ok(read) => {
                if let Err(error) = record(buffer.get(..read).unwrap_or_default(), &mut state.0) {
                    state.1 = Some(format!("{error:#}"));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                drop(state);
                let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one pollfd that is alive through the call. The timeout limits how long the end of a
                // run waits.
                unsafe { libc::poll(&raw mut poll, 1, 50) };
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                state.1 = Some("records were overwritten before they were read".to_owned());
            }
            Err(error) => {
                state.1 = Some(format!("read /dev/kmsg: {error}"));
                return;
            }
        }
    }
}

/// A record, parsed.
#[derive(Clone, Debug)]
pub struct Record {
    /// The bytes of one read.
    pub raw: Vec<u8>,
    /// Level and facility.
    pub priority: u32,
    /// Its number since boot.
    pub seq: u64,
    /// The log's clock in µs.
    pub time_us: u64,
    /// Its text, without escapes.
    pub text: Vec<u8>,
}

/// All records that the kernel still has.
pub fn records() -> Result<Vec<Record>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("open /dev/kmsg")?;
    let (mut buffer, mut records) = (vec![0; 8192], Vec::new());
    loop {
        let raw = match file.read(&mut buffer) {
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(records),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("read /dev/kmsg"),
        };
        let at = raw.iter().position(|byte| *byte == b';').context("a record without a head")?;
        let (head, text) = raw.split_at(at);
        let mut fields = std::str::from_utf8(head)?.split(',').map(str::parse);
        let mut number = || Ok::<u64, anyhow::Error>(fields.next().context("a short head")??);
        let (priority, seq, time_us) = (u32::try_from(number()?)?, number()?, number()?);
        let text = text.get(1..).unwrap_or_default().split(|byte| *byte == b'\n').next().unwrap_or_default();
        records.push(Record { raw: raw.to_vec(), priority, seq, time_us, text: unescape(text)? });
    }
}

/// Adds one record, `priority,sequence,µs,flags;text`, to the reports.
fn record(bytes: &[u8], reports: &mut Reports) -> Result<()> {
    let at = bytes.iter().position(|byte| *byte == b';').ok_or_else(|| anyhow!("a record without a head"))?;
    let (head, text) = bytes.split_at(at);
    let head = std::str::from_utf8(head)?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next().unwrap_or_default().parse().context("priority")?;
    let continues = fields.nth(2).is_some_and(|flags| flags.contains('c'));
    // With a priority of 8 or more it is not from the kernel: anybody can write to /dev/kmsg.
    if priority < 8 {
        // The other lines of a record are key=value pairs of a device.
        let text = text.get(1..).unwrap_or_default().split(|byte| *byte == b'\n').next().unwrap_or_default();
        reports.take(&unescape(text)?, continues);
    }
    Ok(())
}

/// `/dev/kmsg` writes bytes that cannot be printed, and the backslash, as `\xNN`.
fn unescape(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if *first != b'\\' {
            out.push(*first);
            rest = after;
            continue;
        }
        let code = after.strip_prefix(b"x").and_then(|code| code.get(..2));
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        ensure!(byte.is_some(), "a backslash that starts no code");
        out.extend(byte);
        rest = after.get(3..).unwrap_or_default();
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_record_is_taken_apart() {
        let mut reports = Reports::default();
        let killed = b"3,812,1203344,-;Memory cgroup out of memory: Killed process 7 (a\\x22\\x0a\\xff\\x5c) total-vm:4kB, \
            anon-rss:3kB, file-rss:2kB, shmem-rss:1kB, UID:5 pgtables:6kB oom_score_adj:-7\n SUBSYSTEM=x\n";
        record(killed, &mut reports).unwrap();
        assert_eq!(reports.kills.first().unwrap().killed.comm, b"a\"\n\xff\\");
        // Written by a process.
        record(&[b"1", &killed[..]].concat(), &mut reports).unwrap();
        assert_eq!(reports.kills.len(), 1);
        assert!(record(b"3,812,1203344,-;\\q", &mut reports).is_err());
    }
}

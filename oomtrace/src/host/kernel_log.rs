//! Reads `/dev/kmsg`: the new records since the last call, and all records since boot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::Errno;

use crate::{
    facts::kernel_log::{
        Lines, OomLine, RunReports,
        record::{self, RecordMeta},
        report::{OomReport, Reports},
    },
    host::root::Root,
};

/// No record is longer (`CONSOLE_EXT_LOG_MAX` before 6.4; later kernels allow 2048).
const RECORD_BYTES: usize = 8192;

/// The most records in one turn: any user can make the kernel write lines faster than they are read.
const TURN_RECORDS: usize = 10_000;
const TURN: Duration = Duration::from_millis(50);

/// How long a backlog is read at most. A log of 32 MiB takes 1 s. Records after that were written since the
/// start.
const BACKLOG: Duration = Duration::from_secs(5);

/// The records of the kernel log, one by one. Needs CAP_SYSLOG where `kernel.dmesg_restrict` is set.
#[derive(Debug)]
pub struct Records {
    log: OwnedFd,
    buffer: Box<[u8]>,
    overruns: u64,
}

/// What was read next from the log.
enum Next<'a> {
    Record(&'a [u8]),
    /// Records were overwritten before they were read.
    Overrun,
    End,
}

impl Records {
    fn open(root: &Root) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(Self::from_fd(open(root.path("/dev/kmsg"), flags, Mode::empty())?))
    }

    fn open_at_end(root: &Root) -> io::Result<Self> {
        let records = Self::open(root)?;
        seek(&records.log, SeekFrom::End(0))?;
        Ok(records)
    }

    /// Records of any descriptor that returns one record for each `read(2)` and does not block.
    pub fn from_fd(log: OwnedFd) -> Self {
        Self { log, buffer: vec![0; RECORD_BYTES].into_boxed_slice(), overruns: 0 }
    }

    fn next(&mut self) -> io::Result<Next<'_>> {
        loop {
            match rustix::io::read(&self.log, &mut *self.buffer) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(Next::End),
                Ok(len) => return Ok(Next::Record(self.buffer.get(..len).unwrap_or_default())),
                Err(Errno::INTR) => {}
                // Overwritten, or larger than any record. The kernel continues with the next one.
                Err(Errno::PIPE | Errno::INVAL) => {
                    self.overruns += 1;
                    return Ok(Next::Overrun);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Follows the kernel's log and keeps the recent reports of the killer.
#[derive(Debug)]
pub struct KernelLog {
    records: Records,
    lines: Lines,
    reports: Reports,
    /// Records from before this are ignored: a reading of the log's clock in µs.
    since_us: u64,
}

/// How many turns a large log takes.
const TURNS_OF_A_LOG: usize = 20;

impl KernelLog {
    /// Opens `/dev/kmsg` at its end.
    pub fn open(root: &Root) -> io::Result<Self> {
        Records::open_at_end(root).map(Self::new)
    }

    /// Opens `/dev/kmsg` and reads the records since its clock read `since_ns`.
    pub fn open_since(root: &Root, since_ns: u64) -> io::Result<Self> {
        let mut log = Self { since_us: since_ns / 1000, ..Self::new(Records::open(root)?) };
        // Limited to what a large log holds: records may arrive faster than they are read.
        for _ in 0..TURNS_OF_A_LOG {
            if log.catch_up()? {
                break;
            }
        }
        Ok(log)
    }

    /// Follows the given records.
    pub fn new(records: Records) -> Self {
        Self { records, lines: Lines::default(), reports: Reports::default(), since_us: 0 }
    }

    /// Reads the log for one turn. Returns true at its end, false if there may be more.
    pub fn catch_up(&mut self) -> io::Result<bool> {
        let began = Instant::now();
        for _ in 0..TURN_RECORDS {
            match self.records.next()? {
                Next::Record(raw) => {
                    let line = self.lines.push(raw);
                    if let Some((meta, line)) = line.filter(|(meta, _)| meta.time_us >= self.since_us) {
                        self.reports.push(meta, line);
                    }
                }
                Next::Overrun => {
                    self.lines.reset();
                    self.reports.reset();
                }
                Next::End => return Ok(true),
            }
            if began.elapsed() >= TURN {
                break;
            }
        }
        Ok(false)
    }

    /// See [`Reports::take`].
    pub fn take(&mut self, victim_tgid: u32, task_memcg: &[u8]) -> Option<OomReport> {
        self.reports.take(victim_tgid, task_memcg)
    }

    /// See [`Reports::group_of`].
    pub fn group_of(&self, tid: u32, task_memcg: &[u8]) -> Option<&OomReport> {
        self.reports.group_of(tid, task_memcg)
    }

    /// How often records were overwritten before they were read.
    pub fn overruns(&self) -> u64 {
        self.records.overruns
    }
}

impl AsFd for KernelLog {
    /// Becomes readable when the log has new records.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.log.as_fd()
    }
}

/// Follows the kernel's log and keeps what its reports say of memory and processes.
#[derive(Debug)]
pub struct ReportLog {
    records: Records,
    /// The reports so far.
    pub reports: RunReports,
}

impl ReportLog {
    /// Opens `/dev/kmsg` at its end, on a kernel with pages of this size.
    pub fn open(root: &Root, page_bytes: u64) -> io::Result<Self> {
        Ok(Self { records: Records::open_at_end(root)?, reports: RunReports::new(page_bytes) })
    }

    /// Reads the log for one turn. Returns true at its end, false if there may be more.
    pub fn catch_up(&mut self) -> io::Result<bool> {
        for _ in 0..TURN_RECORDS {
            match self.records.next()? {
                Next::Record(raw) => self.reports.push(raw),
                Next::Overrun => self.reports.reset(),
                Next::End => return Ok(true),
            }
        }
        Ok(false)
    }
}

impl AsFd for ReportLog {
    /// Becomes readable when the log has new records.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.log.as_fd()
    }
}

/// The lines of the OOM killer since boot, as far as the log still has them.
#[derive(Debug)]
pub struct Backlog {
    records: Records,
    lines: Lines,
    begins: Option<RecordMeta>,
    opened: Instant,
    ended: bool,
}

impl Backlog {
    /// Opens `/dev/kmsg` at its beginning.
    pub fn open(root: &Root) -> io::Result<Self> {
        Ok(Self::new(Records::open(root)?))
    }

    /// Reads the given records.
    pub fn new(records: Records) -> Self {
        Self { records, lines: Lines::default(), begins: None, opened: Instant::now(), ended: false }
    }

    /// The first record of the log; `None` before it was read.
    pub fn begins(&self) -> Option<RecordMeta> {
        self.begins
    }

    /// How often records were overwritten before they were read.
    pub fn overruns(&self) -> u64 {
        self.records.overruns
    }

    /// Whether it was read to its end. It is not where lines are written faster than they are read.
    pub fn is_at_end(&self) -> bool {
        self.ended
    }
}

impl Iterator for Backlog {
    type Item = io::Result<Option<(RecordMeta, OomLine)>>;

    /// Ends at the current end of the log. An item is `None` where records were overwritten before they were read.
    fn next(&mut self) -> Option<Self::Item> {
        while self.opened.elapsed() < BACKLOG {
            match self.records.next() {
                Ok(Next::Record(raw)) => {
                    if self.begins.is_none() {
                        self.begins = record::parse(raw).map(|(meta, _)| meta);
                    }
                    if let Some(line) = self.lines.push(raw) {
                        return Some(Ok(Some(line)));
                    }
                }
                Ok(Next::Overrun) => {
                    self.lines.reset();
                    return Some(Ok(None));
                }
                Ok(Next::End) => {
                    self.ended = true;
                    return None;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

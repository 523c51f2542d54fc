//! The journal output: sends events as entries in journald's native protocol.
//!
//! It never waits for journald. Entries that journald does not take now are kept for a while; what cannot be
//! kept is counted.

mod fields;

use std::{
    collections::VecDeque,
    env, fmt, fs,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::{Errno, write},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, sendmsg_addr, sendto, socket_with,
    },
};

use crate::{
    event::{Event, LossReason},
    outputs::{BestEffort, Condition},
    stderr::say,
};

/// The path of journald's socket.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How many bytes are kept while journald takes no entries: more than a dozen kills.
const KEPT_BYTES: usize = 64 << 10;
/// When a send is tried again, at first and at last.
const SOON: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_secs(60);

/// The connection to journald.
pub struct Journal {
    socket: OwnedFd,
    to: SocketAddrUnix,
    /// Entries that were not taken yet, the oldest first.
    kept: VecDeque<Vec<u8>>,
    due: Option<Instant>,
    wait: Duration,
    lost: u64,
    /// The run ends, and nothing is kept any more.
    ending: bool,
    /// Lost entries that were counted in a line since then.
    counted_at_end: u64,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("kept", &self.kept.len())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Sends to the journald at this path, which may start later.
    ///
    /// # Errors
    /// If this process cannot open a socket.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(Self {
            socket: socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?,
            to: SocketAddrUnix::new(path)?,
            kept: VecDeque::new(),
            due: None,
            wait: SOON,
            lost: 0,
            ending: false,
            counted_at_end: 0,
        })
    }

    /// Sends the kept entries, as far as journald takes them.
    fn flush(&mut self) {
        while let Some(entry) = self.kept.front() {
            match self.send(entry) {
                Ok(()) => {
                    self.kept.pop_front();
                    self.wait = SOON;
                }
                Err(Errno::INTR) => {}
                // Another try would fail too.
                Err(Errno::MSGSIZE | Errno::INVAL) => {
                    self.kept.pop_front();
                    self.lost = self.lost.saturating_add(1);
                }
                Err(_) => {
                    self.due = Instant::now().checked_add(self.wait);
                    self.wait = LATE.min(self.wait * 2);
                    return;
                }
            }
        }
        self.due = None;
    }

    /// How many entries are kept.
    fn left(&self) -> u64 {
        u64::try_from(self.kept.len()).unwrap_or(u64::MAX)
    }

    fn send(&self, entry: &[u8]) -> Result<(), Errno> {
        match sendto(&self.socket, entry, SendFlags::NOSIGNAL, &self.to) {
            Ok(_) => Ok(()),
            // Larger than the socket's limit.
            Err(Errno::MSGSIZE) => self.send_file(entry),
            Err(errno) => Err(errno),
        }
    }

    /// Entries that standard error reports at the end. The line that counts the last ones may not be written either.
    fn not_taken_at_end(&self) -> u64 {
        self.lost.saturating_add(self.left()).saturating_add(self.counted_at_end)
    }

    /// Through a sealed file without a name, which nobody can change.
    fn send_file(&self, entry: &[u8]) -> Result<(), Errno> {
        let file = memfd_create("oomtrace", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        if write(&file, entry)? != entry.len() {
            return Err(Errno::MSGSIZE);
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [file.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::MSGSIZE);
        }
        let nothing = [IoSlice::new(&[])];
        sendmsg_addr(&self.socket, &self.to, &nothing, &mut control, SendFlags::NOSIGNAL).map(drop)
    }
}

impl BestEffort for Journal {
    fn take(&mut self, event: &Event) {
        let kept: usize = self.kept.iter().map(Vec::len).sum();
        match fields::entry(event).filter(|entry| kept + entry.len() <= KEPT_BYTES) {
            Some(entry) => self.kept.push_back(entry),
            // A lost entry about lost entries is not counted again.
            None if matches!(event, Event::Lost(lost) if lost.reason == LossReason::Journal) => {}
            None => self.lost = self.lost.saturating_add(1),
        }
        // Kept entries must go first.
        if self.due.is_none_or(|due| due <= Instant::now()) {
            self.flush();
        }
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn write(&mut self, _: &Condition) {
        self.flush();
    }

    fn take_lost(&mut self) -> Option<(LossReason, u64)> {
        let lost = std::mem::take(&mut self.lost);
        if self.ending {
            self.counted_at_end = self.counted_at_end.saturating_add(lost);
        }
        (lost > 0).then_some((LossReason::Journal, lost))
    }

    fn give_up(&mut self) {
        self.lost = self.lost.saturating_add(self.left());
        self.kept.clear();
        self.ending = true;
    }

    fn end(&mut self, _: &Condition) {
        self.flush();
        let left = self.not_taken_at_end();
        if left > 0 {
            say(&format!("oomtrace: journald did not take the last {left} entries"));
        }
    }
}

/// Why entries would be missing or there twice; `None` if nothing is wrong.
pub fn limit() -> Option<String> {
    if let Err(error) = fs::symlink_metadata(SOCKET) {
        return Some(format!(
            "--journal: journald does not listen at {SOCKET} ({error}): entries are kept for a while, then counted as lost"
        ));
    }
    // systemd sets this variable if it connects standard output to the journal (systemd.exec(5)).
    let stream = env::var("JOURNAL_STREAM").ok()?;
    let stdout = rustix::fs::fstat(rustix::stdio::stdout()).ok()?;
    (stream == format!("{}:{}", stdout.st_dev, stdout.st_ino)).then(|| {
        "--journal: standard output goes to the journal too, so each event is there twice (write lines to a file: --file)".into()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{fs::File, io::Read, os::unix::net::UnixDatagram};

    use rustix::net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::set_socket_send_buffer_size,
    };

    use super::*;

    #[test]
    fn what_is_kept_at_the_end_is_counted_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::at(&dir.path().join("nobody")).unwrap();
        journal.kept.extend([b"MESSAGE=1\n".to_vec(), b"MESSAGE=2\n".to_vec()]);
        journal.flush();
        assert_eq!(journal.take_lost(), None);
        journal.give_up();
        assert_eq!((journal.take_lost(), journal.take_lost()), (Some((LossReason::Journal, 2)), None));
        // The line that counts these, and the last one: neither is taken.
        journal.kept.extend([b"MESSAGE=3\n".to_vec(), b"MESSAGE=4\n".to_vec()]);
        assert_eq!(journal.not_taken_at_end(), 4);
    }

    #[test]
    fn an_entry_that_is_too_large_for_the_socket_goes_as_a_sealed_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::at(&path).unwrap();
        set_socket_send_buffer_size(&journal.socket, 1).unwrap();
        let entry = [b"MESSAGE=".as_slice(), &[b'x'; 6000], b"\n"].concat();
        journal.kept.push_back(entry.clone());
        journal.flush();
        assert_eq!((journal.kept.len(), journal.lost), (0, 0));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&journald, &mut [], &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(received.bytes, 0);
        let Some(RecvAncillaryMessage::ScmRights(mut files)) = control.drain().next() else { unreachable!() };
        let fd = files.next().unwrap();
        let seals = rustix::fs::fcntl_get_seals(&fd).unwrap();
        assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        let mut text = Vec::new();
        // The reader starts at its own position, because journald maps the file.
        File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)))
            .unwrap()
            .read_to_end(&mut text)
            .unwrap();
        assert_eq!(text, entry);
    }
}

//! `/metrics` over HTTP: a separate thread does everything that a client can slow down. It asks the event
//! loop for a page, so a tracer that hangs gives no answer.

mod address;
mod connection;

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{read, write},
    net::{SocketFlags, accept_with},
};

pub use address::Address;
use connection::Connection;

use crate::{
    host::protection,
    outputs::metrics::page::{gauge, head},
};

/// The most connections. If all are used, the oldest is closed.
const CONNECTIONS: usize = 8;
/// A page is used for other requests for this long, so that many requests do not keep the loop busy.
const FRESH: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 128 << 10;

/// The loop's side of the endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Readable when a page is requested.
    asked: OwnedFd,
    /// `None` after the end.
    pages: Option<SyncSender<String>>,
    /// Wakes the thread.
    wake: Arc<OwnedFd>,
    /// The socket's path, to be removed.
    path: Option<PathBuf>,
}

impl Endpoint {
    /// Opens the socket and starts the thread.
    ///
    /// # Errors
    /// If one of these fails.
    pub(super) fn start(at: &Address) -> io::Result<Self> {
        let socket = at.listen()?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let asked = eventfd(0, flags)?;
        let wake = Arc::new(eventfd(0, flags)?);
        let (pages, theirs) = sync_channel(1);
        let server = Server {
            socket,
            asks: asked.try_clone()?,
            wake: Arc::clone(&wake),
            pages: theirs,
            page: None,
            asking: false,
            began: SystemTime::now(),
        };
        thread::Builder::new().name("metrics".into()).stack_size(STACK_BYTES).spawn(move || {
            protection::ordinary();
            server.serve();
        })?;
        let path = match at {
            Address::Unix(path) => Some(path.clone()),
            _ => None,
        };
        Ok(Self { asked, pages: Some(pages), wake, path })
    }

    /// Readable when a page is requested.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.asked.as_fd()
    }

    /// Whether a page is requested. True only once for each request.
    pub(super) fn is_asked(&self) -> bool {
        read(&self.asked, &mut [0; 8]).is_ok()
    }

    /// Passes the requested page to the thread.
    pub(super) fn answer(&self, page: String) {
        // If it is full, the thread has a page that it has not taken yet, and asks again.
        let _full = self.pages.as_ref().map(|pages| pages.try_send(page));
        signal(&self.wake);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.pages = None;
        signal(&self.wake);
        if let Some(path) = &self.path {
            let _gone_already = fs::remove_file(path);
        }
    }
}

fn signal(eventfd: &OwnedFd) {
    let _it_is_up_already = write(eventfd, &1u64.to_ne_bytes());
}

/// The thread.
struct Server {
    socket: OwnedFd,
    asks: OwnedFd,
    wake: Arc<OwnedFd>,
    pages: Receiver<String>,
    /// The last page, and when it arrived.
    page: Option<(String, Instant)>,
    /// A page was requested and has not arrived.
    asking: bool,
    began: SystemTime,
}

impl Server {
    fn serve(mut self) {
        let mut connections: Vec<Connection> = Vec::with_capacity(CONNECTIONS);
        while self.take_page() {
            self.answer(&mut connections);
            let now = Instant::now();
            connections.retain(|connection| !connection.is_done(now));
            let Some(ready) = self.wait(&connections, now) else { return };
            for (connection, ready) in connections.iter_mut().zip(ready.connections) {
                if !ready.is_empty() {
                    connection.go_on(ready.intersects(PollFlags::ERR | PollFlags::HUP));
                }
            }
            if ready.socket {
                self.accept(&mut connections);
            }
        }
    }

    /// Takes a page. Returns false when the tracer ends.
    fn take_page(&mut self) -> bool {
        // The wake-up is cleared before the page is taken.
        let _not_woken = read(&*self.wake, &mut [0; 8]);
        match self.pages.try_recv() {
            Ok(mut page) => {
                about_the_process(self.began, &mut page);
                self.page = Some((page, Instant::now()));
                self.asking = false;
                true
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        }
    }

    /// Answers waiting connections, or requests the page for them.
    fn answer(&mut self, connections: &mut [Connection]) {
        for connection in connections.iter_mut().filter(|connection| connection.waits()) {
            match &self.page {
                Some((page, came)) if came.elapsed() < FRESH => connection.answer(page),
                _ if !self.asking => {
                    self.asking = true;
                    signal(&self.asks);
                }
                _ => {}
            }
        }
    }

    fn accept(&self, connections: &mut Vec<Connection>) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // One connection at a time. The next one stays in the queue.
        if let Ok(fd) = accept_with(&self.socket, flags) {
            if connections.len() >= CONNECTIONS {
                connections.remove(0);
            }
            connections.push(Connection::new(fd, Instant::now()));
        }
    }

    /// Sleeps until something is ready or a connection's time is over. `None` if it cannot sleep.
    fn wait(&self, connections: &[Connection], now: Instant) -> Option<Ready> {
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(connections.iter().map(|connection| {
            let (fd, flags) = connection.waits_for();
            PollFd::from_borrowed_fd(fd, flags)
        }));
        let left =
            connections.iter().map(|connection| connection.until().saturating_duration_since(now)).min();
        let left = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        let mut ready = fds.iter().map(PollFd::revents).skip(1);
        let socket = ready.next().is_some_and(|flags| !flags.is_empty());
        Some(Ready { socket, connections: ready.collect() })
    }
}

/// What is ready.
struct Ready {
    socket: bool,
    connections: Vec<PollFlags>,
}

/// Prometheus's usual metrics of a process. Not for the file, because node_exporter has these names itself.
fn about_the_process(began: SystemTime, page: &mut String) {
    const START: &str = "process_start_time_seconds";
    head(page, START, "When the process started.", "gauge");
    if let Ok(began) = began.duration_since(UNIX_EPOCH) {
        page.push_str(&format!("{START} {}.{:03}\n", began.as_secs(), began.subsec_millis()));
    }
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(0);
    let bytes = pages.and_then(|pages| pages.checked_mul(page_bytes));
    let series = bytes.map(|bytes| (String::new(), bytes));
    gauge(page, "process_resident_memory_bytes", "Resident memory of the process.", series);
}

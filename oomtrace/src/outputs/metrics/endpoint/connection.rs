//! One connection: reads a request of limited size, within a limited time, writes one answer, and closes.
//! Never waits.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::{Errno, read},
    net::{SendFlags, send},
};

/// The most bytes of a request.
const REQUEST_BYTES: usize = 8 << 10;
/// The longest time of a connection.
const TIME: Duration = Duration::from_secs(5);

/// The state of a connection.
#[derive(Debug)]
enum State {
    /// It reads the request.
    Reads(Vec<u8>),
    /// It waits for the page.
    Waits,
    /// It writes the answer, from this byte on.
    Writes(Vec<u8>, usize),
    /// Everything is written, or the other side is gone.
    Done,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    fd: OwnedFd,
    until: Instant,
    state: State,
}

/// What is requested.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Metrics,
    /// The error status to answer.
    Refused(&'static str),
}

impl Connection {
    /// A new connection, which does not block.
    pub(super) fn new(fd: OwnedFd, now: Instant) -> Self {
        Self { fd, until: now + TIME, state: State::Reads(Vec::new()) }
    }

    /// The events to wait for.
    pub(super) fn waits_for(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = match self.state {
            State::Reads(_) => PollFlags::IN,
            State::Writes(..) => PollFlags::OUT,
            // Only whether the other side closes.
            State::Waits | State::Done => PollFlags::empty(),
        };
        (self.fd.as_fd(), flags)
    }

    /// When it is closed.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn is_done(&self, now: Instant) -> bool {
        matches!(self.state, State::Done) || self.until <= now
    }

    /// Whether it waits for the page.
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Waits)
    }

    /// Continues after its descriptor was ready.
    pub(super) fn go_on(&mut self, gone: bool) {
        match &mut self.state {
            State::Reads(_) => self.read(),
            State::Writes(..) => self.write(),
            State::Waits if gone => self.state = State::Done,
            State::Waits | State::Done => {}
        }
    }

    /// Writes the page.
    pub(super) fn answer(&mut self, page: &str) {
        if self.waits() {
            self.say("200 OK", "text/plain; version=0.0.4; charset=utf-8", page);
        }
    }

    fn read(&mut self) {
        let State::Reads(request) = &mut self.state else { return };
        let mut bytes = [0; 1024];
        match read(&self.fd, &mut bytes) {
            Ok(0) => self.state = State::Done,
            Ok(count) => {
                request.extend_from_slice(bytes.get(..count).unwrap_or_default());
                match parse(request) {
                    None if request.len() < REQUEST_BYTES => {}
                    None => self.refuse("431 Request Header Fields Too Large"),
                    Some(Request::Metrics) => self.state = State::Waits,
                    Some(Request::Refused(status)) => self.refuse(status),
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.state = State::Done,
        }
    }

    fn refuse(&mut self, status: &str) {
        self.say(status, "text/plain; charset=utf-8", "GET /metrics\n");
    }

    fn say(&mut self, status: &str, kind: &str, body: &str) {
        let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{allow}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.state = State::Writes([head.as_bytes(), body.as_bytes()].concat(), 0);
        self.write();
    }

    fn write(&mut self) {
        let State::Writes(answer, written) = &mut self.state else { return };
        match send(&self.fd, answer.get(*written..).unwrap_or_default(), SendFlags::NOSIGNAL) {
            Ok(count) => *written += count,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => *written = answer.len(),
        }
        if *written >= answer.len() {
            self.state = State::Done;
        }
    }
}

/// Parses a request when its head is complete.
fn parse(request: &[u8]) -> Option<Request> {
    let is_whole = request.windows(4).any(|four| four == b"\r\n\r\n");
    if !is_whole {
        return None;
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Some(Request::Refused("400 Bad Request"));
    };
    if !version.starts_with(b"HTTP/1.") {
        return Some(Request::Refused("400 Bad Request"));
    }
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    Some(match (method, path) {
        (b"GET", b"/metrics") => Request::Metrics,
        (b"GET", _) => Request::Refused("404 Not Found"),
        _ => Request::Refused("405 Method Not Allowed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_is_answered_and_every_other_is_refused() {
        let request = |line: &str| parse(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(request("GET /metrics HTTP/1.1"), Some(Request::Metrics));
        assert_eq!(request("GET /metrics?name=a HTTP/1.0"), Some(Request::Metrics));
        for (line, status) in [
            ("GET / HTTP/1.1", "404 Not Found"),
            ("GET /metrics/../etc HTTP/1.1", "404 Not Found"),
            ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
            ("HEAD /metrics HTTP/1.1", "405 Method Not Allowed"),
            ("GET /metrics", "400 Bad Request"),
            ("GET /metrics HTTP/2", "400 Bad Request"),
            ("GET /a b HTTP/1.1", "400 Bad Request"),
            ("", "400 Bad Request"),
            ("\0\u{fffd}", "400 Bad Request"),
        ] {
            assert_eq!(request(line), Some(Request::Refused(status)), "{line}");
        }
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\n"), None);
    }
}

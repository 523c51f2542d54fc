//! Asks a runtime itself if its files do not answer: Docker through its socket, Podman through its program,
//! because Podman has no daemon. A runtime that does not answer is not asked again for a while.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};
use serde::Deserialize;

use crate::{
    containers::{discover::StateDirs, files::FILE_MAX_BYTES},
    sources::verdict::{
        program,
        state::{DockerState, Home, Says, podman_says},
    },
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a daemon that did not answer is not asked again. A hundred kills must not each wait for it.
const SILENCE: Duration = Duration::from_secs(30);
/// Podman starts a new process for each question, and it reads its database first.
const PODMAN_ANSWER: Duration = Duration::from_secs(10);
const PODMAN: &str = "/usr/bin/podman";

/// The runtimes that can be asked, and whether they answer.
#[derive(Debug, Default)]
pub(super) struct Daemon {
    docker_silent_since: Option<Instant>,
    podman_silent_since: Option<Instant>,
}

/// Whether it recently did not answer in time.
fn is_silent(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() < SILENCE)
}

impl Daemon {
    /// What the runtime says about its container; `None` if it cannot be asked, and the files decide.
    pub(super) fn ask(&mut self, home: &Home, dirs: &StateDirs, id: &str) -> Option<Says> {
        match home {
            Home::Docker { asked: true, .. } => {
                if is_silent(self.docker_silent_since) {
                    return None;
                }
                // A daemon that does not know the container is another daemon, and its answer does not count.
                dirs.docker_sockets.iter().find_map(|socket| match docker(socket, id) {
                    Ok(says) => says,
                    Err(error) => {
                        let late = matches!(
                            error.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        );
                        self.docker_silent_since = late.then(Instant::now).or(self.docker_silent_since);
                        None
                    }
                })
            }
            Home::Podman(_) if is_silent(self.podman_silent_since) => {
                Some(Says::Unknown("podman did not answer in time when it was last asked".to_owned()))
            }
            Home::Podman(dir) => {
                let began = Instant::now();
                let says = podman(&dir.path(), id).unwrap_or_else(Says::Unknown);
                self.podman_silent_since = (began.elapsed() >= PODMAN_ANSWER).then(Instant::now);
                Some(says)
            }
            // The files say all that the CRI runtimes know. A user's socket or program is not asked: it could
            // be anything.
            Home::Docker { asked: false, .. } | Home::Cri(_) | Home::CriO(_) | Home::UserPodman => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    state: DockerState,
}

/// `GET /containers/ID/json`. `id` is 64 hex digits.
fn docker(socket: &Path, id: &str) -> std::io::Result<Option<Says>> {
    let deadline = Instant::now() + ANSWER;
    let mut stream = connect(socket)?;
    // HTTP 1.0, because the answer then comes in one piece and ends with the connection.
    write!(stream, "GET /containers/{id}/json HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(parse(&answer, id));
        }
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if u64::try_from(answer.len()).is_ok_and(|len| len > FILE_MAX_BYTES) {
            return Ok(None);
        }
    }
}

/// If the daemon hangs and its queue is full, `connect` fails after the same time as an answer: it uses the
/// timeout of writes.
fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&stream, Timeout::Send, Some(ANSWER))?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    Ok(UnixStream::from(stream))
}

/// The state in an answer with status `200` about this container.
fn parse(answer: &[u8], id: &str) -> Option<Says> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let status = answer.split(|byte| *byte == b' ').nth(1)?;
    let body = answer.get(end + 4..).filter(|_| status == b"200")?;
    let inspected: Inspected = serde_json::from_slice(body).ok()?;
    (inspected.id == id).then(|| inspected.state.says())
}

/// Runs `podman container inspect`. The error says why there is no answer.
fn podman(root: &Path, id: &str) -> Result<Says, String> {
    let root = root.as_os_str();
    let words = ["container", "inspect", "--format", "{{json .State}}", id].map(AsRef::as_ref);
    let words = ["--root".as_ref(), root].into_iter().chain(words);
    let said = program::run(Path::new(PODMAN), words, PODMAN_ANSWER);
    let said = said.map_err(|error| format!("cannot run {PODMAN}: {error}"))?;
    let Some(ended) = said.status else {
        return Err(format!("podman did not answer within {} s", PODMAN_ANSWER.as_secs()));
    };
    if ended.success() {
        return Ok(podman_says(&said.stdout));
    }
    let words = String::from_utf8_lossy(&said.stderr);
    Err(format!("podman failed: {ended}: {}", words.trim_end().lines().next_back().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::containers::files::StateDir;

    const ID: &str = "ab";

    fn answer(status: &str, id: &str) -> Vec<u8> {
        let state = r#"{"Status":"running","Running":true,"OOMKilled":true,"ExitCode":0}"#;
        format!("HTTP/1.0 {status}\r\nServer: x\r\n\r\n{{\"Id\":\"{id}\",\"State\":{state}}}").into_bytes()
    }

    #[test]
    fn only_the_container_s_own_daemon_counts() {
        let says = parse(&answer("200 OK", ID), ID);
        assert!(matches!(says, Some(Says::Settled(says)) if says.status.as_deref() == Some("running")));
        assert!(parse(&answer("404 Not Found", ID), ID).is_none());
        assert!(parse(&answer("200 OK", "cd"), ID).is_none());
        assert!(parse(b"HTTP/1.0 200 OK\r\n\r\n{", ID).is_none());
        assert!(parse(b"", ID).is_none());
    }

    #[test]
    fn nobody_waits_in_the_queue_of_a_daemon_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        // The listener accepts no connection, and its queue has room for one.
        let _waits = connect(&socket).unwrap();
        assert_eq!(connect(&socket).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_daemon_that_hangs_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let home = Home::Docker { dir: StateDir::system(dir.path()), asked: true };
        let dirs = StateDirs { docker_sockets: vec![socket], ..StateDirs::default() };
        let mut daemon = Daemon::default();
        assert!(daemon.ask(&home, &dirs, ID).is_none());
        assert!(daemon.docker_silent_since.is_some());
    }
}

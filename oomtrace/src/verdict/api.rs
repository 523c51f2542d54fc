//! Asks a runtime itself, where its files leave it open: Docker over its socket, Podman by its
//! program, which is all there is of it. One that does not answer is left alone for a while.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::state::{DockerState, Home, Says, podman_says};
use crate::enrich::containers::discover::StateDirs;
use crate::enrich::containers::files::{FILE_MAX_BYTES, StateDir};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a daemon that did not answer is left alone: a hundred kills must not wait for it one by one.
const SILENCE: Duration = Duration::from_secs(30);
/// Podman starts anew for each question, and reads its database first.
const PODMAN_ANSWER: Duration = Duration::from_secs(5);
const PODMAN: &str = "/usr/bin/podman";

/// The daemons, and whether they answer.
#[derive(Debug, Default)]
pub(super) struct Daemon {
    silent_since: Option<Instant>,
}

impl Daemon {
    /// What the runtime says of its container; `None` where it says nothing.
    pub(super) fn ask(&mut self, home: &Home, dirs: &StateDirs, id: &str) -> Option<Says> {
        match home {
            Home::Docker(_) => {
                if self.silent_since.is_some_and(|since| since.elapsed() < SILENCE) {
                    return None;
                }
                // Those that do not know it are other daemons: their word does not count.
                dirs.docker_sockets.iter().find_map(|socket| match docker(socket, id) {
                    Ok(says) => says,
                    Err(error) => {
                        let late = matches!(
                            error.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        );
                        self.silent_since = late.then(Instant::now).or(self.silent_since);
                        None
                    }
                })
            }
            Home::Podman(dir) => podman(dir, id),
            // Its file says all that the plugin knows.
            Home::Cri(_) => None,
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
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(ANSWER))?;
    // Of HTTP 1.0 because the answer then comes in one piece and ends with the connection.
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

/// The state in an answer that says `200` and is about the container.
fn parse(answer: &[u8], id: &str) -> Option<Says> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let status = answer.split(|byte| *byte == b' ').nth(1)?;
    let body = answer.get(end + 4..).filter(|_| status == b"200")?;
    let inspected: Inspected = serde_json::from_slice(body).ok()?;
    (inspected.id == id).then(|| inspected.state.says())
}

/// Takes back that this process may not be a victim: its children may.
fn as_any_other() -> std::io::Result<()> {
    let file =
        rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, b"0")?;
    Ok(())
}

/// `podman container inspect`.
fn podman(dir: &StateDir, id: &str) -> Option<Says> {
    let deadline = Instant::now() + PODMAN_ANSWER;
    let mut command = Command::new(PODMAN);
    // SAFETY: between fork and exec it makes three system calls and takes no memory.
    unsafe { command.pre_exec(as_any_other) };
    let mut child = command
        .arg("--root")
        .arg(dir.path())
        .args(["container", "inspect", "--format", "{{json .State}}", id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) | Err(_) => {
                // It may have ended just now.
                let _ended = child.kill();
                let _waited = child.wait();
                return None;
            }
        }
    };
    let mut output = Vec::new();
    // A state is a few hundred bytes, which the pipe holds while nobody reads.
    child.stdout.take()?.take(FILE_MAX_BYTES).read_to_end(&mut output).ok()?;
    ended.then(|| podman_says(&output))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

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
    fn a_daemon_that_hangs_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let home = Home::Docker(StateDir::system(dir.path()));
        let dirs = StateDirs { docker_sockets: vec![socket], ..StateDirs::default() };
        let mut daemon = Daemon::default();
        assert!(daemon.ask(&home, &dirs, ID).is_none());
        assert!(daemon.silent_since.is_some());
    }
}

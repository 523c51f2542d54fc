//! The program under test: `oomtrace run -o json`, its lines as they arrive, and its end.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::counters::wall_clock_ns;
use crate::patience::until;
use crate::process::send_signal;
use crate::schema::Schema;

/// `--hook`: how oomtrace may read the OOM killer's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Hook {
    /// The best that loads.
    #[default]
    Auto,
    /// fentry or nothing.
    Fentry,
    /// kprobe or nothing.
    Kprobe,
    /// The killer's state is found in its kernel stack.
    None,
}

impl Hook {
    /// As on oomtrace's command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::None => "none",
        }
    }
}

/// One line of output.
#[derive(Clone, Debug)]
pub struct Line {
    /// The text without the newline.
    pub text: String,
    /// The text parsed as JSON.
    pub value: Value,
    /// When it arrived, ns of the wall clock.
    pub read_at_ns: i128,
}

impl Line {
    /// The value at a dotted path.
    pub fn get(&self, path: &str) -> Option<&Value> {
        at(&self.value, path)
    }

    /// `type`.
    pub fn kind(&self) -> &str {
        self.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it reports an action of the kernel. Some of these have no `seq`, because it needs the OOM
    /// killer's lock.
    pub fn is_event(&self) -> bool {
        matches!(self.kind(), "oom_kill" | "shared_mm_kill" | "memcg_oom" | "signal_kill")
    }

    /// A number at a dotted path.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.get(path).and_then(Value::as_u64)
    }
}

/// The value at a dotted path; `missing.KEY` is the reason why KEY is absent.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(key) = path.strip_prefix("missing.") {
        return absence(value, key)?.get("reason");
    }
    path.split('.').try_fold(value, |value, key| value.get(key))
}

/// The entry of `missing` for a key.
pub fn absence<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get("missing")?.as_array()?.iter().find(|absence| absence.get("key").is_some_and(|of| of == key))
}

/// The `detail` of an entry of `missing`; empty if there is none.
pub fn detail<'a>(value: &'a Value, key: &str) -> &'a str {
    absence(value, key).and_then(|absence| absence.get("detail")?.as_str()).unwrap_or_default()
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    trouble: Option<String>,
    ended: bool,
}

/// A running oomtrace.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    schema: Schema,
    checked: usize,
    last_seq: Option<u64>,
    start: Line,
}

impl Tracer {
    /// Starts it and waits until it is attached.
    pub fn start(binary: &Path, hook: Hook) -> Result<Self> {
        Self::start_with(binary, hook, &[])
    }

    /// The same, without these capabilities.
    pub fn start_without(binary: &Path, hook: Hook, capabilities: &'static [libc::c_ulong]) -> Result<Self> {
        Self::start_prepared(binary, hook, &[], |command| {
            // SAFETY: system calls with numbers, which is all that may be done between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    let drop = |of: &libc::c_ulong| libc::prctl(libc::PR_CAPBSET_DROP, *of, 0, 0, 0) == 0;
                    if capabilities.iter().all(drop) { Ok(()) } else { Err(std::io::Error::last_os_error()) }
                });
            }
            Ok(())
        })
    }

    /// The same, with more options of `oomtrace run`.
    pub fn start_with(binary: &Path, hook: Hook, options: &[&str]) -> Result<Self> {
        Self::start_prepared(binary, hook, options, |_| Ok(()))
    }

    /// The same. `prepare` changes the command before it is started.
    pub fn start_prepared(
        binary: &Path,
        hook: Hook,
        options: &[&str],
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let schema = Schema::of(binary)?;
        let mut command = Command::new(binary);
        command
            .args(["run", "-o", "json", "--hook", hook.word()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        prepare(&mut command)?;
        // It must end when the test is killed. SAFETY: system calls with numbers, which is all that is
        // allowed between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let mut child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("no stdout"))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let reader = std::thread::Builder::new().name("lines".into()).spawn(move || read(stdout, &theirs))?;
        let mut tracer = Self {
            child,
            shared,
            reader: Some(reader),
            schema,
            checked: 0,
            last_seq: None,
            start: Line { text: String::new(), value: Value::Null, read_at_ns: 0 },
        };
        let lines = tracer.wait_for("the start line", |lines| (!lines.is_empty()).then(|| lines.to_vec()))?;
        tracer.start = lines.first().cloned().ok_or_else(|| anyhow!("no line"))?;
        ensure!(tracer.start.kind() == "start", "the first line is not start: {}", tracer.start.text);
        if hook != Hook::Auto {
            let attached = tracer.attached();
            ensure!(attached == hook.word(), "--hook {}, but the start line says {attached}", hook.word());
        }
        Ok(tracer)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended although it was not asked to.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// The start line.
    pub fn start_line(&self) -> &Line {
        &self.start
    }

    /// How it reads the OOM killer's state, from its start line.
    pub fn attached(&self) -> String {
        self.attached_as("oom_kill_process")
    }

    /// How a program of this name runs, from its start line.
    pub fn attached_as(&self, name: &str) -> String {
        let hooks = self.start.get("hooks").and_then(Value::as_array);
        let hook = hooks.into_iter().flatten().find(|hook| at(hook, "name") == Some(&name.into()));
        let how = hook.and_then(|hook| at(hook, "attached")).and_then(Value::as_str);
        how.unwrap_or("none").to_owned()
    }

    /// Waits until `find` finds something in all lines since the start.
    pub fn wait_for<T>(&mut self, what: &str, find: impl Fn(&[Line]) -> Option<T>) -> Result<T> {
        until(what, || {
            let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = find(&state.lines) {
                return Ok(Some(found));
            }
            if let Some(trouble) = &state.trouble {
                bail!("oomtrace's output: {trouble}");
            }
            if state.ended {
                drop(state);
                bail!("oomtrace ended before {what}: {}", self.child.wait()?);
            }
            Ok(None)
        })
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// Checks the lines that arrived since the last call: schema, length, no missing `seq`, no loss.
    pub fn check_new_lines(&mut self) -> Result<()> {
        let lines = self.lines();
        for line in lines.get(self.checked..).unwrap_or_default() {
            self.checked += 1;
            self.schema.check(line)?;
            ensure!(line.text.len() < 4096, "a line of {} bytes: {}", line.text.len() + 1, line.text);
            ensure!(!matches!(line.kind(), "lost" | "gap"), "oomtrace reports a loss: {}", line.text);
            if let Some(seq) = line.number("seq") {
                if let Some(last) = self.last_seq {
                    ensure!(
                        seq == last + 1,
                        "field seq: expected {}, oomtrace {seq}: {}",
                        last + 1,
                        line.text
                    );
                }
                self.last_seq = Some(seq);
            }
        }
        Ok(())
    }

    /// Stops it with SIGSTOP, or continues it.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.signal(if frozen { libc::SIGSTOP } else { libc::SIGCONT })
    }

    /// Ends it normally: its last line must be `stop`, its exit code 0. Returns every line of the run.
    pub fn stop(mut self) -> Result<Vec<Line>> {
        self.signal(libc::SIGTERM)?;
        let status = until("oomtrace's end after SIGTERM", || Ok(self.child.try_wait()?))?;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow!("the reader of lines panicked"))?;
        }
        ensure!(status.success(), "oomtrace, after SIGTERM: {status}");
        self.check_new_lines()?;
        let lines = self.lines();
        let last = lines.last().ok_or_else(|| anyhow!("no line"))?;
        ensure!(last.kind() == "stop", "the last line is not stop: {}", last.text);
        ensure!(
            last.get("reason") == Some(&"SIGTERM".into()),
            "field reason: expected SIGTERM: {}",
            last.text
        );
        ensure!(last.number("lost") == Some(0), "field lost: expected 0: {}", last.text);
        let told = lines.iter().filter(|line| line.is_event()).count();
        ensure!(last.number("events") == Some(told as u64), "field events: expected {told}: {}", last.text);
        Ok(lines)
    }

    fn signal(&self, signal: libc::c_int) -> Result<()> {
        send_signal(self.pid(), signal).context("oomtrace")
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
    }
}

fn read(stdout: ChildStdout, shared: &Shared) {
    let mut stdout = BufReader::new(stdout);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let result = stdout.read_until(b'\n', &mut bytes);
        let read_at_ns = wall_clock_ns();
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(result, Ok(read) if read > 0) {
            state.ended = true;
            return;
        }
        match parse(&bytes, read_at_ns) {
            Ok(line) => state.lines.push(line),
            Err(error) => state.trouble = Some(format!("{error:#}")),
        }
    }
}

fn parse(bytes: &[u8], read_at_ns: i128) -> Result<Line> {
    let lossy = || String::from_utf8_lossy(bytes).into_owned();
    let text = bytes.strip_suffix(b"\n").with_context(|| format!("a line without an end: {}", lossy()))?;
    let text = std::str::from_utf8(text).with_context(|| format!("not UTF-8: {}", lossy()))?;
    let value = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
    no_key_twice(text)?;
    Ok(Line { text: text.to_owned(), value, read_at_ns })
}

/// With a second key of the same name, a container's text could pass for oomtrace's.
fn no_key_twice(text: &str) -> Result<()> {
    struct Strict;
    impl<'de> DeserializeSeed<'de> for Strict {
        type Value = ();
        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Strict {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JSON without a key twice")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut keys = BTreeSet::new();
            while let Some(key) = map.next_key::<String>()? {
                map.next_value_seed(Self)?;
                if keys.contains(&key) {
                    return Err(serde::de::Error::custom(format!("key {key} twice")));
                }
                keys.insert(key);
            }
            Ok(())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while seq.next_element_seed(Self)?.is_some() {}
            Ok(())
        }
        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }
        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }
        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }
        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }
        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    }
    use serde::de::DeserializeSeed;
    Strict.deserialize(&mut serde_json::Deserializer::from_str(text)).with_context(|| text.to_owned())
}

/// Where the binary is: `TEST_OOMTRACE_BIN`, else what `cargo xtask build` leaves.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("TEST_OOMTRACE_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/oomtrace"),
        PathBuf::from,
    );
    ensure!(path.exists(), "{} does not exist; run: cargo xtask build", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_line_is_whole_json_with_each_key_once() {
        assert!(parse(b"{\"a\":{\"b\":[1,-1,0.5,null,true,\"x\"]}}\n", 0).is_ok());
        assert!(parse(b"{\"a\":1}", 0).is_err());
        assert!(parse(b"{\"a\":1,\"a\":1}\n", 0).is_err());
        assert!(parse(b"{\"a\":[{\"b\":1,\"b\":2}]}\n", 0).is_err());
        assert!(parse(b"{\"a\":\"\xff\"}\n", 0).is_err());
        assert!(parse(b"{\"a\":1}{}\n", 0).is_err());
    }
}

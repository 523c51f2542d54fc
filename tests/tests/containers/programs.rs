//! Real programs that leak until their container is full: what `oomtrace explain` says of each is compared with what the program
//! itself said, what Docker was told, and what the kernel's log says. History runs at a hundred times its usual pace.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::output;
use oomtrace_tests::kernel_log::{KernelLog, LoggedKill};
use oomtrace_tests::patience::until;
use oomtrace_tests::tracer::{self, Hook, Line, Tracer};
use serde_json::Value;

use crate::Case;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[("programs_that_leak", programs_that_leak)];

const MIB: u64 = 1 << 20;
/// Bytes of a piece that a program keeps.
const PIECE: u64 = 256 << 10;
/// Where the host's programs are.
const PATH: &str = "/usr/bin:/bin";
/// At this pace, ten minutes.
const BEFORE_IT_LEAKS: Duration = Duration::from_secs(6);

/// A program that keeps all that it was given.
struct Program {
    /// Its `comm`.
    name: &'static str,
    /// The name of its file, and its text.
    source: (&'static str, &'static str),
    /// How it is started, in the directory of its file.
    command: &'static str,
    limit: u64,
    /// The largest part of the limit that the program itself does not know of.
    own: u64,
    /// What the card must say too.
    says: &'static [&'static str],
}

/// Each waits, then keeps a piece every 60 ms, and says how much it keeps.
const PROGRAMS: [Program; 3] = [
    Program {
        name: "node",
        source: (
            "leak.js",
            r"const fs = require('fs'), kept = [];
setTimeout(() => setInterval(() => {
  kept.push(Buffer.alloc(256 << 10, 1));
  fs.writeSync(1, `keeps ${kept.length}\n`);
}, 60), 6000);
",
        ),
        command: "exec node leak.js",
        limit: 112 * MIB,
        own: 64 * MIB,
        says: &[],
    },
    Program {
        name: "python3",
        source: (
            "leak.py",
            r"import time
kept = []
time.sleep(6)
while True:
    kept.append(b'x' * (256 << 10))
    print('keeps', len(kept), flush=True)
    time.sleep(0.06)
",
        ),
        command: "exec python3 leak.py",
        limit: 64 * MIB,
        own: 24 * MIB,
        says: &[],
    },
    Program {
        name: "java",
        source: (
            "Leak.java",
            r#"import java.util.ArrayList;

public class Leak {
    public static void main(String[] arguments) throws Exception {
        var kept = new ArrayList<byte[]>();
        Thread.sleep(6000);
        while (true) {
            kept.add(new byte[256 << 10]);
            System.out.println("keeps " + kept.size());
            Thread.sleep(60);
        }
    }
}
"#,
        ),
        command: "exec java -XX:+UseSerialGC -Xmx512m -cp . Leak",
        limit: 144 * MIB,
        own: 96 * MIB,
        says: &[
            "-Xmx allows a heap of 512.0 MiB",
            "the option of the heap: set it well below the limit of 144.0 MiB",
        ],
    },
];

/// All three at once, each in its own container.
fn programs_that_leak(world: &mut World) -> Result<()> {
    for program in &PROGRAMS {
        std::fs::write(world.gates().join(program.source.0), program.source.1)?;
    }
    let at = world.gates();
    output(Command::new("javac").arg("-d").arg(&at).arg(at.join("Leak.java")))
        .context("javac, of Debian's default-jdk-headless: cargo xtask setup --containers")?;
    for program in &PROGRAMS {
        warm(program, &at).with_context(|| program.name.to_owned())?;
    }
    let log = KernelLog::follow()?;
    let podman = format!("podman={}", world.dir().join("podman").display());
    let options = ["--history-interval", "100ms", "--runtime-root", &podman];
    let mut tracer = Tracer::start_with(&tracer::binary()?, Hook::Auto, &options)?;
    let ids = PROGRAMS.iter().map(|program| start(world, program)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(BEFORE_IT_LEAKS);
    for (program, id) in PROGRAMS.iter().zip(&ids) {
        let kill = of_container(&mut tracer, "oom_kill", id)?;
        of_container(&mut tracer, "incident", id)?;
        of_container(&mut tracer, "verdict", id)?;
        let kept = kept(world, id).with_context(|| program.name.to_owned())?;
        let file = world.dir().join("leaks.jsonl");
        let lines: String = tracer.lines().iter().map(|line| format!("{}\n", line.text)).collect();
        std::fs::write(&file, lines)?;
        let card = output(
            Command::new(tracer::binary()?).args(["explain", &format!("leak-{}", program.name)]).arg(&file),
        )?;
        // For a person to read: target/tmp/explain-NAME.txt.
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("explain-{}.txt", program.name));
        std::fs::write(to, &card)?;
        let tid = kill.number("victim.tid").context("no victim")?;
        let logged = logged(&log, tid)?;
        is_true(program, &card, kept, &logged)
            .with_context(|| format!("{}: {logged:?}\n{card}", program.name))?;
        world.watch.kill_in(id)?;
    }
    world.docker.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    tracer.stop().map(drop)
}

/// Runs it on the host until it leaks. So its files are page cache that is not charged to its container: else its own code is what the
/// kernel reclaims near the limit, and it crawls, which is not to be accelerated.
fn warm(program: &Program, dir: &Path) -> Result<()> {
    let mut command = Command::new("/bin/sh");
    let mut child = command
        .args(["-c", program.command])
        .current_dir(dir)
        .env("PATH", PATH)
        .stdout(Stdio::piped())
        .spawn()
        .context("start it")?;
    let mut said = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let keeps = said.by_ref().map_while(Result::ok).take(8).count();
    child.kill()?;
    child.wait()?;
    ensure!(keeps == 8, "it does not leak on the host");
    Ok(())
}

/// Runs the host's own program: its libraries are seen in the container, and cannot be changed there.
fn start(world: &World, program: &Program) -> Result<String> {
    let name = program.name;
    ensure!(
        Path::new("/usr/bin").join(name).exists(),
        "/usr/bin/{name} is not there: cargo xtask setup --containers installs it"
    );
    let limit = program.limit.to_string();
    let mut options = vec!["-m".to_owned(), limit.clone(), "--memory-swap".to_owned(), limit];
    for dir in
        ["/usr", "/lib", "/lib64", "/etc/alternatives"].into_iter().map(PathBuf::from).chain(java_etc())
    {
        if dir.exists() {
            options.extend(["-v".to_owned(), format!("{0}:{0}:ro", dir.display())]);
        }
    }
    options.extend(["-e".to_owned(), format!("PATH={PATH}"), "-w".to_owned(), "/gate".to_owned()]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    world.docker.run(&format!("leak-{name}"), &options, program.command)
}

/// Debian's Java has its settings there.
fn java_etc() -> impl Iterator<Item = PathBuf> {
    let names = std::fs::read_dir("/etc").into_iter().flatten().flatten().map(|entry| entry.path());
    names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("java-")))
}

fn of_container(tracer: &mut Tracer, kind: &str, id: &str) -> Result<Line> {
    let is_it =
        |line: &&Line| line.kind() == kind && line.get("container.id").and_then(Value::as_str) == Some(id);
    tracer.wait_for(&format!("the {kind} line of {id}"), |lines| lines.iter().find(is_it).cloned())
}

/// The bytes that the program said it keeps.
fn kept(world: &World, id: &str) -> Result<u64> {
    let said = world.docker.cli(&["logs", id])?;
    let last = said.lines().filter_map(|line| line.strip_prefix("keeps ")?.parse::<u64>().ok()).next_back();
    Ok(last.with_context(|| format!("it said nothing: {said}"))? * PIECE)
}

fn logged(log: &KernelLog, tid: u64) -> Result<LoggedKill> {
    until("the kernel's report", || {
        log.look(|reports| reports.kills.iter().find(|kill| u64::from(kill.killed.tid) == tid).cloned())
    })
}

/// Each sentence of the card against what is known.
fn is_true(program: &Program, card: &str, kept: u64, logged: &LoggedKill) -> Result<()> {
    let Program { name, limit, own, says, .. } = *program;
    ensure!(logged.killed.comm == name.as_bytes(), "the kernel killed another");
    let process = format!("{name}[{}]", logged.killed.tid);
    let limit_text = format!("its container reached its limit of {}.0 MiB", limit / MIB);
    ensure!(card.contains(&format!("{process} was killed: {limit_text}")), "who, and why");
    ensure!(card.starts_with(&format!("OOM kill of leak-{name} (docker)")), "whose");
    // Near its limit a program's own code is page cache that comes and goes: then the growth is that of the rest.
    let grew = ["it grew for ", ", which grew from "].iter().any(|text| card.contains(text));
    ensure!(!card.contains("a burst: ") && !card.contains("in steps"), "it was none of these");
    if name != "java" {
        ensure!(grew && card.contains(&format!("what grows in {name}")), "a steady leak");
    }
    for text in says {
        ensure!(card.contains(text), "{text} is not there");
    }
    if logged.invoked.is_none() {
        // Others on this host took the kernel's reports.
        return Ok(());
    }
    let anon = row(card, "memory of processes (anon)").context("no split")?;
    ensure!(anon <= limit && kept <= limit, "more than the limit: {anon}, {kept}");
    // What it keeps is in its memory, and the rest of its memory is its own.
    ensure!(anon + MIB >= kept && anon <= kept + own, "anon {anon}, it kept {kept}");
    if let Some(stat) = logged.stats.get("anon") {
        ensure!(stat.abs_diff(anon) <= MIB / 10, "anon: {anon}, the kernel {stat}");
    }
    let table =
        card.lines().find(|line| line.trim_start().starts_with(&process)).context("not in the table")?;
    ensure!(table.ends_with("killed"), "the table: {table}");
    Ok(())
}

/// The size in a row of the split.
fn row(card: &str, name: &str) -> Option<u64> {
    let rest = card.lines().find_map(|line| line.trim_start().strip_prefix(name))?;
    let mut words = rest.split_whitespace();
    let (whole, tenth) = words.next()?.split_once('.')?;
    let is_mib = words.next() == Some("MiB");
    is_mib.then_some(whole.parse::<u64>().ok()? * MIB + tenth.parse::<u64>().ok()? * MIB / 10)
}

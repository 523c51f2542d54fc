//! A real kill on its whole way to a webhook: oomtrace, node_exporter, Prometheus, Alertmanager. And a tracer that is dead.
//!
//! The rules and the configuration are those of docs/prometheus, with shorter times.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    daemon::{Daemon, unpacked},
    receiver::{self, Arrived},
};
use crate::build;

/// How long a kill may take to the webhook.
const KILL_TO_WEBHOOK: Duration = Duration::from_secs(30);
/// The age of the metrics file at which the tracer counts as dead here, seconds: it is written once a minute.
const OLD: u64 = 75;

/// Fails unless the first kill of a container, its end, and a dead tracer reach the webhook.
pub fn run(prometheus: &Path) -> Result<()> {
    let root = programs()?;
    let (port, arrived) = receiver::listen(receiver::webhook)?;
    let stack = Stack::make(prometheus, root, port)?;
    let mut tracer = stack.tracer()?;
    let [exporter, mut server, alertmanager] = stack.daemons()?;
    let seen = || stack.asks("oomtrace_build_info{job=\"node\"}") && stack.asks("up{job=\"oomtrace\"} == 1");
    server.until("the tracer's metrics in Prometheus", seen)?;

    let container = Container::make()?;
    let label = format!("\"container\":\"{}\"", container.name);
    let killed = Instant::now();
    container.kill()?;
    let fires =
        |arrived: &Arrived, what: &str| alert(arrived, "firing", &["\"alertname\":\"OomKill\"", what]);
    tracer.until("the alert at the webhook", || fires(&arrived, &label))?;
    let took = killed.elapsed();
    ensure!(took < KILL_TO_WEBHOOK, "from the kill to the webhook it took {} s", took.as_secs());
    eprintln!("from the kill to the webhook: {:.1} s", took.as_secs_f64());
    tracer.until("its end at the webhook", || alert(&arrived, "resolved", &[&label]))?;

    // By SIGKILL.
    drop(tracer);
    let down = "\"alertname\":\"OomtraceDown\"";
    let dead = Instant::now();
    server
        .until("the endpoint that is gone", || alert(&arrived, "firing", &[down, "\"job\":\"oomtrace\""]))?;
    eprintln!("from SIGKILL to the webhook, by the endpoint: {:.1} s", dead.elapsed().as_secs_f64());
    let file = "oomtrace.prom\"";
    server.until_within(Duration::from_secs(OLD + 60), "the file that grows old", || {
        alert(&arrived, "firing", &[down, file])
    })?;
    eprintln!("from SIGKILL to the webhook, by the file's age: {:.1} s", dead.elapsed().as_secs_f64());
    [exporter, server, alertmanager].into_iter().try_for_each(Daemon::stop)
}

/// Prometheus and what belongs to it. Installed, each would run as a daemon of this host.
fn programs() -> Result<PathBuf> {
    unpacked("prometheus", &["prometheus", "prometheus-node-exporter", "prometheus-alertmanager"])
}

/// One of its programs.
pub fn program(name: &str) -> Result<Command> {
    Ok(Command::new(programs()?.join("usr/bin").join(name)))
}

/// Whether a message has an alert with this status and these words.
fn alert(arrived: &Arrived, status: &str, words: &[&str]) -> bool {
    let status = format!("{{\"status\":\"{status}\"");
    let is_it = |alert: &str| alert.starts_with(&status) && words.iter().all(|word| alert.contains(word));
    let alerts = |message: &String| {
        let list = message.split_once("\"alerts\":[").map_or("", |(_, list)| list).to_owned();
        list.replace("},{\"status\"", "}\n{\"status\"").lines().any(is_it)
    };
    arrived.all().iter().any(alerts)
}

struct Stack {
    directory: tempfile::TempDir,
    root: PathBuf,
    exporter: u16,
    prometheus: u16,
    alertmanager: u16,
    oomtrace: u16,
}

impl Stack {
    /// Writes the configurations.
    fn make(docs: &Path, root: PathBuf, webhook: u16) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let [exporter, prometheus, alertmanager, oomtrace] = free_ports()?;
        let stack = Self { directory, root, exporter, prometheus, alertmanager, oomtrace };
        fs::create_dir(stack.path("collected"))?;
        let rules = shortened(
            &docs.join("oomtrace.rules.yml"),
            &[("offset 5m", "offset 10s"), ("for: 1m", "for: 1s"), ("> 180", &format!("> {OLD}"))],
        )?;
        fs::write(stack.path("rules.yml"), rules)?;
        let url = format!("http://127.0.0.1:{webhook}/");
        let alerts = shortened(
            &docs.join("alertmanager.yml"),
            &[
                // Also for the routes that do not say it.
                (
                    "\n  receiver: default\n",
                    "\n  receiver: default\n  group_wait: 1s\n  group_interval: 1s\n",
                ),
                ("group_wait: 10s", "group_wait: 1s"),
                ("group_interval: 5m", "group_interval: 1s"),
                ("http://127.0.0.1:9095/oom-kills", &url),
            ],
        )?;
        fs::write(stack.path("alertmanager.yml"), alerts)?;
        fs::write(
            stack.path("prometheus.yml"),
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [rules.yml]\n\
                 alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]}}\n\
                 scrape_configs:\n\
                 - {{job_name: node, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}\n\
                 - {{job_name: oomtrace, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{oomtrace}']}}]}}\n"
            ),
        )?;
        Ok(stack)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tracer(&self) -> Result<Daemon> {
        let mut command = Command::new(build::binary()?);
        command.args(["run", "-o", "json", "--file"]).arg(self.path("oom.jsonl"));
        command.arg("--metrics-file").arg(self.path("collected/oomtrace.prom"));
        command.args(["--metrics-listen", &self.oomtrace.to_string()]);
        Daemon::start(Path::new("/"), &mut command, &self.path("oomtrace.log"))
    }

    /// node_exporter, Prometheus, Alertmanager.
    fn daemons(&self) -> Result<[Daemon; 3]> {
        let start = |name: &str, port: u16, options: &[String]| {
            let mut command = Command::new(self.root.join("usr/bin").join(name));
            command.args(options).arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.current_dir(self.directory.path());
            Daemon::start(&self.root, &mut command, &self.path(&format!("{name}.log")))
        };
        let option = |name: &str, path: &str| format!("--{name}={}", self.path(path).display());
        Ok([
            start(
                "prometheus-node-exporter",
                self.exporter,
                &[
                    "--collector.disable-defaults".into(),
                    "--collector.textfile".into(),
                    option("collector.textfile.directory", "collected"),
                ],
            )?,
            start(
                "prometheus",
                self.prometheus,
                &[option("config.file", "prometheus.yml"), option("storage.tsdb.path", "data")],
            )?,
            start(
                "prometheus-alertmanager",
                self.alertmanager,
                &[
                    option("config.file", "alertmanager.yml"),
                    option("storage.path", "alerts"),
                    "--cluster.listen-address=".into(),
                ],
            )?,
        ])
    }

    /// Whether Prometheus has an answer to a query.
    fn asks(&self, query: &str) -> bool {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let ask = || -> Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.prometheus))?;
            write!(stream, "GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("\"metric\":{"))
    }
}

/// Ports that nobody has just now.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A file of the docs with other times. Each must be in it.
fn shortened(file: &Path, changes: &[(&str, &str)]) -> Result<String> {
    let mut text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    for (from, to) in changes {
        ensure!(text.contains(from), "{} has no {from}", file.display());
        text = text.replace(from, to);
    }
    Ok(text)
}

/// The cgroup of a container of LXC's, whose name is the container's.
struct Container {
    name: String,
    cgroup: PathBuf,
}

impl Container {
    fn make() -> Result<Self> {
        let name = format!("recipe-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (mount, limits) = match v1.is_dir() {
            true => (v1, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
            false => (Path::new("/sys/fs/cgroup"), ["memory.max", "memory.swap.max"]),
        };
        let cgroup = mount.join(format!("lxc.payload.{name}"));
        fs::create_dir(&cgroup).with_context(|| format!("as root: {}", cgroup.display()))?;
        let made = Self { name, cgroup };
        let [memory, swap] = limits.map(|file| made.cgroup.join(file));
        fs::write(&memory, "8388608")?;
        // Not every kernel counts swap.
        let _no_swap = fs::write(swap, if v1.is_dir() { "8388608" } else { "0" });
        Ok(made)
    }

    /// A process in it that takes memory until it is killed.
    fn kill(&self) -> Result<()> {
        let script = "echo $$ > \"$1/cgroup.procs\" && exec tail /dev/zero";
        let mut hog = Command::new("sh");
        hog.args(["-c", script, "sh"]).arg(&self.cgroup).stdout(Stdio::null());
        let status = hog.status()?;
        ensure!(!status.success(), "nobody killed it");
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its process is dead; the kernel may need a moment.
        for _ in 0..50 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

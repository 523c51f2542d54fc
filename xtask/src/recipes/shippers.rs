//! Runs rsyslog and syslog-ng with their recipes. What arrives must be what was written, across a rotation
//! and a restart.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    daemon::{Daemon, unpacked},
    receiver::{self, Arrived},
};

/// rsyslog with its recipe.
pub fn rsyslog(recipe: &Path, lines: &[String]) -> Result<()> {
    let packages = ["rsyslog", "libestr0", "libfastjson4", "liblognorm5"];
    let root = unpacked("rsyslog", &packages)?;
    let test = Test::new(receiver::octet_counted)?;
    let port = format!("port=\"{}\"", test.port);
    let text = replaced(
        recipe,
        &test,
        &[("target=\"syslog.example\"", "target=\"127.0.0.1\""), ("port=\"6514\"", &port)],
    )?;
    let configuration = test.path("rsyslog.conf");
    let work = test.path("work");
    fs::create_dir(&work)?;
    fs::write(&configuration, format!("global(workDirectory=\"{}\")\n{text}", work.display()))?;
    let modules = root.join(format!("usr/lib/{}-linux-gnu/rsyslog", std::env::consts::ARCH));
    test.run(&root, lines, &|| {
        let mut command = Command::new(root.join("usr/sbin/rsyslogd"));
        command
            .arg("-n")
            .arg("-i")
            .arg(test.path("pid"))
            .arg("-M")
            .arg(&modules)
            .arg("-f")
            .arg(&configuration);
        command
    })
}

/// syslog-ng with its recipe.
pub fn syslog_ng(recipe: &Path, lines: &[String]) -> Result<()> {
    let packages = ["syslog-ng-core", "syslog-ng-mod-http", "libivykis0", "libnet1", "libpcre3", "libwrap0"];
    let root = unpacked("syslog-ng", &packages)?;
    let test = Test::new(receiver::bulk)?;
    let address = format!("http://127.0.0.1:{}/", test.port);
    let text = replaced(recipe, &test, &[("http://elasticsearch.example:9200/", &address)])?;
    let configuration = test.path("syslog-ng.conf");
    fs::write(&configuration, format!("@version: 3.38\n{text}"))?;
    test.run(&root, lines, &|| {
        let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
        command.args(["--foreground", "--no-caps", "--stderr"]).arg("-f").arg(&configuration);
        for (option, name) in [("--persist-file", "persist"), ("--pidfile", "pid"), ("--control", "control")]
        {
            command.arg(option).arg(test.path(name));
        }
        command
            .arg("--module-path")
            .arg(root.join("usr/lib/syslog-ng/3.38"))
            .current_dir(test.directory.path());
        command
    })
}

/// The recipe with the paths of the test. Each path must be in the recipe.
fn replaced(recipe: &Path, test: &Test, more: &[(&str, &str)]) -> Result<String> {
    let mut text = fs::read_to_string(recipe).with_context(|| recipe.display().to_string())?;
    let (input, kills) =
        (test.path("oom.jsonl").display().to_string(), test.path("kills.log").display().to_string());
    let places =
        [("/var/log/oomtrace/oom.jsonl", input.as_str()), ("/var/log/oomtrace-kills.log", kills.as_str())];
    for (from, to) in places.iter().chain(more) {
        ensure!(
            text.lines().any(|line| !line.starts_with('#') && line.contains(from)),
            "the recipe has no {from}"
        );
        text = text.replace(from, to);
    }
    Ok(text)
}

struct Test {
    directory: tempfile::TempDir,
    port: u16,
    arrived: Arrived,
}

impl Test {
    fn new(read: fn(std::net::TcpStream, &Arrived) -> Result<()>) -> Result<Self> {
        let (port, arrived) = receiver::listen(read)?;
        Ok(Self { directory: tempfile::tempdir()?, port, arrived })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a third of the lines, rotates, writes a third, and restarts while the last third is written.
    fn run(&self, root: &Path, lines: &[String], command: &dyn Fn() -> Command) -> Result<()> {
        let (first, rest) = lines.split_at(lines.len() / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        let (input, log) = (self.path("oom.jsonl"), self.path("log"));
        write(&input, first)?;
        let mut daemon = Daemon::start(root, &mut command(), &log)?;
        daemon.until("the first lines", || self.arrived.count() >= first.len())?;
        fs::rename(&input, self.path("oom.jsonl.1"))?;
        write(&input, second)?;
        daemon.until("the lines after a rotation", || self.arrived.count() >= first.len() + second.len())?;
        daemon.stop()?;
        write(&input, third)?;
        let mut daemon = Daemon::start(root, &mut command(), &log)?;
        daemon.until("the lines after a restart", || self.arrived.count() >= lines.len())?;
        daemon.stop()?;

        let arrived = self.arrived.all();
        let same = arrived.iter().zip(lines).take_while(|(arrived, line)| arrived == line).count();
        ensure!(
            arrived == lines,
            "{} lines were written, {} arrived; they differ at line {}: written {:?}, arrived {:?}",
            lines.len(),
            arrived.len(),
            same + 1,
            lines.get(same),
            arrived.get(same)
        );
        let kills: String = lines
            .iter()
            .filter(|line| line.contains("\"type\":\"oom_kill\""))
            .map(|line| format!("{line}\n"))
            .collect();
        let kept = fs::read_to_string(self.path("kills.log"))?;
        ensure!(
            kept == kills,
            "the file of kills has {} bytes, not the {} that were written",
            kept.len(),
            kills.len()
        );
        Ok(())
    }
}

fn write(path: &Path, lines: &[String]) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    Ok(())
}

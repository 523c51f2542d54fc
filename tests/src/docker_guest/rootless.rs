//! A user's own containers, whose files are in that user's home.

use std::process::Command;

use anyhow::{Context, Result};
use oomtrace_tests::containers::{EAT, expect, output};
use serde_json::{Value, json};

use crate::Case;
use crate::podman::{IMAGE, killed};
use crate::world::{LIMIT, World};

pub(crate) const CASES: &[Case] = &[("rootless_podman_over_its_limit", podman)];

/// The user that the guest was made with.
const USER: u32 = 1000;
const HOME: &str = "/home/ann";

/// Runs a program as that user, as a login would.
pub(crate) fn as_user(program: &str, arguments: &[&str]) -> Result<String> {
    let runtime = format!("/run/user/{USER}");
    output(
        Command::new("setpriv")
            .args([format!("--reuid={USER}"), format!("--regid={USER}")])
            .args(["--init-groups", program])
            .args(arguments)
            .current_dir(HOME)
            .env("HOME", HOME)
            .env("USER", "ann")
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={runtime}/bus"))
            .env("XDG_RUNTIME_DIR", &runtime),
    )
}

/// The same by that user's systemd: in a cgroup that is the user's, else a scope of the user's could not be entered.
fn in_session(program: &str, arguments: &[&str]) -> Result<String> {
    let systemd = ["--user", "-q", "--wait", "--pipe", "--collect", program];
    as_user("systemd-run", &[&systemd[..], arguments].concat())
}

fn podman(world: &mut World) -> Result<()> {
    in_session("podman", &["import", &world.tar.display().to_string(), IMAGE])?;
    let script = format!("exec {EAT}");
    let id = in_session(
        "podman",
        &[
            "run",
            "-d",
            "--pull=never",
            "--network",
            "none",
            "--name",
            "anns",
            "-m",
            LIMIT,
            IMAGE,
            "/bin/sh",
            "-c",
            &script,
        ],
    )?;
    let id = id.lines().last().context("podman named no container")?;
    let line = world.watch.kill_in(id)?;
    let slice = "/user.slice/user-1000.slice/user@1000.service/user.slice";
    killed(&line, id, "anns", &format!("{slice}/libpod-{id}.scope"))?;
    // Its state is in a database that the user may write.
    let verdict = world.watch.verdict_of(&line)?;
    expect(
        &verdict,
        &[("container.name", json!("anns")), ("runtime_says", Value::Null), ("missed", Value::Null)],
    )?;
    verdict.get("missing.runtime_says").context("missing.runtime_says")?;
    in_session("podman", &["rm", "-f", "-t", "0", id]).map(drop)
}

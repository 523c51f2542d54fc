//! Programs of this machine that are needed to make guests: finds them, or installs them with apt.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

/// The path of `program`. If it is missing and this is allowed, `packages` are installed.
///
/// # Errors
/// If it is missing and cannot be installed.
pub fn installed(program: &str, packages: &[&str]) -> Result<PathBuf> {
    let find = || {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
    };
    if let Some(path) = find() {
        return Ok(path);
    }
    install(program, packages)?;
    find().with_context(|| format!("{} brought no {program}", packages.join(", ")))
}

/// Installs `packages`, because `what` is missing.
///
/// # Errors
/// If this is not allowed, or fails.
pub fn install(what: &str, packages: &[&str]) -> Result<()> {
    let arguments = format!("install -y --no-install-recommends {}", packages.join(" "));
    eprintln!("vm: {what} is missing: apt-get {arguments}");
    let status = Command::new("apt-get").args(arguments.split(' ')).stdout(std::io::stderr()).status();
    ensure!(
        status.is_ok_and(|status| status.success()),
        "{what} is missing and cannot be installed; as root: apt-get {arguments}"
    );
    Ok(())
}

/// Runs a command and returns its standard output.
///
/// # Errors
/// If it cannot be run, or fails; with the last line of its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let result = command.output().with_context(|| format!("{program} cannot be run"))?;
    ensure!(
        result.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&result.stderr).trim().lines().last().unwrap_or("(it said nothing)")
    );
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

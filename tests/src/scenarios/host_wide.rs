//! The whole machine, or some of its nodes, runs out of memory. Only in a guest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{MIB, Outcome, host_memory::is_found, not_applicable};
use crate::cgroup::{Place, Version, mount_of};
use crate::compare::ExpectedTrigger;
use crate::counters::{available_bytes, memory_nodes, wall_clock_ns};
use crate::hog::Hog;
use crate::session::{Session, is_guest};
use crate::tracer::{Hook, Tracer};

/// include/uapi/linux/capability.h
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_SYSLOG: libc::c_ulong = 34;

/// The victim is in a cgroup without a limit.
pub(super) fn in_a_cgroup(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"host-wide")?;
    let hog = session.hog_in(&cgroup, b"hog-host")?;
    fill(session, hog, cgroup.place(), "host")
}

/// The victim is in no cgroup.
pub(super) fn in_the_root_cgroup(session: &mut Session) -> Result<Outcome> {
    let mut hog = session.hog(b"hog-root")?;
    hog.join(&session.hierarchy.mount.join("cgroup.procs"))?;
    let root = session.hierarchy.root()?;
    fill(session, hog, &root, "host")
}

/// oomtrace itself must survive.
pub(super) fn five_times(session: &mut Session) -> Result<Outcome> {
    for number in 1..=5 {
        session.wait_for_report_room()?;
        let cgroup = session.cgroup(format!("host-wide-{number}").as_bytes())?;
        let hog = session.hog_in(&cgroup, format!("hog-host-{number}").as_bytes())?;
        fill(session, hog, cgroup.place(), "host")?;
    }
    Ok(Outcome::Passed)
}

/// The victim's own cgroup is nearly full and has run out before, but now the host runs out. A tracer that
/// has no function hook and cannot read the kernel log must report that too.
pub(super) fn full_leaf(session: &mut Session) -> Result<Outcome> {
    const LEAF: u64 = 64 * MIB;
    if !session.hierarchy.memory {
        return not_applicable("no memory cgroups");
    }
    let _closed = Setting::set("/proc/sys/kernel/dmesg_restrict", "1")?;
    let mut blind = Tracer::start_without(&session.program().0, Hook::None, &[CAP_SYSLOG, CAP_SYS_ADMIN])?;
    let leaf = session.cgroup(b"full-leaf")?;
    leaf.limit(LEAF)?;
    let mut victim = session.hog_in(&leaf, b"hog-full")?;
    victim.hold(LEAF / 2)?;
    // It runs out once, because of another process.
    let mut other = session.hog_in(&leaf, b"hog-other")?;
    other.ask("adj 1000")?;
    let since = wall_clock_ns();
    other.grow("anon")?;
    other.killed()?;
    session.line_of(other.pid(), since)?;
    victim.ask("adj 1000")?;
    while leaf.usage()? + 192 * 1024 < LEAF {
        victim.hold(64 * 1024)?;
    }

    let mut filler = session.hog(b"hog-filler")?;
    filler.ask("adj -900")?;
    let since = wall_clock_ns();
    while victim.is_alive()? {
        filler.tell(&format!("anon {}", 4 * MIB))?;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    drop(filler);
    let line = session.line_of(victim.pid(), since)?;
    ensure!(line.get("oom.scope") == Some(&"host".into()), "field oom.scope: {}", line.text);
    let tid = u64::from(victim.pid());
    let line = blind.wait_for("a line of the kill", |lines| {
        lines.iter().find(|line| line.number("victim.tid") == Some(tid)).cloned()
    })?;
    ensure!(
        line.get("oom.evidence") == Some(&"stack".into()),
        "not found in the stack: nothing was tested: {}",
        line.text
    );
    ensure!(
        line.get("oom.scope") == Some(&"host".into()),
        "a kill of the host is not told as one: {}",
        line.text
    );
    ensure!(line.get("oom.cgroup").is_none(), "a cgroup that did not fire: {}", line.text);
    Ok(Outcome::Passed)
}

fn fill(session: &mut Session, mut hog: Hog, place: &Place, scope: &'static str) -> Result<Outcome> {
    ensure!(is_guest(), "only in a guest");
    // While the hog releases its memory the kernel may look for more victims. They must be larger than a
    // tracer should be, and without any the kernel would panic.
    let mut bystanders = Vec::new();
    for _ in 0..4 {
        let mut bystander = session.hog(b"bystander")?;
        bystander.hold(8 * MIB)?;
        bystanders.push(bystander);
    }
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let mut expected = session.killed_by_host(facts, place, released);
    expected.scope = scope;
    expected.trigger = ExpectedTrigger::Anybody;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// A file with another value. A drop restores it.
struct Setting(PathBuf, String);

impl Setting {
    fn set(file: &str, value: &str) -> Result<Self> {
        ensure!(is_guest(), "only in a guest");
        let before = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
        fs::write(file, value).with_context(|| format!("write {value} to {file}"))?;
        Ok(Self(file.into(), before))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ignored = fs::write(&self.0, &self.1);
    }
}

/// `vm.oom_kill_allocating_task`: the process that asked for memory dies, not the largest one.
pub(super) fn allocating_task(session: &mut Session) -> Result<Outcome> {
    let _setting = Setting::set("/proc/sys/vm/oom_kill_allocating_task", "1")?;
    let cgroup = session.cgroup(b"allocating")?;
    let large_cgroup = session.cgroup(b"large")?;
    let mut large = session.hog_in(&large_cgroup, b"hog-large")?;
    large.hold(available_bytes()? / 10 * 6)?;
    let mut hog = session.hog_in(&cgroup, b"hog-allocating")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    ensure!(large.is_alive()?, "the large one was killed");
    let mut expected = session.killed_by_host(facts, cgroup.place(), released);
    expected.kill = "allocating_task";
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// This thread, moved to the only processor of another process. A drop moves it back.
struct OnProcessorOf(libc::cpu_set_t);

impl OnProcessorOf {
    fn move_to(process: u32) -> Result<Self> {
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: cpu_set_t is a plain bit array, and all zero is the empty set; both are alive through the calls.
        unsafe {
            let (mut before, mut there): (libc::cpu_set_t, libc::cpu_set_t) =
                (std::mem::zeroed(), std::mem::zeroed());
            let moved = libc::sched_getaffinity(0, size, &raw mut before) == 0
                && libc::sched_getaffinity(process.try_into()?, size, &raw mut there) == 0
                && libc::sched_setaffinity(0, size, &raw const there) == 0;
            ensure!(moved, "change the processor: {}", std::io::Error::last_os_error());
            Ok(Self(before))
        }
    }
}

impl Drop for OnProcessorOf {
    fn drop(&mut self) {
        // SAFETY: a cpu_set_t that is alive through the call.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
    }
}

/// An operator requests a kill.
pub(super) fn sysrq_f(session: &mut Session) -> Result<Outcome> {
    ensure!(is_guest(), "only in a guest");
    if !Path::new("/proc/sysrq-trigger").exists() {
        return not_applicable("this kernel has no sysrq");
    }
    let cgroup = session.cgroup(b"sysrq")?;
    let mut hog = session.hog_in(&cgroup, b"hog-sysrq")?;
    hog.hold(64 * MIB)?;
    // The worker runs on the processor of the caller. So the victim cannot begin to exit there, which would
    // change its figures, while it is marked.
    hog.ask("one-processor")?;
    hog.ask("run-last")?;
    let _here = OnProcessorOf::move_to(hog.pid())?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    fs::write("/proc/sysrq-trigger", "f").context("write f to /proc/sysrq-trigger")?;
    hog.killed()?;
    let mut expected = session.killed_by_host(facts, cgroup.place(), released);
    expected.kill = "sysrq";
    // A worker thread of the kernel.
    expected.trigger = ExpectedTrigger::Anybody;
    let kill = session.check(&[expected])?.pop().context("no line")?;
    let incident = session.incident_of(&kill)?;
    ensure!(is_found(&incident, "host_not_full"), "most of the memory was free: {}", incident.text);
    Ok(Outcome::Passed)
}

/// The last of several nodes; `None` on a machine with one.
fn last_of_several_nodes() -> Result<Option<u32>> {
    let nodes = memory_nodes()?;
    Ok(nodes.last().copied().filter(|_| nodes.len() > 1))
}

/// A memory policy binds the victim to a node.
pub(super) fn mempolicy(session: &mut Session) -> Result<Outcome> {
    let Some(node) = last_of_several_nodes()? else { return not_applicable("one NUMA node") };
    let cgroup = session.cgroup(b"mempolicy")?;
    let mut hog = session.hog_in(&cgroup, b"hog-mempolicy")?;
    hog.ask(&format!("node {node}"))?;
    fill(session, hog, cgroup.place(), "mempolicy")
}

/// A cpuset allows the victim one node.
pub(super) fn cpuset(session: &mut Session) -> Result<Outcome> {
    let Some(node) = last_of_several_nodes()? else { return not_applicable("one NUMA node") };
    let cgroup = session.cgroup(b"cpuset")?;
    match session.hierarchy.version {
        Version::V2 => {
            fs::write(session.hierarchy.mount.join("cgroup.subtree_control"), "+cpuset")
                .context("enable cpuset")?;
            fs::write(session.scratch().file("cgroup.subtree_control"), "+cpuset")
                .context("enable cpuset")?;
            cgroup.write(&cgroup.file("cpuset.mems"), &node.to_string())?;
            let hog = session.hog_in(&cgroup, b"hog-cpuset")?;
            fill(session, hog, cgroup.place(), "cpuset")
        }
        Version::V1 => {
            let dir = cpuset_hierarchy()?.join("oomtrace-test");
            fs::create_dir(&dir).context("make a cpuset")?;
            let cpus = fs::read_to_string("/sys/devices/system/cpu/online")?;
            fs::write(dir.join("cpuset.cpus"), cpus.trim())?;
            fs::write(dir.join("cpuset.mems"), node.to_string())?;
            let mut hog = session.hog_in(&cgroup, b"hog-cpuset")?;
            hog.join(&dir.join("cgroup.procs"))?;
            let outcome = fill(session, hog, cgroup.place(), "cpuset");
            let _ignored = fs::remove_dir(&dir);
            outcome
        }
    }
}

fn cpuset_hierarchy() -> Result<PathBuf> {
    if let Some(mount) = mount_of("cgroup", "cpuset")? {
        return Ok(mount);
    }
    let dir = PathBuf::from("/run/oomtrace-cpuset");
    fs::create_dir_all(&dir)?;
    // SAFETY: texts ended by NUL.
    let result = unsafe {
        libc::mount(
            c"cgroup".as_ptr(),
            c"/run/oomtrace-cpuset".as_ptr(),
            c"cgroup".as_ptr(),
            0,
            c"cpuset".as_ptr().cast(),
        )
    };
    ensure!(result == 0, "mount a cpuset hierarchy: {}", std::io::Error::last_os_error());
    Ok(dir)
}

//! The host runs out, and what has the memory is in no cgroup: no container can be named, so the totals must say what it is. Only in a
//! guest.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{
    MIB, Outcome,
    host_memory::{eat, small, told},
    not_applicable,
};
use crate::counters::{available_bytes, meminfo_bytes, wall_clock_ns};
use crate::patience::until;
use crate::session::{Session, is_guest};
use crate::tracer::Line;

/// How far what no counter explains may grow: processors hold back pages of each counter.
const REST: u64 = 16 * MIB;
/// What the map of the kernel takes.
const MAPPED: u64 = 48 * MIB;

/// Open files of a process in the root cgroup: inodes, dentries and files in the kernel's slab.
pub(super) fn slab(session: &mut Session) -> Result<Outcome> {
    const AT_ONCE: u64 = 2000;
    const AT_THE_END: u64 = 500;
    ensure!(is_guest(), "only in a guest");
    if let Some(why) = lacks(session) {
        return not_applicable(why);
    }
    session.wait_for_report_room()?;
    let (_small, mut victim) = small(session)?;
    let mut eater = session.hog(b"hog-files")?;
    eater.join(&session.hierarchy.mount.join("cgroup.procs"))?;
    let (before, rest) = (meminfo_bytes("Slab")?, rest()?);
    let since = wall_clock_ns();
    // Inodes and dentries of open files count as available, and are not.
    while meminfo_bytes("MemFree")? > 40 * MIB {
        eater.ask(&format!("descriptors {AT_ONCE}"))?;
    }
    let eaten = meminfo_bytes("Slab")?.saturating_sub(before);
    ensure!(eaten > 32 * MIB, "the files took {eaten} bytes");
    // One request at a time: those that wait would be done after the victim's death too, until nobody is left to kill.
    while victim.is_alive()? && eater.ask(&format!("descriptors {AT_THE_END}")).is_ok() {}
    let (_, line) = told(session, &victim, eater, since)?;
    let slab = sum(&line, &["slab_reclaimable_bytes", "slab_unreclaimable_bytes"])?;
    ensure!(slab >= eaten / 10 * 9, "the files took {eaten} bytes of slab: {}", line.text);
    explained(&line, rest)?;
    let charged = line.number("charged.usage_bytes");
    ensure!(charged.is_some_and(|charged| charged < eaten / 2), "it is charged to no cgroup: {}", line.text);
    Ok(Outcome::Passed)
}

/// A pool of huge pages that nobody uses, and a large map of the kernel. What is left is eaten.
pub(super) fn pool_and_map(session: &mut Session) -> Result<Outcome> {
    ensure!(is_guest(), "only in a guest");
    if let Some(why) = lacks(session) {
        return not_applicable(why);
    }
    let rest = rest()?;
    let map = kernel_map(MAPPED).context("make a map")?;
    let pool = Pool::make(available_bytes()? / 4)?;
    let Some(eaten) = eat(session, "anon")? else { return not_applicable("no memory cgroups") };
    drop(map);
    let line = &eaten.line;
    let huge = line.number("memory.hugetlb_bytes");
    ensure!(huge == Some(pool.bytes), "the pool has {} bytes: {}", pool.bytes, line.text);
    ensure!(line.number("memory.vmalloc_bytes") >= Some(MAPPED), "field memory.vmalloc_bytes: {}", line.text);
    explained(line, rest)?;
    Ok(Outcome::Passed)
}

/// What there must be for this.
fn lacks(session: &Session) -> Option<&'static str> {
    if !session.hierarchy.memory {
        return Some("no memory cgroups");
    }
    let none = meminfo_bytes("Hugetlb").is_err();
    none.then_some("this kernel has no huge pages, so what is not explained is not known")
}

/// What no counter explains is no more than before anything was eaten.
fn explained(line: &Line, before: u64) -> Result<()> {
    let rest = line.number("memory.unexplained_bytes").context("no unexplained_bytes")?;
    ensure!(rest <= before + REST, "unexplained were {before} bytes before: {}", line.text);
    Ok(())
}

fn sum(line: &Line, keys: &[&str]) -> Result<u64> {
    let of = |key: &&str| line.number(&format!("memory.{key}")).with_context(|| format!("no {key}"));
    keys.iter().map(of).sum()
}

/// What no counter explains now.
fn rest() -> Result<u64> {
    const PARTS: [&str; 10] = [
        "MemFree",
        "Active(anon)",
        "Inactive(anon)",
        "Active(file)",
        "Inactive(file)",
        "Unevictable",
        "Slab",
        "PageTables",
        "Percpu",
        "Hugetlb",
    ];
    let mapped = meminfo_bytes("VmallocUsed")?.max(meminfo_bytes("KernelStack")?);
    let parts = PARTS.iter().map(|key| meminfo_bytes(key)).sum::<Result<u64>>()? + mapped;
    Ok(meminfo_bytes("MemTotal")?.saturating_sub(parts))
}

/// Huge pages that are set aside. A drop gives them back.
struct Pool {
    bytes: u64,
}

impl Pool {
    const FILE: &'static str = "/proc/sys/vm/nr_hugepages";

    fn make(bytes: u64) -> Result<Self> {
        ensure!(Path::new(Self::FILE).exists(), "this kernel has no huge pages");
        let size = meminfo_bytes("Hugepagesize")?.max(1);
        // After other scenarios, free memory may be in small pieces only, and some is still being freed.
        until("a huge page that can be set aside", || {
            // Not every kernel can move pages together.
            let _ignored = fs::write("/proc/sys/vm/compact_memory", "1");
            fs::write(Self::FILE, (bytes / size).to_string()).context("set huge pages aside")?;
            // The kernel takes as many as it finds.
            let pages: u64 = fs::read_to_string(Self::FILE)?.trim().parse()?;
            Ok((pages > 0).then_some(Self { bytes: pages * size }))
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ignored = fs::write(Self::FILE, "0");
    }
}

/// An array of an eBPF program, which the kernel maps page by page. In the root cgroup it is charged to nobody.
fn kernel_map(bytes: u64) -> io::Result<OwnedFd> {
    const MAP_CREATE: libc::c_long = 0;
    const MAP_TYPE_ARRAY: u32 = 2;
    const VALUE: u32 = 4096;
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // Before 5.11 a map counts as locked memory.
    // SAFETY: the limit is alive through the call, which only reads it.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
    let entries = u32::try_from(bytes / u64::from(VALUE)).map_err(io::Error::other)?;
    // Type, size of a key, size of a value, entries, flags: the beginning of the union.
    let attributes = [MAP_TYPE_ARRAY, 4, VALUE, entries, 0, 0];
    // SAFETY: the attributes are alive through the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the kernel has just made, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

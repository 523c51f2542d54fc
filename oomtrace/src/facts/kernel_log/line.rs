//! Parses one line of the OOM killer's report. Sizes become bytes.

use crate::{
    event::Constraint,
    facts::{Limit, kernel_log::chosen::Chosen},
};

/// A comm has at most 15 bytes.
pub(super) const COMM_BYTES: usize = 15;

/// How a text was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print {
    /// A piece of the text may have been cut.
    pub(super) maybe_cut: bool,
    /// The most bytes of a comm. More than [`COMM_BYTES`] where bytes that cannot be printed are escaped.
    pub(super) comm_bytes: usize,
}

/// A line of the OOM killer's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OomLine {
    /// `X invoked oom-killer: …`: a report begins.
    Invoked(Invoked),
    /// `memory: usage …`, `swap: …`, `memory+swap: …`, `kmem: …`: of the cgroup whose limit fired.
    Usage(Usage),
    /// `Memory cgroup stats for PATH:`: the cgroup whose limit fired, alone on its line.
    MemcgStats(Vec<u8>),
    /// `oom-kill:constraint=…`: the chosen process.
    Chosen(Chosen),
    /// `… Killed process …`: never rate-limited.
    Killed(Killed),
    /// `… OOM victim … is already exiting. Skip killing the task`.
    AlreadyExiting(AlreadyExiting),
    /// `Tasks in PATH are going to be killed due to memory.oom.group set`.
    Group(Vec<u8>),
    /// `Out of memory and no killable processes...`
    NoneKillable,
    /// `oom_kill_process: 5 callbacks suppressed`: this many reports were left out before the next one.
    Suppressed(u64),
}

/// The task that ran the OOM killer, and its allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoked {
    /// The trigger's comm.
    pub comm: Vec<u8>,
    /// Allocation flags as a number.
    pub gfp_mask_raw: u32,
    /// Allocation flags by name.
    pub gfp_mask_names: String,
    /// Allocation order; -1 for sysrq.
    pub order: i32,
    /// That of the trigger.
    pub oom_score_adj: i32,
}

/// A counter of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Which counter.
    pub kind: UsageKind,
    /// What is used.
    pub usage_bytes: u64,
    /// What is allowed.
    pub limit: Limit,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// A counter of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKind {
    /// Memory.
    Memory,
    /// Swap; cgroup v2.
    Swap,
    /// Memory and swap together; cgroup v1.
    MemorySwap,
    /// The kernel's own; cgroup v1.
    Kmem,
}

/// Whose limit fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OomDomain {
    /// None: the host ran out (`global_oom`).
    Global,
    /// The cgroup at this path, any bytes but NUL and newline.
    Memcg(Vec<u8>),
}

/// A process that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// The OOM killer's reason: `Memory cgroup out of memory`, `Out of memory`, …
    pub message: Vec<u8>,
    /// **Thread** id: any thread of the process that still had its memory.
    pub tid: u32,
    /// That thread's comm.
    pub comm: Vec<u8>,
    /// Address space.
    pub total_vm_bytes: u64,
    /// `MM_ANONPAGES`.
    pub anon_rss_bytes: u64,
    /// `MM_FILEPAGES`.
    pub file_rss_bytes: u64,
    /// `MM_SHMEMPAGES`.
    pub shmem_rss_bytes: u64,
    /// User id.
    pub uid: u32,
    /// Page tables.
    pub pgtables_bytes: u64,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
}

/// A process that was already exiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlreadyExiting {
    /// The OOM killer's reason.
    pub message: Vec<u8>,
    /// Thread id.
    pub tid: u32,
    /// Its comm.
    pub comm: Vec<u8>,
}

/// Beginnings of lines that the kernel writes in pieces.
pub(super) const STARTS: [&[u8]; 3] = [b"oom-kill:constraint=", b"Tasks in ", b"Memory cgroup stats for "];

/// Parses a complete line.
pub(super) fn parse(text: &[u8], print: Print) -> Option<OomLine> {
    let Print { maybe_cut, comm_bytes } = print;
    let [oom_kill, group, stats] = STARTS;
    if let Some(rest) = text.strip_prefix(oom_kill) {
        return chosen(rest, print).map(OomLine::Chosen);
    }
    if let Some(rest) = text.strip_prefix(group) {
        let path = rest.strip_suffix(b" are going to be killed due to memory.oom.group set")?;
        return (path.starts_with(b"/") && !maybe_cut).then(|| OomLine::Group(path.to_vec()));
    }
    if let Some(rest) = text.strip_prefix(stats) {
        let path = rest.strip_suffix(b":")?;
        return (path.starts_with(b"/") && !maybe_cut).then(|| OomLine::MemcgStats(path.to_vec()));
    }
    if text.starts_with(b"Out of memory and no killable processes...") {
        return Some(OomLine::NoneKillable);
    }
    if let Some(rest) = text.strip_prefix(b"oom_kill_process: ") {
        let count = str::from_utf8(rest.strip_suffix(b" callbacks suppressed")?).ok()?;
        return count.parse().ok().map(OomLine::Suppressed);
    }
    invoked(text, comm_bytes)
        .map(OomLine::Invoked)
        .or_else(|| killed(text, comm_bytes).map(OomLine::Killed))
        .or_else(|| already_exiting(text, comm_bytes).map(OomLine::AlreadyExiting))
        .or_else(|| usage(text).map(OomLine::Usage))
}

fn invoked(text: &[u8], comm_bytes: usize) -> Option<Invoked> {
    const MARK: &[u8] = b" invoked oom-killer: gfp_mask=";
    // A comm is too short to contain the mark.
    let mark = positions(text, MARK).next()?;
    let comm = text.get(..mark).filter(|comm| comm.len() <= comm_bytes)?.to_vec();
    let mut rest = Fixed(text.get(mark + MARK.len()..)?);
    let raw = rest.until("(")?;
    let gfp_mask_raw = match raw.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => raw.parse().ok()?,
    };
    let gfp_mask_names = rest.until("), order=")?.to_owned();
    let order = rest.until(", oom_score_adj=")?.parse().ok()?;
    let oom_score_adj = rest.rest()?.parse().ok()?;
    Some(Invoked { comm, gfp_mask_raw, gfp_mask_names, order, oom_score_adj })
}

fn usage(text: &[u8]) -> Option<Usage> {
    let mut rest = Fixed(text);
    let kind = match rest.until(": usage ")? {
        "memory" => UsageKind::Memory,
        "swap" => UsageKind::Swap,
        "memory+swap" => UsageKind::MemorySwap,
        "kmem" => UsageKind::Kmem,
        _ => return None,
    };
    let usage_bytes = kilobytes(rest.until("kB, limit ")?)?;
    let limit = kilobytes(rest.until("kB, failcnt ")?)?;
    let failcnt = rest.rest()?.parse().ok()?;
    Some(Usage { kind, usage_bytes, limit: Limit::of_bytes(limit), failcnt })
}

fn chosen(text: &[u8], print: Print) -> Option<Chosen> {
    let comma = text.iter().position(|byte| *byte == b',')?;
    let constraint = match text.get(..comma)? {
        b"CONSTRAINT_NONE" => Some(Constraint::None),
        b"CONSTRAINT_CPUSET" => Some(Constraint::Cpuset),
        b"CONSTRAINT_MEMORY_POLICY" => Some(Constraint::MemoryPolicy),
        b"CONSTRAINT_MEMCG" => Some(Constraint::Memcg),
        _ => None,
    };
    // The name of the cpuset comes before it and contains no slash (except "/" itself, for the root), so it
    // cannot look like one of these.
    let start = [b",oom_memcg=/".as_slice(), b",global_oom,task_memcg=/"]
        .iter()
        .filter_map(|mark| positions(text, mark).next())
        .min()?;
    let (rest, uid) = number_at_end(text, b",uid=")?;
    let (rest, pid) = number_at_end(rest, b",pid=")?;
    Some(Chosen {
        constraint,
        pid: u32::try_from(pid).ok()?,
        uid: unsigned(uid)?,
        middle: rest.get(start..)?.to_vec(),
        print,
    })
}

fn killed(text: &[u8], comm_bytes: usize) -> Option<Killed> {
    const TAIL: &[u8] = b") total-vm:";
    // A comm may look like the start of the tail, but then the real tail comes after it.
    let tail = positions(text, TAIL).last()?;
    let (message, tid, comm) = named_task(text.get(..tail)?, b": Killed process ", comm_bytes)?;
    let mut rest = Fixed(text.get(tail + TAIL.len()..)?);
    Some(Killed {
        message,
        tid,
        comm,
        total_vm_bytes: kilobytes(rest.until("kB, anon-rss:")?)?,
        anon_rss_bytes: kilobytes(rest.until("kB, file-rss:")?)?,
        file_rss_bytes: kilobytes(rest.until("kB, shmem-rss:")?)?,
        shmem_rss_bytes: kilobytes(rest.until("kB, UID:")?)?,
        uid: rest.until(" pgtables:")?.parse().ok()?,
        pgtables_bytes: kilobytes(rest.until("kB oom_score_adj:")?)?,
        oom_score_adj: rest.rest()?.parse().ok()?,
    })
}

fn already_exiting(text: &[u8], comm_bytes: usize) -> Option<AlreadyExiting> {
    let rest = text.strip_suffix(b") is already exiting. Skip killing the task")?;
    let (message, tid, comm) = named_task(rest, b": OOM victim ", comm_bytes)?;
    Some(AlreadyExiting { message, tid, comm })
}

/// `MESSAGE` `mark` `TID (COMM`: the kernel chooses the message, so the first mark is the kernel's.
fn named_task(text: &[u8], mark: &[u8], comm_bytes: usize) -> Option<(Vec<u8>, u32, Vec<u8>)> {
    let at = positions(text, mark).next()?;
    let message = text.get(..at)?;
    // Lines of other parts of the kernel may begin with a comm. This one never does.
    if !message.starts_with(b"Out of memory") && !message.starts_with(b"Memory cgroup out of memory") {
        return None;
    }
    // A message is words. In a saved log, more shows that the line is torn and another follows it.
    if !message.iter().all(|byte| byte.is_ascii_alphabetic() || b" _()".contains(byte)) {
        return None;
    }
    let rest = text.get(at + mark.len()..)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let tid = str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    let comm = rest.get(digits..)?.strip_prefix(b" (")?;
    (comm.len() <= comm_bytes).then(|| (message.to_vec(), tid, comm.to_vec()))
}

/// Removes `key` and its number from the end. Some kernels pad the number with blanks.
fn number_at_end<'a>(text: &'a [u8], key: &[u8]) -> Option<(&'a [u8], i64)> {
    let start = text.iter().rposition(|byte| !byte.is_ascii_digit() && !matches!(byte, b'-' | b' '))? + 1;
    let number = str::from_utf8(text.get(start..)?).ok()?.trim_start().parse().ok()?;
    Some((text.get(..start)?.strip_suffix(key)?, number))
}

/// A user id, which the kernel prints here as a signed number.
fn unsigned(uid: i64) -> Option<u32> {
    u32::try_from(uid).ok().or_else(|| i32::try_from(uid).ok().map(i32::cast_unsigned))
}

fn kilobytes(number: &str) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// The positions of `needle` in `text`, including overlaps.
pub(super) fn positions<'a>(text: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(needle.len()).enumerate().filter(move |(_, window)| *window == needle).map(|(at, _)| at)
}

/// Text that contains nothing that others choose.
struct Fixed<'a>(&'a [u8]);

impl<'a> Fixed<'a> {
    /// The text before `mark`. Continues after it.
    fn until(&mut self, mark: &str) -> Option<&'a str> {
        let at = self.0.windows(mark.len()).position(|window| window == mark.as_bytes())?;
        let found = str::from_utf8(self.0.get(..at)?).ok()?;
        self.0 = self.0.get(at + mark.len()..)?;
        Some(found)
    }

    fn rest(self) -> Option<&'a str> {
        str::from_utf8(self.0).ok()
    }
}

//! One line of the OOM killer's report: text goes in, what it says comes out, in bytes and not in kB.

use crate::{
    event::Constraint,
    facts::{
        Limit,
        kernel_log::{
            chosen::Chosen,
            record::{self, RecordMeta},
        },
    },
};

/// A comm has at most 15 bytes.
pub(super) const COMM_BYTES: usize = 15;

/// A piece this long may have been cut by the kernel, which keeps a little under 1024 bytes of a call's text
/// (976 on the strictest configuration).
const MAYBE_CUT_BYTES: usize = 900;

/// A line of the killer's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OomLine {
    /// `X invoked oom-killer: …`: a report begins.
    Invoked(Invoked),
    /// `memory: usage …`, `swap: …`, `memory+swap: …`, `kmem: …`: of the cgroup whose limit fired.
    Usage(Usage),
    /// `Memory cgroup stats for PATH:`: the cgroup whose limit fired, alone in its line.
    MemcgStats(Vec<u8>),
    /// `oom-kill:constraint=…`: who was chosen.
    Chosen(Chosen),
    /// `… Killed process …`: never rate-limited.
    Killed(Killed),
    /// `… OOM victim … is already exiting. Skip killing the task`.
    AlreadyExiting(AlreadyExiting),
    /// `Tasks in PATH are going to be killed due to memory.oom.group set`.
    Group(Vec<u8>),
    /// `Out of memory and no killable processes...`
    NoneKillable,
}

/// Who ran the killer and why.
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
    /// The trigger's.
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
    /// None: the machine ran out (`global_oom`).
    Global,
    /// The cgroup at this path, any bytes but NUL and newline.
    Memcg(Vec<u8>),
}

/// A process that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// The killer's reason: `Memory cgroup out of memory`, `Out of memory`, …
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

/// A process that needed no kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlreadyExiting {
    /// The killer's reason.
    pub message: Vec<u8>,
    /// Thread id.
    pub tid: u32,
    /// Its comm.
    pub comm: Vec<u8>,
}

/// Finds the killer's lines among records, and puts lines together that the kernel wrote in pieces.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Option<Pending>,
}

/// A line whose end has not come yet.
#[derive(Debug)]
struct Pending {
    meta: RecordMeta,
    last_seq: u64,
    text: Vec<u8>,
    maybe_cut: bool,
}

/// A line in pieces may hold two paths and little else.
const MAX_LINE_BYTES: usize = 3 * 4096;

impl Lines {
    /// Takes the next record; gives the line that it is or completes. The number and time are those of the line's beginning.
    pub fn push(&mut self, raw: &[u8]) -> Option<(RecordMeta, OomLine)> {
        let (meta, text) = record::parse(raw)?;
        if !meta.is_kernel() {
            return None;
        }
        if meta.continues {
            return self.extend(meta, &text);
        }
        // A new line ends the one that the same writer had begun; who that is cannot be told without its id.
        self.pending.take_if(|pending| meta.caller.is_none() || pending.meta.caller == meta.caller);
        let maybe_cut = text.len() >= MAYBE_CUT_BYTES;
        if let Some(line) = parse(&text, maybe_cut) {
            return Some((meta, line));
        }
        if STARTS.iter().any(|start| text.starts_with(start)) {
            self.pending = Some(Pending { meta, last_seq: meta.seq, text: text.into_owned(), maybe_cut });
        }
        None
    }

    /// Forgets a line begun: records were lost.
    pub fn reset(&mut self) {
        self.pending = None;
    }

    fn extend(&mut self, meta: RecordMeta, piece: &[u8]) -> Option<(RecordMeta, OomLine)> {
        let pending = self.pending.as_mut()?;
        // Without a caller's id only the very next record is surely of the same line.
        let same = match (pending.meta.caller, meta.caller) {
            (Some(before), Some(now)) => before == now,
            _ => pending.last_seq.checked_add(1) == Some(meta.seq),
        };
        if !same || pending.text.len() + piece.len() > MAX_LINE_BYTES {
            return None;
        }
        pending.text.extend_from_slice(piece);
        pending.last_seq = meta.seq;
        pending.maybe_cut |= piece.len() >= MAYBE_CUT_BYTES;
        let line = parse(&pending.text, pending.maybe_cut)?;
        let meta = pending.meta;
        self.pending = None;
        Some((meta, line))
    }
}

/// Beginnings of lines that the kernel writes in pieces.
const STARTS: [&[u8]; 3] = [b"oom-kill:constraint=", b"Tasks in ", b"Memory cgroup stats for "];

/// What a whole line says.
pub(super) fn parse(text: &[u8], maybe_cut: bool) -> Option<OomLine> {
    let [oom_kill, group, stats] = STARTS;
    if let Some(rest) = text.strip_prefix(oom_kill) {
        return chosen(rest, maybe_cut).map(OomLine::Chosen);
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
    invoked(text)
        .map(OomLine::Invoked)
        .or_else(|| killed(text).map(OomLine::Killed))
        .or_else(|| already_exiting(text).map(OomLine::AlreadyExiting))
        .or_else(|| usage(text).map(OomLine::Usage))
}

fn invoked(text: &[u8]) -> Option<Invoked> {
    const MARK: &[u8] = b" invoked oom-killer: gfp_mask=";
    // A comm is too short to hold the mark.
    let mark = positions(text, MARK).next()?;
    let comm = text.get(..mark).filter(|comm| comm.len() <= COMM_BYTES)?.to_vec();
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

fn chosen(text: &[u8], maybe_cut: bool) -> Option<Chosen> {
    let comma = text.iter().position(|byte| *byte == b',')?;
    let constraint = match text.get(..comma)? {
        b"CONSTRAINT_NONE" => Some(Constraint::None),
        b"CONSTRAINT_CPUSET" => Some(Constraint::Cpuset),
        b"CONSTRAINT_MEMORY_POLICY" => Some(Constraint::MemoryPolicy),
        b"CONSTRAINT_MEMCG" => Some(Constraint::Memcg),
        _ => None,
    };
    // The name of the cpuset comes before, and holds no slash (but "/" itself, the root's): whatever it says, it
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
        maybe_cut,
    })
}

fn killed(text: &[u8]) -> Option<Killed> {
    const TAIL: &[u8] = b") total-vm:";
    // A comm may look like the beginning of the tail, but then the tail comes once more.
    let tail = positions(text, TAIL).last()?;
    let (message, tid, comm) = named_task(text.get(..tail)?, b": Killed process ")?;
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

fn already_exiting(text: &[u8]) -> Option<AlreadyExiting> {
    let rest = text.strip_suffix(b") is already exiting. Skip killing the task")?;
    let (message, tid, comm) = named_task(rest, b": OOM victim ")?;
    Some(AlreadyExiting { message, tid, comm })
}

/// `MESSAGE` `mark` `TID (COMM`: the message is one of the kernel's own, so the first mark is the kernel's.
fn named_task(text: &[u8], mark: &[u8]) -> Option<(Vec<u8>, u32, Vec<u8>)> {
    let at = positions(text, mark).next()?;
    let message = text.get(..at)?;
    // Lines of other parts of the kernel may begin with somebody's comm; this one never does.
    if !message.starts_with(b"Out of memory") && !message.starts_with(b"Memory cgroup out of memory") {
        return None;
    }
    let rest = text.get(at + mark.len()..)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let tid = str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    let comm = rest.get(digits..)?.strip_prefix(b" (")?;
    (comm.len() <= COMM_BYTES).then(|| (message.to_vec(), tid, comm.to_vec()))
}

/// Takes `key` and its number off the end; some kernels pad it with blanks.
fn number_at_end<'a>(text: &'a [u8], key: &[u8]) -> Option<(&'a [u8], i64)> {
    let start = text.iter().rposition(|byte| !byte.is_ascii_digit() && !matches!(byte, b'-' | b' '))? + 1;
    let number = str::from_utf8(text.get(start..)?).ok()?.trim_start().parse().ok()?;
    Some((text.get(..start)?.strip_suffix(key)?, number))
}

/// A user id: the kernel prints it here as if it had a sign.
fn unsigned(uid: i64) -> Option<u32> {
    u32::try_from(uid).ok().or_else(|| i32::try_from(uid).ok().map(i32::cast_unsigned))
}

fn kilobytes(number: &str) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// Where `needle` stands in `text`, overlaps included.
pub(super) fn positions<'a>(text: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(needle.len()).enumerate().filter(move |(_, window)| *window == needle).map(|(at, _)| at)
}

/// Text that holds nothing of anybody's choice.
struct Fixed<'a>(&'a [u8]);

impl<'a> Fixed<'a> {
    /// What stands before `mark`; goes on behind it.
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

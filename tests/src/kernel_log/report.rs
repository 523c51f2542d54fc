//! Parses the OOM killer's report, as `mm/oom_kill.c` and `mm/memcontrol.c` print it.
//!
//! Processes and containers choose the names in it, and these are not escaped. So a line is read from both
//! ends, where only the kernel writes, and the part between is kept as it is.

use std::collections::BTreeMap;

use crate::trace_event::Marked;

/// `X invoked oom-killer: …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invoked {
    /// The name of the process that allocated.
    pub comm: Vec<u8>,
    /// Allocation flags.
    pub gfp_mask: u32,
    /// The same flags by name.
    pub gfp_names: String,
    /// Allocation order.
    pub order: i32,
    /// Of the process that allocated.
    pub oom_score_adj: i32,
    /// Its thread id, from the stack dump that follows.
    pub tid: Option<u32>,
}

/// `oom-kill:constraint=…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// `CONSTRAINT_…`.
    pub constraint: String,
    /// The text from `oom_memcg=` or `global_oom` up to the uid. Its names are not escaped, so its parts
    /// cannot be separated safely.
    pub place: Vec<u8>,
}

/// `Killed process N (comm) …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Killed {
    /// The text before it: why.
    pub message: String,
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: Vec<u8>,
    /// kB.
    pub total_vm_kb: u64,
    /// kB.
    pub anon_kb: u64,
    /// kB.
    pub file_kb: u64,
    /// kB.
    pub shmem_kb: u64,
    /// User id.
    pub uid: u32,
    /// kB.
    pub pgtables_kb: u64,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
}

/// All that the log says about one kill. Reports are limited to 10 in 5 s, but [`Killed`] is always written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggedKill {
    /// The first line of the report.
    pub invoked: Option<Invoked>,
    /// The line about the choice.
    pub chosen: Option<Chosen>,
    /// Usage of the cgroup whose limit fired, kB.
    pub memory_kb: Option<u64>,
    /// Its usage of swap on v2, of memory and swap on v1, kB.
    pub swap_kb: Option<u64>,
    /// Process id → `swapents` in pages, from the table of tasks.
    pub swap_pages: BTreeMap<u32, u64>,
    /// Process id → size in pages, from the same table.
    pub rss_pages: BTreeMap<u32, u64>,
    /// The keys after `Memory cgroup stats for PATH:`, as far as the kernel did not cut them.
    pub stats: BTreeMap<String, u64>,
    /// Where no cgroup's limit fired: the counts of the host that come first in the report, in pages.
    pub host_pages: BTreeMap<String, u64>,
    /// v1: what is charged for the kernel, kB.
    pub kmem_kb: Option<u64>,
    /// The kill.
    pub killed: Killed,
    /// The kernel's trace event of this kill, if it has figures.
    pub marked: Option<Marked>,
}

/// Everything since the log was opened.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// Each `Killed process`, in order.
    pub kills: Vec<LoggedKill>,
    /// Each `… are going to be killed due to memory.oom.group set`: the cgroup's path.
    pub groups: Vec<Vec<u8>>,
    /// Runs that ended with `Out of memory and no killable processes...`.
    pub nobody: Vec<Invoked>,
    /// Each `OOM victim N (comm) is already exiting. Skip killing the task`.
    pub skipped: Vec<u32>,
    current: LoggedKill,
    columns: Vec<String>,
    in_stats: bool,
    unfinished: Option<Vec<u8>>,
}

impl Reports {
    /// Takes one record. `continues`: it continues the last one.
    pub fn take(&mut self, text: &[u8], continues: bool) {
        let joined;
        let mut text = text;
        if let Some(mut head) = self.unfinished.take()
            && continues
        {
            head.extend_from_slice(text);
            joined = head;
            text = &joined;
        }
        if let Some(rest) = text.strip_prefix(b"oom-kill:constraint=") {
            match chosen(rest) {
                Some(chosen) => self.current.chosen = Some(chosen),
                // Printed in pieces: another processor's record may be in between.
                None => self.unfinished = Some(text.to_vec()),
            }
        } else if let Some(invoked) = invoked(text) {
            self.current = LoggedKill { invoked: Some(invoked), ..LoggedKill::default() };
            self.in_stats = false;
            self.columns.clear();
        } else if let Some(killed) = killed(text) {
            self.kills.push(LoggedKill { killed, ..std::mem::take(&mut self.current) });
        } else if let Some(path) =
            between(text, b"Tasks in ", b" are going to be killed due to memory.oom.group set")
        {
            self.groups.push(path.to_vec());
        } else if text.starts_with(b"Out of memory and no killable processes") {
            self.nobody.extend(self.current.invoked.take());
        } else if let Some(tid) = skipped(text) {
            self.skipped.push(tid);
        } else if text.starts_with(b"Memory cgroup stats for ") {
            self.in_stats = true;
        } else if text.starts_with(b"Tasks state ") {
            self.in_stats = false;
        } else if let Some(kilobytes) = usage(text, "kmem: usage ") {
            self.current.kmem_kb = Some(kilobytes);
        } else if let Some(kilobytes) = usage(text, "memory: usage ") {
            self.current.memory_kb = Some(kilobytes);
        } else if let Some(kilobytes) = usage(text, "memory+swap: usage ").or(usage(text, "swap: usage ")) {
            self.current.swap_kb = Some(kilobytes);
        } else if let Some(invoked) = self.current.invoked.as_mut() {
            if invoked.tid.is_none() && text.starts_with(b"CPU: ") {
                invoked.tid = stack_head_tid(text);
            } else if self.in_stats {
                self.keys(text);
            } else if text.starts_with(b"active_anon:") || text.ends_with(b" total pagecache pages") {
                self.host(text);
            } else {
                self.task_row(text);
            }
        }
    }

    /// One key, or all of them. The kernel cuts a record at about 1 kB, perhaps in a number.
    fn keys(&mut self, text: &[u8]) {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let whole = if text.len() > 900 { lines.len() - 1 } else { lines.len() };
        for line in lines.into_iter().take(whole).filter_map(ascii) {
            if let Some((key, Ok(value))) = line.split_once(' ').map(|(key, value)| (key, value.parse())) {
                self.current.stats.insert(key.to_owned(), value);
            }
        }
    }

    /// `NAME:PAGES` between blanks, or `PAGES total pagecache pages`.
    fn host(&mut self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let cache = text.strip_suffix(" total pagecache pages").map(|pages| ("pagecache", pages));
        let pairs = text.split_whitespace().filter_map(|word| word.split_once(':')).chain(cache);
        let pages = pairs.filter_map(|(name, pages)| Some((name.to_owned(), pages.parse().ok()?)));
        self.current.host_pages.extend(pages);
    }

    fn task_row(&mut self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text.split(|byte| !byte.is_ascii()).next().unwrap_or_default())
        else {
            return;
        };
        let Some((_, row)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return };
        if row.contains(" total_vm ") {
            self.columns = row.split_whitespace().map(str::to_owned).collect();
            return;
        }
        let cell = |name: &str| {
            let at = self.columns.iter().position(|column| column == name)?;
            row.split_whitespace().nth(at)
        };
        let Some(Ok(tgid)) = cell("tgid").map(str::parse) else { return };
        for (column, pages) in
            [("swapents", &mut self.current.swap_pages), ("rss", &mut self.current.rss_pages)]
        {
            if let Some(Ok(number)) = cell(column).map(str::parse) {
                pages.insert(tgid, number);
            }
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn rfind(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|window| window == what)
}

fn between<'a>(text: &'a [u8], before: &[u8], after: &[u8]) -> Option<&'a [u8]> {
    text.strip_prefix(before)?.strip_suffix(after)
}

fn ascii(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

/// Removes `{key}{number}{unit}` from the front.
fn number<T: std::str::FromStr>(text: &mut &str, key: &str, unit: &str) -> Option<T> {
    let rest = text.trim_start_matches([',', ' ']).strip_prefix(key)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    let (digits, rest) = rest.split_at_checked(end)?;
    *text = rest.strip_prefix(unit)?;
    digits.parse().ok()
}

fn invoked(text: &[u8]) -> Option<Invoked> {
    const WORDS: &[u8] = b" invoked oom-killer: gfp_mask=0x";
    let at = rfind(text, WORDS)?;
    let mut rest = ascii(text.get(at + WORDS.len()..)?)?;
    let (mask, after) = rest.split_once('(')?;
    let (names, after) = after.split_once(')')?;
    rest = after;
    Some(Invoked {
        comm: text.get(..at)?.to_vec(),
        gfp_mask: u32::from_str_radix(mask, 16).ok()?,
        gfp_names: names.to_owned(),
        order: number(&mut rest, "order=", "")?,
        oom_score_adj: number(&mut rest, "oom_score_adj=", "")?,
        tid: None,
    })
}

fn usage(text: &[u8], key: &str) -> Option<u64> {
    number(&mut ascii(text)?, key, "kB, limit ")
}

fn stack_head_tid(text: &[u8]) -> Option<u32> {
    const WORD: &[u8] = b" PID: ";
    let mut rest = ascii(text.get(find(text, WORD)? + WORD.len()..)?.split(|byte| *byte == b' ').next()?)?;
    number(&mut rest, "", "")
}

fn chosen(rest: &[u8]) -> Option<Chosen> {
    let comma = find(rest, b",")?;
    let constraint = ascii(rest.get(..comma)?)?.to_owned();
    // A container chooses the cpuset's name too, so it could forge the first of these. The tests' cpusets do
    // not.
    let start = find(rest, b",oom_memcg=").or_else(|| find(rest, b",global_oom"))?;
    let uid = rfind(rest, b",uid=")?;
    let digits = rest.get(uid + 5..)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Chosen { constraint, place: rest.get(start + 1..uid)?.to_vec() })
}

fn killed(text: &[u8]) -> Option<Killed> {
    const WORDS: &[u8] = b": Killed process ";
    let at = find(text, WORDS)?;
    let message = ascii(text.get(..at)?)?.to_owned();
    let after = text.get(at + WORDS.len()..)?;
    let open = find(after, b" (")?;
    let close = rfind(after, b") total-vm:")?;
    let mut rest = ascii(after.get(close + 2..)?)?;
    Some(Killed {
        message,
        tid: ascii(after.get(..open)?)?.parse().ok()?,
        comm: after.get(open + 2..close)?.to_vec(),
        total_vm_kb: number(&mut rest, "total-vm:", "kB")?,
        anon_kb: number(&mut rest, "anon-rss:", "kB")?,
        file_kb: number(&mut rest, "file-rss:", "kB")?,
        shmem_kb: number(&mut rest, "shmem-rss:", "kB")?,
        uid: number(&mut rest, "UID:", "")?,
        pgtables_kb: number(&mut rest, "pgtables:", "kB")?,
        oom_score_adj: number(&mut rest, "oom_score_adj:", "")?,
    })
}

fn skipped(text: &[u8]) -> Option<u32> {
    let rest = text.strip_prefix(b"OOM victim ")?;
    rfind(rest, b") is already exiting. Skip killing the task")?;
    ascii(rest.get(..find(rest, b" ")?)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    const KILLED: &[u8] =
        b"Memory cgroup out of memory: Killed process 4321 (x) total-vm:9kB (y) total-vm:74208kB, \
        anon-rss:15872kB, file-rss:1408kB, shmem-rss:0kB, UID:65534 pgtables:80kB oom_score_adj:-17";

    #[test]
    fn a_whole_report_is_one_kill() {
        let mut reports = Reports::default();
        for line in [
            &b"a invoked oom-killer: gfp_mask=0x1(NO) invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL|__GFP_ZERO), order=0, oom_score_adj=500"[..],
            b"CPU: 1 UID: 0 PID: 4320 Comm: a PID: 9 Not tainted 6.18.0",
            b"memory: usage 16380kB, limit 16384kB, failcnt 19",
            b"memory+swap: usage 16384kB, limit 9007199254740988kB, failcnt 0",
            b"[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name",
            b"[   4321]     0  4321    18552     4320     3968      352         0    81920       77             0 x",
        ] {
            reports.take(line, false);
        }
        reports.take(
            b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/t",
            false,
        );
        // Another processor's line, then the rest.
        reports.take(b"/a,task_memcg=/evil,task_memcg=/t/a,task_memcg=/evil,task=x,pid=4321,uid=0", true);
        reports.take(KILLED, false);
        let kill = &reports.kills[0];
        let invoked = kill.invoked.as_ref().unwrap();
        assert_eq!(invoked.comm, b"a invoked oom-killer: gfp_mask=0x1(NO)");
        assert_eq!((invoked.gfp_mask, invoked.gfp_names.as_str()), (0xcc0, "GFP_KERNEL|__GFP_ZERO"));
        assert_eq!((invoked.order, invoked.oom_score_adj, invoked.tid), (0, 500, Some(4320)));
        let chosen = kill.chosen.as_ref().unwrap();
        assert_eq!(chosen.constraint, "CONSTRAINT_MEMCG");
        assert_eq!(
            chosen.place,
            b"oom_memcg=/t/a,task_memcg=/evil,task_memcg=/t/a,task_memcg=/evil,task=x,pid=4321"
        );
        assert_eq!((kill.memory_kb, kill.swap_kb), (Some(16380), Some(16384)));
        assert_eq!(kill.swap_pages[&4321], 77);
        assert_eq!(kill.killed.comm, b"x) total-vm:9kB (y");
        assert_eq!((kill.killed.tid, kill.killed.uid, kill.killed.oom_score_adj), (4321, 65534, -17));
        assert_eq!((kill.killed.total_vm_kb, kill.killed.anon_kb), (74208, 15872));
        assert_eq!((kill.killed.file_kb, kill.killed.shmem_kb, kill.killed.pgtables_kb), (1408, 0, 80));

        // A kill without a report must not inherit the last one's.
        reports.take(KILLED, false);
        assert_eq!((&reports.kills[1].invoked, &reports.kills[1].chosen), (&None, &None));

        // A report without the line that names the process.
        reports
            .take(b"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-1000", false);
        reports.take(KILLED, false);
        assert!(reports.kills[2].invoked.is_some() && reports.kills[2].chosen.is_none());
    }

    #[test]
    fn the_other_lines() {
        let mut reports = Reports::default();
        reports.take(b"Tasks in /a are going to be killed due to memory.oom.group set", false);
        reports.take(b"OOM victim 12 (x (y) is already exiting. Skip killing the task", false);
        reports
            .take(b"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-1000", false);
        reports.take(b"Out of memory and no killable processes...", false);
        assert_eq!((reports.groups, reports.skipped), (vec![b"/a".to_vec()], vec![12]));
        assert_eq!(reports.nobody[0].comm, b"x");
    }
}

//! The kernel's table of the processes that the OOM killer can choose from (`dump_tasks`). Sizes are pages.

use crate::event::{ProcessTable, TableEvidence, TableRow, text_from_kernel};
use crate::facts::kernel_log::line::COMM_BYTES;

/// How many of the largest are kept.
const LARGEST: usize = 5;

/// The rows so far.
#[derive(Debug)]
pub(super) struct Table {
    page_bytes: u64,
    columns: Columns,
    processes: ProcessTable,
}

/// Which of the numbers between the thread's id and the name is which. Kernels since 6.8 have more of them.
#[derive(Clone, Copy, Debug)]
struct Columns {
    count: usize,
    tgid: usize,
    rss: usize,
    oom_score_adj: usize,
}

impl Columns {
    fn of(text: &[u8]) -> Option<Self> {
        let names = str::from_utf8(text.strip_prefix(b"[  pid  ]")?).ok()?.strip_suffix(" name")?;
        let names: Vec<&str> = names.split_ascii_whitespace().collect();
        let at = |wanted: &str| names.iter().position(|name| *name == wanted);
        Some(Self {
            count: names.len(),
            tgid: at("tgid")?,
            rss: at("rss")?,
            oom_score_adj: at("oom_score_adj")?,
        })
    }
}

impl Table {
    /// A table with these columns; `None` if they are not the kernel's.
    pub(super) fn with_columns(text: &[u8], page_bytes: u64) -> Option<Self> {
        let columns = Columns::of(text)?;
        let processes = ProcessTable { evidence: TableEvidence::KernelLog, ..ProcessTable::default() };
        Some(Self { page_bytes, columns, processes })
    }

    /// Takes the next line. One that is no row is another writer's.
    pub(super) fn row(&mut self, text: &[u8]) {
        let Some(row) = self.parse(text) else { return };
        let Self { processes, .. } = self;
        processes.count += 1;
        processes.rss_bytes = processes.rss_bytes.saturating_add(row.rss_bytes);
        let at = processes.largest.partition_point(|known| known.rss_bytes >= row.rss_bytes);
        if at < LARGEST {
            processes.largest.truncate(LARGEST - 1);
            processes.largest.insert(at, row);
        }
    }

    pub(super) fn into_processes(self) -> ProcessTable {
        self.processes
    }

    /// `[    tid]   uid  tgid total_vm      rss … oom_score_adj name`. The name can be anything.
    fn parse(&self, text: &[u8]) -> Option<TableRow> {
        let mut rest = text.strip_prefix(b"[")?;
        let end = rest.iter().position(|byte| *byte == b']')?;
        let _tid: u32 = str::from_utf8(rest.get(..end)?).ok()?.trim_start().parse().ok()?;
        rest = rest.get(end + 1..)?;
        let (mut tgid, mut rss, mut adj) = (None, None, None);
        let columns = self.columns;
        for column in 0..columns.count {
            let number;
            (number, rest) = number_of(rest)?;
            if column == columns.tgid {
                tgid = u32::try_from(number).ok();
            } else if column == columns.rss {
                rss = u64::try_from(number).ok();
            } else if column == columns.oom_score_adj {
                adj = i32::try_from(number).ok();
            }
        }
        let comm = rest.strip_prefix(b" ").filter(|comm| comm.len() <= COMM_BYTES)?;
        Some(TableRow {
            pid: tgid?,
            comm: text_from_kernel(comm),
            rss_bytes: rss?.saturating_mul(self.page_bytes),
            oom_score_adj: adj?,
        })
    }
}

/// The next number, and what follows it.
fn number_of(text: &[u8]) -> Option<(i64, &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|byte| *byte == b' ')?;
    let number = str::from_utf8(text.get(..end)?).ok()?.parse().ok()?;
    Some((number, text.get(end..)?))
}

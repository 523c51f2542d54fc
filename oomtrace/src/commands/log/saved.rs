//! Saved logs, of this host or another, of any age.

use std::{
    io::{self, BufRead},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use super::{Ended, Lines, origin, remarks, this_host};
use crate::{
    enrich::enricher::{Enricher, Knowledge},
    event::{CgroupVersion, Event, Host},
    failure::{Code, Failure},
    host::{
        clock::{self, ClockOffset},
        identity::UniqueId,
    },
    saved,
    sources::saved_log::{SavedKill, SavedLog, Tally},
};

/// The formats that can be read: the hint when a log has another.
const FORMS: &str = "known are the formats of dmesg, `journalctl -k` (-o short…, export, json) and syslog";

/// The hint when lines of `run` were given.
const RECORDED: &str = "lines that `oomtrace run` wrote are printed by `oomtrace show FILE`";

pub(super) fn print(files: &[PathBuf], lines: &mut Lines) -> Result<(), Ended> {
    let mut enricher = enricher();
    let (mut incomplete, mut recorded) = (Vec::new(), false);
    for file in files {
        // Each read of the device returns one record, and it has no end.
        if is_device(file) {
            this_host::print(lines)?;
            continue;
        }
        let name = saved::name(file);
        let input = saved::open(file).map_err(|error| unreadable(&name, &error))?;
        let tally = print_one(&name, input, &mut enricher, lines)?;
        if tally.is_incomplete() {
            incomplete.push(format!("{name}: {}", remarks::not_understood(&tally)));
        }
        recorded |= tally.unread.recorded;
    }
    match incomplete.is_empty() {
        true => Ok(()),
        false => {
            let hint = if recorded { RECORDED } else { FORMS };
            Err(Failure::message(Code::Data, incomplete.join("; ")).hint(hint).into())
        }
    }
}

fn is_device(path: &Path) -> bool {
    path == Path::new("/dev/kmsg")
        && path.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device())
}

fn print_one(
    name: &str,
    input: impl BufRead,
    enricher: &mut Enricher,
    lines: &mut Lines,
) -> Result<Tally, Ended> {
    let mut log = SavedLog::new(input, ClockOffset::sample().unix_ns(clock::boot_time()));
    let mut unreported = 0;
    for found in &mut log {
        let SavedKill { kill, stamp, host } = found.map_err(|error| unreadable(name, &error))?;
        let origin = origin(stamp, host);
        let printed = lines.print(&Event::OomKill(Box::new(enricher.logged_kill(&kill, &origin))))?;
        unreported += u64::from(printed && kill.report.is_none());
    }
    let tally: Tally = log.tally();
    remarks::say_all(&tally, unreported);
    Ok(tally)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::message(Code::RunTime, format!("{name}: {error}"))
}

/// Without facts of this host: the log may be from another.
fn enricher() -> Enricher {
    let mut knowledge = Knowledge::none("", CgroupVersion::V2);
    knowledge.run.host = Host::default();
    knowledge.run.instance = UniqueId::new().to_string();
    Enricher::new(knowledge)
}

//! The log of this host since its boot: `/dev/kmsg`.

use std::io;

use rustix::io::Errno;

use super::{Ended, Lines, remarks};
use crate::{
    cgroups::{
        hierarchy::MemoryHierarchy,
        tree::{CgroupTree, TreeLimits},
    },
    containers::Runtimes,
    enrich::enricher::{Enricher, Knowledge, LogOrigin},
    event::{CgroupVersion, Event},
    facts::kernel_log::Kills,
    failure::{Code, Failure},
    host::{
        clock::{self, ClockOffset},
        identity::{self, UniqueId},
        kernel_log::Backlog,
        root::Root,
    },
    sources::saved_log::Tally,
    stderr::say,
};

pub(super) fn print(lines: &mut Lines) -> Result<(), Ended> {
    let root = Root::host().guarded();
    let mut log = Backlog::open(&root).map_err(|error| unreadable(&error))?;
    let mut enricher = enricher(&root);
    let (mut kills, mut tally, mut unreported) = (Kills::default(), Tally::default(), 0);
    loop {
        let (complete, last) = match log.next() {
            Some(Ok(Some((meta, line)))) => {
                tally.count(&line);
                (kills.push(meta, line, ()), false)
            }
            Some(Ok(None)) => (kills.end(), false),
            Some(Err(error)) => return Err(unreadable(&error).into()),
            None => (kills.end(), true),
        };
        if let Some((kill, ())) = complete {
            let printed =
                lines.print(&Event::OomKill(Box::new(enricher.logged_kill(&kill, &LogOrigin::ThisBoot))))?;
            unreported += u64::from(printed && kill.report.is_none());
        }
        if last {
            break;
        }
    }
    remarks::say_all(&tally, unreported);
    // Number 0 is the first since boot.
    if let Some(first) = log.begins().filter(|first| first.seq > 0) {
        let begins = clock::boot_time_of_log(first.time_us.saturating_mul(1000));
        let begins = ClockOffset::sample().rfc3339(begins);
        say(&format!("oomtrace: the kernel log begins at about {begins}: older records are overwritten"));
    }
    if log.overruns() > 0 {
        let why = "the kernel log was overwritten while it was read: kills may be missing";
        return Err(Failure::message(Code::Data, why).hint("run it again").into());
    }
    if !log.is_at_end() {
        let why = "the kernel log is written faster than it can be read: the newest kills may be missing";
        return Err(Failure::message(Code::Data, why).hint("run it again").into());
    }
    Ok(())
}

fn unreadable(error: &io::Error) -> Failure {
    let why = format!("cannot read /dev/kmsg: {error}");
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => Failure::message(Code::Privilege, why).hint(
            "run it as root or with CAP_SYSLOG, or give it a saved log: journalctl -k -o export | oomtrace log -",
        ),
        _ => Failure::message(Code::RunTime, why)
            .hint("give it a saved log: dmesg | oomtrace log -"),
    }
}

/// With the names of containers from this host's runtimes.
fn enricher(root: &Root) -> Enricher {
    let detected = MemoryHierarchy::detect(root, true);
    let version = detected.map_or(CgroupVersion::V2, |hierarchy| hierarchy.version);
    let mut knowledge = Knowledge::none("", version);
    knowledge.tree = CgroupTree::new(Runtimes::discover(root.clone(), &[]), TreeLimits::default());
    knowledge.root = Some(root.clone());
    knowledge.clock = None;
    knowledge.run.host = identity::identity(root);
    knowledge.run.instance = UniqueId::new().to_string();
    Enricher::new(knowledge)
}

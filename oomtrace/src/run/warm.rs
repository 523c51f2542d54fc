//! A kill that never was, from its record to its line, thrown away. What that touches of the program and of the heap is
//! there when a kill comes, and stays, because memory is locked: none of it has to be read from a disk at an OOM.

use oomtrace_common::record::{KIND_OOM_KILL, MemcgLevel, OomKill};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, Knowledge},
    event::CgroupVersion,
    host::identity,
    outputs::encode::{Render, text::Palette},
    sources::{Next, kills::Records},
};

/// Makes a line of a kill and keeps nothing.
pub fn warm(version: CgroupVersion) {
    let mut enricher = Enricher::new(Knowledge::none("warm", version));
    let mut account = Account::new(None, enricher.is_v1());
    let records = Records::new(identity::page_bytes(), None);
    let mut line = Vec::new();
    if let Next::Event(event) = records.event(record().as_bytes(), None, &mut enricher, &mut account) {
        for render in [Render::Json, Render::Text(Palette::default())] {
            // It is thrown away, whatever it is.
            let _no_line = render.line(&event, &mut line);
        }
    }
}

/// Of a victim in `/warm`, all of whose facts were read.
fn record() -> OomKill {
    const ALL: u32 = 0xff;
    let mut record = OomKill::new_zeroed();
    record.header.kind = KIND_OOM_KILL;
    record.header.len = u32::try_from(size_of::<OomKill>()).unwrap_or(0);
    record.header.seq = 1;
    for task in [&mut record.victim, &mut record.trigger] {
        task.present = ALL;
        task.comm = *b"warm\0\0\0\0\0\0\0\0\0\0\0\0";
    }
    record.memory.present = ALL.into();
    let lineage = &mut record.lineage;
    for (to, from) in lineage.path.iter_mut().zip(b"warm\0") {
        *to = *from;
    }
    lineage.path_len = 5;
    for (level, id) in lineage.levels.iter_mut().zip([2, 1]) {
        *level = MemcgLevel { cgroup_id: id, events: [1; 6], present: 0xffff, ..MemcgLevel::new_zeroed() };
        lineage.level_count += 1;
    }
    record
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::event::Event;

    #[test]
    fn it_is_a_kill_that_is_read_and_becomes_a_line() {
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            warm(version);
            let mut enricher = Enricher::new(Knowledge::none("warm", version));
            let mut account = Account::new(None, enricher.is_v1());
            let next = Records::new(4096, None).event(record().as_bytes(), None, &mut enricher, &mut account);
            let Next::Event(Event::OomKill(kill)) = next else { unreachable!("no kill") };
            assert_eq!(kill.victim.cgroup.path.as_deref(), Some("/warm"));
            // The limit is 0, and so is the usage.
            assert_eq!(kill.oom.cgroup.unwrap().limit_bytes, Some(0));
        }
    }
}

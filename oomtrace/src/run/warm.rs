//! The end of the start: gives back the memory that only the start needed, then turns an invented kill into a line and
//! drops it. The pages of the program and of the heap that this touches stay in locked memory, so none of them must be
//! read from a disk at an OOM.

use oomtrace_common::record::{KIND_OOM_KILL, MemcgLevel, OomKill, SOURCE_STACK, oc_fact};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, Knowledge},
    event::CgroupVersion,
    host::{identity, protection},
    outputs::Durable,
    sources::{Next, kills::Records},
    stderr::say,
};

/// Leaves the memory as a kill needs it. `known` is what the run cannot do, as it was reported.
pub fn settle(version: CgroupVersion, durable: &mut Durable, known: &[String]) {
    if let Some(refused) = protection::release_start().filter(|refused| !known.contains(refused)) {
        say(&format!("oomtrace: {refused}"));
    }
    warm(version, durable);
}

/// Makes the line of an invented kill and drops it.
fn warm(version: CgroupVersion, durable: &mut Durable) {
    let mut enricher = Enricher::new(Knowledge::none("warm", version));
    let mut account = Account::new(None, enricher.is_v1());
    let records = Records::new(identity::page_bytes(), None);
    if let Next::Event(event) = records.event(&record(), None, &mut enricher, &mut account) {
        durable.rehearse(&event);
    }
}

/// The record of a victim in `/warm`, with all facts.
fn record() -> Vec<u8> {
    const ALL: u32 = 0xff;
    const PATH: &[u8] = b"warm\0";
    let levels = [2, 1].map(|id| MemcgLevel { cgroup_id: id, present: 0xffff, ..MemcgLevel::new_zeroed() });
    let mut head = OomKill::new_zeroed();
    head.header.kind = KIND_OOM_KILL;
    head.header.len = u32::try_from(size_of::<OomKill>() + size_of_val(&levels) + PATH.len()).unwrap_or(0);
    head.header.seq = 1;
    for task in [&mut head.victim, &mut head.trigger] {
        task.present = ALL;
        task.comm = *b"warm\0\0\0\0\0\0\0\0\0\0\0\0";
    }
    head.memory.present = ALL.into();
    (head.oom.source, head.oom.present, head.oom.oom_memcg_id) = (SOURCE_STACK, oc_fact::MEMCG, 2);
    head.lineage.level_count = 2;
    head.lineage.path_len = 5;
    [head.as_bytes(), levels.as_bytes(), PATH].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::event::Event;

    #[test]
    fn it_is_a_kill_that_is_read_and_becomes_a_line() {
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            let mut enricher = Enricher::new(Knowledge::none("warm", version));
            let mut account = Account::new(None, enricher.is_v1());
            let next = Records::new(4096, None).event(&record(), None, &mut enricher, &mut account);
            let Next::Event(Event::OomKill(kill)) = next else { unreachable!("no kill") };
            assert_eq!(kill.victim.cgroup.path.as_deref(), Some("/warm"));
            // The limit is 0, and so is the usage.
            assert_eq!(kill.oom.cgroup.unwrap().limit_bytes, Some(0));
        }
    }
}

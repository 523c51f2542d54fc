//! The part of a kernel stack that comes with a kill, and how it is kept out of recordings.

use super::*;
use oomtrace::facts::{Found, StackFacts, recording};
use zerocopy::FromZeros;

/// A kill with the addresses of its levels, and bytes of a stack after them.
fn with_stack(bytes: &[u8]) -> Vec<u8> {
    let mut record = OomKill { oom: records::no_killer(), run: 0, ..records::oom_kill(3) };
    for (level, address) in record.lineage.levels.iter_mut().zip([0x30, 0x20, 0x10]) {
        level.address = address;
    }
    record.stack =
        Stack { at: 7, current: 8, task: 9, leader: 10, len: bytes.len() as u32, ..Stack::new_zeroed() };
    let mut sent = [record.sent(), bytes.to_vec()].concat();
    let len = sent.len() as u32;
    sent[4..8].copy_from_slice(&len.to_le_bytes());
    sent
}

fn stack(record: &[u8]) -> Option<StackFacts> {
    match decode(record).unwrap() {
        Record::OomKill(facts) => {
            assert_eq!(facts.lineage.levels.len(), 3);
            facts.stack
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_stack_comes_after_the_levels() {
    let expected = StackFacts {
        at: 7,
        current: 8,
        task: 9,
        leader: 10,
        memcgs: vec![0x30, 0x20, 0x10],
        bytes: vec![0xab; 1024],
    };
    assert_eq!(stack(&with_stack(&[0xab; 1024])), Some(expected));
    assert_eq!(stack(&with_stack(&[])), None);
}

#[test]
fn a_recording_has_what_was_found_and_no_kernel_address() {
    let record = with_stack(&[0xab; 64]);
    let kept = recording(&record, None);
    assert_eq!(stack(&kept), None);
    let Ok(Record::OomKill(facts)) = decode(&kept) else { panic!() };
    assert_eq!((facts.run, facts.oom, facts.seq), (None, None, 3));
    assert_eq!(facts.lineage, full_kill().lineage);
    // The same number may be something else besides.
    for address in [7_u64, 8, 9, 10, 0x30, 0x20] {
        let in_it = |bytes: &[u8]| bytes.windows(8).filter(|word| **word == address.to_le_bytes()).count();
        assert_eq!(in_it(&record), in_it(&kept) + 1, "{address:#x}");
    }
    assert!(!kept.windows(8).any(|word| word == [0xab; 8]));

    let found = Found { oom: OomControl { source: SOURCE_STACK, ..records::killer(20) }, run: 2 };
    let kept = recording(&record, Some(&found));
    let Ok(Record::OomKill(facts)) = decode(&kept) else { panic!() };
    let killer = OomControlFacts { evidence: Evidence::Stack, ..killer() };
    assert_eq!((facts.run, facts.oom, facts.stack), (Some(2), Some(killer), None));

    let mut oom = records::memcg_oom(5, OUTCOME_RELIEVED);
    let before = oom.sent();
    oom.levels[0].address = 0x20;
    assert_eq!(*recording(&oom.sent(), None), before);
    // What cannot be read is kept as it is.
    assert_eq!(*recording(&record[..100], None), record[..100]);
    let other = records::shared_mm_kill(4, 3).sent();
    assert_eq!(*recording(&other, None), other);
}

//! Incomplete records, and random bytes.

use super::*;

/// Nothing was read, which is not the root cgroup.
#[test]
fn without_any_cgroup_there_is_no_path() {
    let mut record = records::oom_kill(3);
    records::lineage(&mut record, b"", &[]);
    let lineage = oom_kill(&record).lineage;
    assert_eq!(lineage, Lineage { path_cut: true, levels_cut: true, ..Lineage::default() });
}

#[test]
fn of_a_pid_only_the_thread_is_known() {
    let mut record = records::oom_kill(3);
    record.flags |= FLAG_PID_ONLY;
    let facts = oom_kill(&record);
    assert_eq!(facts.victim, TaskFacts { tid: Some(4000), ..TaskFacts::default() });
    let facts = oom_kill(&records::pid_only(3));
    assert_eq!(facts.victim, TaskFacts { tid: Some(4000), ..TaskFacts::default() });
    assert_eq!(facts.memory, MemoryFacts::default());
    assert_eq!((facts.oom, facts.run, facts.signalled), (None, None, None));
}

/// Levels that were not sent are not levels with zeros.
#[test]
fn a_level_counts_if_it_was_sent() {
    let count_at = std::mem::offset_of!(MemcgOom, lineage) + std::mem::offset_of!(LineageHead, level_count);
    for (level_count, levels) in [(0, 0), (1, 1), (2, 2), (3, 2), (24, 2), (u32::MAX, 2)] {
        let mut bytes = records::memcg_oom(5, OUTCOME_RELIEVED).sent();
        bytes[count_at..count_at + 4].copy_from_slice(&u32::to_le_bytes(level_count));
        let Ok(Record::MemcgOom(facts)) = decode(&bytes) else { panic!() };
        assert_eq!(facts.lineage.levels.len(), levels, "{level_count}");
    }
    // Half of the last one.
    let mut bytes = records::memcg_oom(5, OUTCOME_RELIEVED).sent();
    bytes.truncate(bytes.len() - 52);
    set_len(&mut bytes);
    let Ok(Record::MemcgOom(facts)) = decode(&bytes) else { panic!() };
    assert_eq!(facts.lineage.levels.len(), 1);
}

/// The parts of a kill are together as long as the record, or nothing of it is believed.
#[test]
fn the_parts_of_a_kill_are_all_of_it() {
    use std::mem::offset_of;
    let lineage = offset_of!(KillHead, lineage);
    for at in [
        lineage + offset_of!(LineageHead, level_count),
        lineage + offset_of!(LineageHead, path_len),
        offset_of!(KillHead, command_line_len),
        offset_of!(KillHead, stack) + offset_of!(Stack, len),
    ] {
        let record = records::oom_kill(3).sent();
        let len = u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        for wrong in [len + 1, len.wrapping_sub(1), u32::MAX] {
            let mut record = record.clone();
            record[at..at + 4].copy_from_slice(&wrong.to_le_bytes());
            let error = decode(&record).unwrap_err();
            assert!(matches!(error, DecodeError::Length { kind: KIND_OOM_KILL, .. }), "{at}: {error}");
        }
    }
    for cut in 1..100 {
        let mut record = records::oom_kill(3).sent();
        record.truncate(record.len() - cut);
        set_len(&mut record);
        assert!(decode(&record).is_err(), "{cut}");
    }
}

fn set_len(bytes: &mut [u8]) {
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
}

#[test]
fn a_record_is_as_long_as_it_says() {
    let bytes = records::oom_kill(3).sent();
    let len = bytes.len();
    // The ring rounds sizes up; extra bytes are ignored.
    let rounded = [bytes.as_slice(), &[0xff; 200]].concat();
    assert_eq!(decode(&rounded), decode(&bytes));
    // Its length is more than what was sent.
    assert_eq!(
        decode(&bytes[..len - 1]),
        Err(DecodeError::Length { kind: KIND_OOM_KILL, says: len as u32, len: len - 1 })
    );
    // Its length is less than its kind needs.
    let mut kill = records::oom_kill(3);
    records::lineage(&mut kill, b"", &[]);
    for (mut bytes, kind, needed) in [
        (kill.sent(), KIND_OOM_KILL, size_of::<KillHead>()),
        (records::memcg_oom(1, 1).sent(), KIND_MEMCG_OOM, LEVELS_OF_OOM),
        (records::shared_mm_kill(1, 1).sent(), KIND_SHARED_MM_KILL, 96),
        (records::cgroup_change(KIND_CGROUP_MKDIR, 1, b"/a").sent(), KIND_CGROUP_MKDIR, 40),
    ] {
        bytes.truncate(needed);
        set_len(&mut bytes);
        assert!(decode(&bytes).is_ok(), "kind {kind}");
        bytes.truncate(needed - 1);
        set_len(&mut bytes);
        assert_eq!(decode(&bytes), Err(DecodeError::Short { kind, len: needed - 1, needed }));
    }
    assert_eq!(decode(&[]), Err(DecodeError::Short { kind: 0, len: 0, needed: 24 }));
    assert_eq!(decode(&[1; 23]), Err(DecodeError::Short { kind: 0, len: 23, needed: 24 }));
    let mut unknown = records::oom_kill(3).sent();
    unknown[0] = 99;
    assert_eq!(decode(&unknown), Err(DecodeError::UnknownKind(99)));
}

fn random_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..size_of::<OomKill>() + 64)
}

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_an_error(mut bytes in random_bytes(), kind in 0_u32..8, honest: bool, page in any::<u64>()) {
        if honest && bytes.len() >= 8 {
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            set_len(&mut bytes);
        }
        let _either = Decoder::new(page).record(&bytes);
    }

    /// With any bits, facts come only from the bytes, and nothing is invented.
    #[test]
    fn any_record_from_the_wire_is_read(bytes in prop::collection::vec(any::<u8>(), size_of::<OomKill>())) {
        let mut record = OomKill::read_from_bytes(&bytes).unwrap();
        record.header.kind = KIND_OOM_KILL;
        record.lineage.level_count %= MAX_LEVELS as u32 + 1;
        record.lineage.path_len %= PATH_LEN as u32 + 1;
        record.command_line_len %= COMMAND_LINE_LEN as u32 + 1;
        record.stack.len = 0;
        let facts = oom_kill(&record);
        prop_assert_eq!(facts.seq, record.header.seq);
        prop_assert_eq!(facts.lineage.levels.len(), record.lineage.level_count as usize);
        let pid_only = record.flags & FLAG_PID_ONLY != 0;
        let has = |bit| record.victim.present & bit != 0 && !pid_only;
        prop_assert_eq!(facts.victim.uid, has(task_fact::UID).then_some(record.victim.uid));
        prop_assert_eq!(facts.victim.tgid, has(task_fact::IDS).then_some(record.victim.tgid));
        prop_assert!(facts.victim.comm.is_none_or(|comm| comm.len() <= COMM_LEN && !comm.contains(&0)));
        prop_assert!(!facts.lineage.path.contains(&0));
        for (raw, level) in record.lineage.levels.iter().zip(&facts.lineage.levels) {
            prop_assert_eq!(level.id, CgroupId(raw.cgroup_id));
            prop_assert_eq!(level.usage_bytes.is_some(), raw.present & level_fact::USAGE != 0);
        }
    }

    #[test]
    fn any_names_become_their_path(names in prop::collection::vec(prop::collection::vec(1_u8.., 1..12), 1..20)) {
        let raw: Vec<u8> = names.iter().rev().flat_map(|name| [name.as_slice(), &[0]].concat()).collect();
        let levels: Vec<MemcgLevel> = (0..=names.len() as u64).map(records::unlimited).collect();
        let mut record = records::oom_kill(1);
        records::lineage(&mut record, &raw, &levels);
        let path: Vec<u8> = names.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect();
        prop_assert_eq!(oom_kill(&record).lineage.path, path);
    }
}

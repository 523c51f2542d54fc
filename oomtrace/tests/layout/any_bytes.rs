//! Malformed type information: an error or fewer facts, and always an end.

use oomtrace::kernel::btf::{Btf, BtfError};
use oomtrace::kernel::layout::resolve;
use proptest::prelude::*;

use super::types::{ARRAY, Entry, PTR, STRUCT, TYPEDEF, Type, Types};
use super::{fixture, types};

/// Reads everything that can be read.
fn read(bytes: Vec<u8>) {
    if let Ok(btf) = Btf::parse(bytes) {
        let _layout_or_error = resolve(&btf, Some(0));
        let _names = btf.enumeration_with("___GFP_DMA_BIT");
        let _function = btf.function("oom_kill_process").and_then(|id| btf.parameters(id));
    }
}

#[test]
fn what_is_no_btf_says_so() {
    let bytes = types("6.18").write();
    let parse = |bytes: &[u8]| Btf::parse(bytes.to_vec()).map(drop);
    assert_eq!(parse(&bytes), Ok(()));
    assert_eq!(parse(&[]), Err(BtfError::Malformed(0)));
    assert_eq!(parse(&[0x9f, 0xeb]), Err(BtfError::Malformed(0)));
    assert_eq!(parse(b"\x7fELF and so on"), Err(BtfError::Magic(0x457f)));
    // Cut at any place before the strings.
    for len in [4, 8, 20, 24, 1000, bytes.len() / 2] {
        assert!(matches!(parse(&bytes[..len]), Err(BtfError::Malformed(_))), "{len}");
    }
    // Cut within a type.
    for less in [1, 4, 8] {
        let mut cut = bytes.clone();
        let types_len = u32::from_le_bytes(cut[12..16].try_into().unwrap());
        cut[12..16].copy_from_slice(&(types_len - less).to_le_bytes());
        assert!(matches!(parse(&cut), Err(BtfError::Malformed(_))), "{less}");
    }
    // An unknown kind.
    let unknown = Types(vec![Type::plain(31, "", 0)]).write();
    assert_eq!(parse(&unknown), Err(BtfError::Malformed(24)));
}

/// Types that contain themselves. No compiler makes them.
#[test]
fn types_within_themselves_have_an_end() {
    let itself = |id: u32, count: usize| {
        let entry = Entry { words: vec![id, 0], ..Entry::default() };
        Type { entries: vec![entry; count], ..Type::plain(STRUCT, "upid", 16) }
    };
    let btf = |ty: Type| Btf::parse(Types(vec![ty]).write()).unwrap();

    // An anonymous member of the structure's own type, several times: each level doubles the work.
    let many = btf(itself(1, 200));
    assert_eq!(many.member(1, "nr"), None);
    let array = btf(Type { words: vec![1, 1, 2], ..Type::plain(ARRAY, "", 0) });
    assert_eq!(array.size(1), None);
    for kind in [PTR, TYPEDEF, 9, 10, 11, 12, 18] {
        let round = btf(Type::plain(kind, "btf_trace_mark_victim", 1));
        assert_eq!(
            (round.parameters(1), round.member(1, "nr"), round.array(1)),
            (None, None, None),
            "kind {kind}"
        );
        assert_eq!(round.size(1), (kind == PTR).then_some(8));
    }
}

#[test]
fn sizes_that_overflow_are_not_known() {
    let mut types = Types::default();
    let int = types.add(Type { words: vec![32], ..Type::plain(1, "int", 4) });
    let mut last = int;
    for _ in 0..4 {
        last = types.add(Type { words: vec![last, int, u32::MAX], ..Type::plain(ARRAY, "", 0) });
    }
    let far = Entry { name: "far".into(), words: vec![1, u32::MAX] };
    let outer = types.add(Type { entries: vec![far], ..Type::plain(STRUCT, "outer", 4) });
    let btf = Btf::parse(types.write()).unwrap();
    assert_eq!(btf.size(last), None);
    assert_eq!(btf.member(outer, "far"), None, "a bitfield has no byte offset");
    assert_eq!((btf.size(0), btf.size(99), btf.size(u32::MAX)), (None, None, None));
}

/// If a structure has bitfields, the upper byte of an offset is the bitfield's size.
#[test]
fn a_structure_with_bitfields_has_its_other_members() {
    let member =
        |name: &str, bits: u32, size: u32| Entry { name: name.into(), words: vec![1, size << 24 | bits] };
    let int = Type { words: vec![32], ..Type::plain(1, "int", 4) };
    let entries = vec![member("flags", 64, 8), member("far", 800_000, 0), member("bit", 801, 1)];
    let structure = Type { flag: true, entries, ..Type::plain(STRUCT, "with_bits", 200_000) };
    let btf = Btf::parse(Types(vec![int, structure]).write()).unwrap();
    let at = |name: &str| btf.member(2, name).map(|member| member.offset_bytes);
    assert_eq!((at("flags"), at("far"), at("bit")), (Some(8), Some(100_000), None));
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read(bytes.clone());
        // With a header, so that the types are parsed.
        let types_len = bytes.len() as u32 & !3;
        let header = [0x0001_eb9f_u32, 24, 0, types_len, 0, types_len].map(u32::to_le_bytes).concat();
        read([header, bytes].concat());
    }

    #[test]
    fn any_change_is_read_to_an_end(
        kernel in 0..super::KERNELS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
    ) {
        let mut bytes = std::fs::read(fixture(super::KERNELS[kernel])).unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        read(bytes);
    }
}

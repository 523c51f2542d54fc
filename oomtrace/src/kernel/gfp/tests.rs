#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;

use crate::kernel::gfp::{GfpNames, value};

/// From tracefs of a 6.18 kernel.
const FORMAT_6_18: &str = include_str!("../fixtures/mm_page_alloc-6.18.format");

/// The enum of that kernel, in its order.
const BITS_6_18: [&str; 26] = [
    "DMA",
    "HIGHMEM",
    "DMA32",
    "MOVABLE",
    "RECLAIMABLE",
    "HIGH",
    "IO",
    "FS",
    "ZERO",
    "UNUSED",
    "DIRECT_RECLAIM",
    "KSWAPD_RECLAIM",
    "WRITE",
    "NOWARN",
    "RETRY_MAYFAIL",
    "NOFAIL",
    "NORETRY",
    "MEMALLOC",
    "COMP",
    "NOMEMALLOC",
    "HARDWALL",
    "THISNODE",
    "ACCOUNT",
    "ZEROTAGS",
    "NO_OBJ_EXT",
    "LAST",
];

fn enumerators(names: &[&str]) -> Vec<(String, u64)> {
    (0..).zip(names).map(|(bit, name)| (format!("___GFP_{name}_BIT"), bit)).collect()
}

/// Numbers and names: the first two from kernel logs, the others from the table.
const NAMED: [(u32, &str); 5] = [
    (0xcc0, "GFP_KERNEL"),
    (0x0014_0cca, "GFP_HIGHUSER_MOVABLE|__GFP_COMP"),
    (0x0010_0cca, "GFP_HIGHUSER_MOVABLE"),
    (0x0040_0dc0, "GFP_KERNEL_ACCOUNT|__GFP_ZERO"),
    (0xd00, "GFP_NOIO|__GFP_ZERO"),
];

#[test]
fn names_are_those_of_the_kernel_log() {
    let names = GfpNames::from_format(FORMAT_6_18, &[]).unwrap();
    for (mask, expected) in NAMED {
        assert_eq!(names.names(mask), expected, "{mask:#x}");
    }
    assert_eq!(names.names(0), "none");
    assert_eq!(names.names(0xcc0 | 0x8000_0000), "GFP_KERNEL|0x80000000");
}

#[test]
fn the_bits_alone_give_the_same_table() {
    let from_bits = GfpNames::from_bits(&enumerators(&BITS_6_18)).unwrap();
    assert_eq!(Some(from_bits), GfpNames::from_format(FORMAT_6_18, &[]));
}

#[test]
fn plain_numbers_of_older_kernels() {
    let format = r#"print fmt: "x=%s", (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|",
        {(unsigned long)((((gfp_t)(0x400u|0x800u)) | ((gfp_t)0x40u) | ((gfp_t)0x80u)) | ((gfp_t)0x100000u)), "GFP_USER"},
        {(unsigned long)(((gfp_t)(0x400u|0x800u)) | ((gfp_t)0x40u) | ((gfp_t)0x80u)), "GFP_KERNEL"},
        {(unsigned long)((gfp_t)0x200u), "__GFP_ATOMIC"}, { 0, ((void *)0) } ) : "none""#;
    let names = GfpNames::from_format(format, &[]).unwrap();
    assert_eq!(names.names(0xcc0), "GFP_KERNEL");
    assert_eq!(names.names(0x0010_0ec0), "GFP_USER|__GFP_ATOMIC");
}

#[test]
fn names_of_bits_left_in_the_text_are_looked_up() {
    let format = r#"__print_flags(REC->gfp_flags, "|", {( unsigned long)((( gfp_t)((((1UL))) << (___GFP_IO_BIT)))), "__GFP_IO"},
        {(unsigned long)((gfp_t)(1UL << ___GFP_NEWER_BIT)), "__GFP_NEWER"}, { 0, NULL })"#;
    let names = GfpNames::from_format(format, &enumerators(&BITS_6_18)).unwrap();
    assert_eq!(names.names(0x240), "__GFP_IO|0x200");
    assert_eq!(GfpNames::from_format(format, &[]), None);
}

#[test]
fn nothing_published_no_names() {
    assert_eq!(GfpNames::from_format("", &[]), None);
    assert_eq!(GfpNames::from_format("print fmt: \"%d\", REC->x", &[]), None);
    assert_eq!(GfpNames::from_bits(&[("ZONE_DMA".to_owned(), 0)]), None);
    assert_eq!(GfpNames::from_bits(&[("___GFP_HUGE_BIT".to_owned(), 99)]), None);
}

#[test]
fn operators_bind_as_in_c() {
    assert_eq!(value("1 | 2 & 3 << 1", &[]), Some(1 | 2 & (3 << 1)));
    assert_eq!(value("~0x0fUL & (0xff)", &[]), Some(0xf0));
    assert_eq!(value("1 << 64", &[]), None);
    assert_eq!(value("1 + 1", &[]), None);
    assert_eq!(value("sizeof(int)", &[]), None);
    assert_eq!(value(&"(".repeat(100_000), &[]), None);
    assert_eq!(value(&"~".repeat(100_000), &[]), None);
}

proptest! {
    #[test]
    fn any_text_is_safe(text in "[-(){}\",~<>&|^ 0-9a-zA-Z_]{0,200}") {
        let _ = GfpNames::from_format(&format!("__print_flags(x, {text}"), &[]);
        let _ = value(&text, &[]);
    }

    #[test]
    fn names_stand_for_every_bit_once(mask: u32) {
        let names = GfpNames::from_format(FORMAT_6_18, &[]).unwrap();
        let mut left = mask;
        if mask != 0 {
            for name in names.names(mask).split('|') {
                let bits = names.table.iter().find(|(_, known)| known == name).map(|(bits, _)| *bits)
                    .or_else(|| u32::from_str_radix(name.strip_prefix("0x")?, 16).ok()).unwrap();
                prop_assert_eq!(left & bits, bits);
                left &= !bits;
            }
        }
        prop_assert_eq!(left, 0);
    }
}

//! The kernel's types as aya needs them to load a function hook: the functions at their numbers, and nothing of all other types.
//!
//! aya reads them only to find the number of a function. All types of a kernel take it about 20 MB and 19 ms.

use aya::{Btf as AyaBtf, BtfError, Endianness};

use crate::kernel::btf::{Btf, TypeId};

/// Magic, version 1, no flags.
const START: u32 = 0x0001_eb9f;
const HEADER_BYTES: u32 = 24;
const POINTER: u32 = 2 << 24;
const FUNCTION: u32 = 12 << 24;

/// The types with these functions, as far as the kernel has them.
///
/// # Errors
/// If aya cannot read them.
pub(super) fn of(btf: &Btf, functions: &[&str]) -> Result<AyaBtf, BtfError> {
    AyaBtf::parse(&bytes(btf, functions), Endianness::Little)
}

/// The same as a file.
fn bytes(btf: &Btf, functions: &[&str]) -> Vec<u8> {
    let mut known: Vec<(TypeId, &str)> =
        functions.iter().filter_map(|name| Some((btf.function(name)?, *name))).collect();
    known.sort_unstable();
    known.dedup();
    let (mut types, mut names) = (Vec::new(), vec![0]);
    let mut next = 1;
    // A pointer to nothing is the shortest type.
    let other = words([0, POINTER, 0]);
    for (id, name) in known {
        (next..id).for_each(|_| types.extend_from_slice(&other));
        types.extend(words([len(&names), FUNCTION, 0]));
        names.extend(name.bytes().chain([0]));
        next = id.saturating_add(1);
    }
    let mut file = words([START, HEADER_BYTES, 0, len(&types), len(&types), len(&names)]);
    file.append(&mut types);
    file.append(&mut names);
    file
}

fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A type's number has 32 bits, but kernels have far fewer types than would fill 4 GiB.
fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A kernel with other types between its functions `first`, 3, and `second`, 5.
    fn kernel() -> Btf {
        let names = b"\0first\0second\0other\0";
        let number = words([14, 1 << 24, 4, 32]);
        let prototype = words([0, 13 << 24, 0]);
        let types =
            [number, prototype, words([1, FUNCTION, 2]), words([14, FUNCTION, 2]), words([7, FUNCTION, 2])]
                .concat();
        let header = words([START, HEADER_BYTES, 0, len(&types), len(&types), len(names)]);
        Btf::parse([header, types, names.to_vec()].concat()).unwrap()
    }

    #[test]
    fn each_function_has_the_number_that_the_kernel_gave_it_and_nothing_else_is_there() {
        let of_kernel = |functions: &[&str]| Btf::parse(bytes(&kernel(), functions)).unwrap();
        let few = of_kernel(&["second", "first", "second", "missing"]);
        assert_eq!(
            ["first", "second", "missing", "other"].map(|name| few.function(name)),
            [Some(3), Some(5), None, None]
        );
        assert_eq!(of_kernel(&["second"]).function("second"), Some(5));
        assert_eq!(of_kernel(&["missing"]).function("missing"), None);
        of(&kernel(), &["first", "second"]).unwrap();
    }
}

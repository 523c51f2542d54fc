//! A number of pages in two bytes: exact below 2048, else within 0.03 %. A larger number has a larger code.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bits after the first one that are kept.
const BITS: u32 = 11;
const ONE: u64 = 1 << BITS;

/// A number of pages, or nothing.
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Packed(u16);

impl Packed {
    /// No number.
    pub const NONE: Self = Self(u16::MAX);

    /// The code of the nearest number.
    pub fn of(pages: u64) -> Self {
        let bits = u64::BITS - pages.leading_zeros();
        let shift = bits.saturating_sub(BITS + 1);
        let rounded = if shift == 0 { pages } else { pages.saturating_add(1 << (shift - 1)) >> shift };
        // Rounding up may add a bit, which is the first one of the next power of two.
        let code = match rounded {
            small if small < ONE && shift == 0 => small,
            _ => (u64::from(shift) + 1) * ONE + (rounded - ONE),
        };
        Self(u16::try_from(code).unwrap_or(u16::MAX).min(u16::MAX - 1))
    }

    /// The number.
    pub fn pages(self) -> Option<u64> {
        if self == Self::NONE {
            return None;
        }
        let code = u64::from(self.0);
        let rest = code % ONE;
        Some(match code / ONE {
            0 => rest,
            power => (ONE + rest) << (power - 1),
        })
    }

    /// The smaller one, of those that are numbers.
    pub fn or_lower(self, other: Self) -> Self {
        // Nothing has the largest code.
        self.min(other)
    }

    /// The larger one, of those that are numbers.
    pub fn or_higher(self, other: Self) -> Self {
        match (self, other) {
            (Self::NONE, one) | (one, Self::NONE) => one,
            _ => self.max(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_within_three_hundredths_of_a_percent(bits in 0u32..42, any in any::<u64>()) {
            let pages = any & ((1 << bits) - 1);
            let back = Packed::of(pages).pages();
            prop_assert!(back.is_some_and(|back| back.abs_diff(pages) <= pages / 4000), "{pages} {back:?}");
            if pages < 2048 {
                prop_assert_eq!(back, Some(pages));
            }
        }

        #[test]
        fn a_larger_number_has_no_smaller_code(one in any::<u64>(), more in any::<u64>(), bits in 0u32..64) {
            let more = one.saturating_add(more >> bits);
            prop_assert!(Packed::of(one) <= Packed::of(more));
        }
    }

    #[test]
    fn nothing_is_no_number() {
        assert_eq!(Packed::NONE.pages(), None);
        assert!(Packed::of(u64::MAX).pages().is_some());
        let one = Packed::of(7);
        assert_eq!((Packed::NONE.or_lower(one), Packed::NONE.or_higher(one)), (one, one));
        assert_eq!((one.or_lower(Packed::of(9)), one.or_higher(Packed::of(9))), (one, Packed::of(9)));
    }
}

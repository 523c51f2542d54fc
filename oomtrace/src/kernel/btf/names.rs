//! Names that somebody will ask for: found on the one way through all types, instead of on a way each.

use crate::kernel::btf::TypeId;

/// What a name is the name of.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A structure with members.
    Structure,
    /// A function.
    Function,
    /// A typedef.
    Typedef,
    /// An enumerator: the type is its enumeration.
    Enumerator,
}

/// The names, and for each the first type of each kind.
pub(super) struct Names {
    found: Vec<(&'static str, [Option<TypeId>; 4])>,
    /// Which first bytes any of them has: all others need no closer look.
    starts: [bool; 256],
}

/// Bytes of a name that tell most of them apart, its NUL among them.
const START: usize = 4;

fn place(start: [u8; START]) -> usize {
    // Any odd number that spreads them.
    let [.., high] = u32::from_le_bytes(start).wrapping_mul(0x9e37_79b1).to_le_bytes();
    high.into()
}

impl Names {
    pub(super) fn of(names: &[&'static str]) -> Self {
        let mut starts = [false; 256];
        for name in names {
            let mut start = [0; START];
            for (to, from) in start.iter_mut().zip(name.bytes()) {
                *to = from;
            }
            // What comes after the NUL of a shorter name may be anything.
            match name.len() + 1 < START {
                true => starts = [true; 256],
                false => starts.iter_mut().skip(place(start)).take(1).for_each(|is| *is = true),
            }
        }
        Self { found: names.iter().map(|name| (*name, [None; 4])).collect(), starts }
    }

    /// The type of this name; `None` if nobody said that it would be asked for.
    pub(super) fn get(&self, name: &str, kind: Kind) -> Option<Option<TypeId>> {
        let (_, types) = self.found.iter().find(|(known, _)| *known == name)?;
        types.get(kind as usize).copied()
    }

    /// Notes a type, if its name, which starts in `strings`, is one of these, and the first of its kind.
    pub(super) fn note(&mut self, strings: &[u8], kind: Kind, id: usize) {
        let start = strings.first_chunk::<START>();
        // At the very end of the strings it may be any of them.
        if start.is_some_and(|start| !self.starts.get(place(*start)).is_some_and(|is| *is)) {
            return;
        }
        let is_it = |name: &str| strings.starts_with(name.as_bytes()) && strings.get(name.len()) == Some(&0);
        let found = self.found.iter_mut().find(|(name, _)| is_it(name));
        if let Some(slot) = found.and_then(|(_, types)| types.get_mut(kind as usize))
            && slot.is_none()
        {
            *slot = TypeId::try_from(id).ok();
        }
    }
}

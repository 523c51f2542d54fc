//! Names that will be looked up: all found in one pass through the types, instead of one pass each.

use crate::kernel::btf::TypeId;

/// The kind of thing that a name stands for.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A structure with members.
    Structure,
    /// A function.
    Function,
    /// A typedef.
    Typedef,
    /// An enumerator. The type is its enumeration.
    Enumerator,
}

/// The names, and for each the first type of each kind.
pub(super) struct Names {
    found: Vec<(&'static str, [Option<TypeId>; 4])>,
    /// The first bytes of all names: a name with other first bytes needs no comparison.
    starts: [bool; 256],
}

/// This many bytes of a name, including its NUL, distinguish most names.
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
            // After the NUL of a shorter name there may be anything.
            match name.len() + 1 < START {
                true => starts = [true; 256],
                false => starts.iter_mut().skip(place(start)).take(1).for_each(|is| *is = true),
            }
        }
        Self { found: names.iter().map(|name| (*name, [None; 4])).collect(), starts }
    }

    /// The type with this name; `None` if the name was not announced.
    pub(super) fn get(&self, name: &str, kind: Kind) -> Option<Option<TypeId>> {
        let (_, types) = self.found.iter().find(|(known, _)| *known == name)?;
        types.get(kind as usize).copied()
    }

    /// Records a type if its name, which starts in `strings`, is one of these, and if it is the first of its
    /// kind.
    pub(super) fn note(&mut self, strings: &[u8], kind: Kind, id: usize) {
        let start = strings.first_chunk::<START>();
        // At the end of the strings, too few bytes are left for this check.
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

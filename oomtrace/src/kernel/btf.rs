//! Reads the kernel's own type information (`/sys/kernel/btf/vmlinux`): finds offsets and values by name. It
//! keeps only what a tracer needs.
//!
//! Format: Documentation/bpf/btf.rst. No input can end the process.

mod names;

use crate::kernel::mapped::Bytes;
use names::{Kind, Names};

/// Why the type information cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// It does not start like BTF.
    #[error("not BTF: magic {0:#06x}, 0xeb9f expected")]
    Magic(u16),
    /// It is shorter than its header says, or contains something unknown.
    #[error("BTF is cut or malformed at byte {0}")]
    Malformed(usize),
}

/// A type's number.
pub type TypeId = u32;

/// The kernel's type information.
pub struct Btf {
    bytes: Bytes,
    /// Where each type starts; type 1 is the first.
    types: Vec<u32>,
    strings: usize,
    names: Names,
}

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// From the start of the structure.
    pub offset_bytes: u32,
    /// Its type.
    pub type_id: TypeId,
}

/// `BTF_KIND_*`.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    vlen: u32,
    /// Bit 31 of `info`: member offsets carry a bitfield size.
    flag: bool,
    /// `size` or `type`.
    size_or_type: u32,
}

const TYPE_BYTES: usize = 12;
/// Deeper nesting of anonymous members, typedefs and qualifiers than in any kernel.
const DEPTH: u32 = 16;
/// More members than any kernel's structure has, including those of anonymous parts.
const MEMBERS: u32 = 1 << 16;

impl Btf {
    /// Reads the header and finds where each type starts.
    ///
    /// # Errors
    /// If it is not BTF, or not complete.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, BtfError> {
        Self::parse_for(bytes, &[])
    }

    /// As [`Self::parse`], and also finds the types with these names. Any other name needs a search through all types.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_for(bytes: impl Into<Bytes>, names: &[&'static str]) -> Result<Self, BtfError> {
        let bytes = bytes.into();
        let word = |at: usize| word(&bytes, at).ok_or(BtfError::Malformed(at));
        let magic = word(0)?;
        if magic & 0xffff != 0xeb9f {
            return Err(BtfError::Magic(u16::try_from(magic & 0xffff).unwrap_or_default()));
        }
        let header = offset(word(4)?);
        let start = header + offset(word(8)?);
        let end = start + offset(word(12)?);
        let strings = header + offset(word(16)?);
        if end > bytes.len() || strings > bytes.len() {
            return Err(BtfError::Malformed(bytes.len()));
        }
        let types = Vec::with_capacity((end - start) / 20);
        let mut btf = Self { bytes, types, strings, names: Names::of(names) };
        let mut at = start;
        while at < end {
            let ty = btf.type_at(at).ok_or(BtfError::Malformed(at))?;
            let next = at + ty.len().ok_or(BtfError::Malformed(at))?;
            btf.note(ty);
            btf.types.push(u32::try_from(at).map_err(|_| BtfError::Malformed(at))?);
            if next > end {
                return Err(BtfError::Malformed(end));
            }
            at = next;
        }
        Ok(btf)
    }

    /// The structure with this name and at least one member.
    pub fn structure(&self, name: &str) -> Option<TypeId> {
        self.find(name, Kind::Structure, |ty| ty.kind == kind::STRUCT && ty.vlen > 0)
    }

    /// The function with this name.
    pub fn function(&self, name: &str) -> Option<TypeId> {
        self.find(name, Kind::Function, |ty| ty.kind == kind::FUNC)
    }

    /// The typedef with this name.
    pub fn typedef(&self, name: &str) -> Option<TypeId> {
        self.find(name, Kind::Typedef, |ty| ty.kind == kind::TYPEDEF)
    }

    /// The size of a type in bytes.
    pub fn size(&self, mut id: TypeId) -> Option<u32> {
        let mut count: u32 = 1;
        for _ in 0..DEPTH {
            let ty = self.resolve(id)?;
            let one = match ty.kind {
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => ty.size_or_type,
                kind::PTR => 8,
                kind::ARRAY => {
                    let (element, length) = self.array(id)?;
                    count = count.checked_mul(length)?;
                    id = element;
                    continue;
                }
                _ => return None,
            };
            return one.checked_mul(count);
        }
        None
    }

    /// The element type and the length of an array.
    pub fn array(&self, id: TypeId) -> Option<(TypeId, u32)> {
        let ty = self.resolve(id)?;
        (ty.kind == kind::ARRAY).then_some(())?;
        Some((self.word(ty.at + TYPE_BYTES)?, self.word(ty.at + TYPE_BYTES + 8)?))
    }

    /// A member by its path: `memory.usage`. Anonymous structures and unions are searched too.
    pub fn member(&self, structure: TypeId, path: &str) -> Option<Member> {
        let mut found = Member { offset_bytes: 0, type_id: structure };
        for name in path.split('.') {
            let mut left = MEMBERS;
            let member = self.one_member(found.type_id, name, 0, &mut left)?;
            found = Member {
                offset_bytes: found.offset_bytes.checked_add(member.offset_bytes)?,
                type_id: member.type_id,
            };
        }
        Some(found)
    }

    /// The names and values of the enumeration that contains the enumerator `name`.
    pub fn enumeration_with(&self, name: &str) -> Option<Vec<(&str, i64)>> {
        let has = |ty: &Type| ty.enumerators().any(|at| self.is_named(self.word(at), name));
        let ty = match self.names.get(name, Kind::Enumerator) {
            Some(known) => self.type_of(known?)?,
            None => self.types.iter().filter_map(|at| self.type_at(offset(*at))).find(has)?,
        };
        Some(ty.enumerators().filter_map(|at| self.enumerator(ty, at)).collect())
    }

    /// The types of a function's parameters, also through a typedef or pointer.
    pub fn parameters(&self, id: TypeId) -> Option<Vec<TypeId>> {
        let mut ty = self.resolve(id)?;
        for _ in 0..DEPTH {
            match ty.kind {
                kind::PTR | kind::FUNC => ty = self.resolve(ty.size_or_type)?,
                kind::FUNC_PROTO => {
                    return (0..ty.vlen)
                        .map(|index| self.word(ty.at + TYPE_BYTES + offset(index) * 8 + 4))
                        .collect();
                }
                _ => return None,
            }
        }
        None
    }

    /// The name of the structure that a pointer points to.
    pub fn pointee(&self, id: TypeId) -> Option<&str> {
        let ty = self.resolve(id)?;
        (ty.kind == kind::PTR).then_some(())?;
        self.string(self.resolve(ty.size_or_type)?.name)
    }

    /// Takes in the type that comes next, if somebody will ask for its name.
    fn note(&mut self, ty: Type) {
        let id = self.types.len() + 1;
        let kind = match ty.kind {
            kind::STRUCT if ty.vlen > 0 => Some((Kind::Structure, ty.at)),
            kind::FUNC => Some((Kind::Function, ty.at)),
            kind::TYPEDEF => Some((Kind::Typedef, ty.at)),
            _ => None,
        };
        let enumerators = ty.enumerators().map(|at| (Kind::Enumerator, at));
        for (kind, at) in kind.into_iter().chain(enumerators) {
            // Of both the name is the first word.
            let name = word(&self.bytes, at).map(|name| self.strings.saturating_add(offset(name)));
            if let Some(strings) = name.and_then(|name| self.bytes.get(name..)) {
                self.names.note(strings, kind, id);
            }
        }
    }

    fn find(&self, name: &str, kind: Kind, wanted: impl Fn(&Type) -> bool) -> Option<TypeId> {
        if let Some(known) = self.names.get(name, kind) {
            return known;
        }
        let index = self.types.iter().position(|at| {
            self.type_at(offset(*at)).is_some_and(|ty| wanted(&ty) && self.is_named(Some(ty.name), name))
        })?;
        TypeId::try_from(index + 1).ok()
    }

    /// `left` limits the work if parts contain themselves, each several times.
    fn one_member(&self, structure: TypeId, name: &str, depth: u32, left: &mut u32) -> Option<Member> {
        let ty = self.resolve(structure)?;
        if depth > DEPTH || !matches!(ty.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        (0..ty.vlen).find_map(|index| {
            *left = left.checked_sub(1)?;
            let at = ty.at + TYPE_BYTES + offset(index) * TYPE_BYTES;
            let member_name = self.word(at)?;
            let type_id = self.word(at + 4)?;
            let bits = self.word(at + 8)?;
            let bits = if ty.flag { bits & 0x00ff_ffff } else { bits };
            let here = bits / 8;
            if self.is_named(Some(member_name), name) {
                return (bits % 8 == 0).then_some(Member { offset_bytes: here, type_id });
            }
            let anonymous = self.is_named(Some(member_name), "");
            let inner = anonymous.then(|| self.one_member(type_id, name, depth + 1, left)).flatten()?;
            Some(Member { offset_bytes: here.checked_add(inner.offset_bytes)?, ..inner })
        })
    }

    fn enumerator(&self, ty: Type, at: usize) -> Option<(&str, i64)> {
        let name = self.string(self.word(at)?)?;
        let low = self.word(at + 4)?;
        let value = if ty.kind == kind::ENUM {
            i64::from(low.cast_signed())
        } else {
            i64::from(low) | (i64::from(self.word(at + 8)?) << 32)
        };
        Some((name, value))
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: TypeId) -> Option<Type> {
        for _ in 0..DEPTH {
            let ty = self.type_of(id)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = ty.size_or_type
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn type_of(&self, id: TypeId) -> Option<Type> {
        self.type_at(offset(*self.types.get(offset(id).checked_sub(1)?)?))
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = self.word(at + 4)?;
        Some(Type {
            at,
            name: self.word(at)?,
            kind: (info >> 24) & 0x1f,
            vlen: info & 0xffff,
            flag: info >> 31 != 0,
            size_or_type: self.word(at + 8)?,
        })
    }

    /// Compares without reading the whole name, because most types have another name.
    fn is_named(&self, name: Option<u32>, wanted: &str) -> bool {
        let Some(bytes) = name.and_then(|name| self.bytes.get(self.strings + offset(name)..)) else {
            return false;
        };
        bytes.starts_with(wanted.as_bytes()) && bytes.get(wanted.len()) == Some(&0)
    }

    fn string(&self, at: u32) -> Option<&str> {
        let bytes = self.bytes.get(self.strings + offset(at)..)?;
        let len = bytes.iter().take(512).position(|byte| *byte == 0)?;
        std::str::from_utf8(bytes.get(..len)?).ok()
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.bytes, at)
    }
}

impl Type {
    /// Where each enumerator is.
    fn enumerators(self) -> impl Iterator<Item = usize> {
        let stride = match self.kind {
            kind::ENUM => 8,
            kind::ENUM64 => 12,
            _ => 0,
        };
        let count = if stride == 0 { 0 } else { offset(self.vlen) };
        (0..count).map(move |index| self.at + TYPE_BYTES + index * stride)
    }

    /// The size of the type and of what follows it, in bytes.
    fn len(&self) -> Option<usize> {
        let each = |bytes: usize| TYPE_BYTES + offset(self.vlen) * bytes;
        Some(match self.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => TYPE_BYTES + 4,
            kind::ARRAY => TYPE_BYTES + 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => each(12),
            kind::ENUM | kind::FUNC_PROTO => each(8),
            // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
            2 | 7..=12 | 16 | kind::TYPE_TAG => TYPE_BYTES,
            _ => return None,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

/// A u32 of the file as an index. No target of this program has a smaller usize.
fn offset(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

//! BTF as types that can be edited. This is a separate reader and writer, so that the fixtures do not depend
//! on the reader under test. Only for valid BTF.

use std::collections::{BTreeMap, HashMap};

pub const PTR: u32 = 2;
pub const ARRAY: u32 = 3;
pub const STRUCT: u32 = 4;
pub const UNION: u32 = 5;
pub const ENUM: u32 = 6;
pub const TYPEDEF: u32 = 8;
pub const FUNC_PROTO: u32 = 13;
const DATASEC: u32 = 15;
const ENUM64: u32 = 19;

/// The structures that the layout is read from, and those inside them that are searched.
const STRUCTURES: [&str; 28] = [
    "task_struct",
    "cred",
    "signal_struct",
    "pid",
    "upid",
    "mm_struct",
    "css_set",
    "cgroup_subsys_state",
    "cgroup",
    "cgroup_root",
    "kernfs_node",
    "mem_cgroup",
    "mem_cgroup_per_node",
    "lruvec",
    "lru_gen_struct",
    "lru_gen_folio",
    "pids_cgroup",
    "oom_control",
    "page_counter",
    "mm_rss_stat",
    "percpu_counter",
    "spinlock",
    "raw_spinlock",
    "file",
    "path",
    "dentry",
    "qstr",
    "qspinlock",
];
/// One enumerator of each enumeration that the layout is read from.
const ENUMERATIONS: [&str; 6] =
    ["PIDTYPE_TGID", "MM_FILEPAGES", "memory_cgrp_id", "MEMCG_LOW", "NR_LRU_LISTS", "CSS_DYING"];

/// A type.
#[derive(Clone, Debug, Default)]
pub struct Type {
    pub name: String,
    pub kind: u32,
    pub flag: bool,
    /// Its size, or the type that it refers to.
    pub size_or_type: u32,
    /// Entries with a name: members, enumerators, parameters.
    pub entries: Vec<Entry>,
    /// Words without a name after the type: three of an array, one of an integer.
    pub words: Vec<u32>,
}

/// A member (type, offset), an enumerator (value), a parameter (type).
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub name: String,
    pub words: Vec<u32>,
}

impl Type {
    /// A kind that nothing follows.
    pub fn plain(kind: u32, name: &str, size_or_type: u32) -> Self {
        Self { name: name.into(), kind, size_or_type, ..Self::default() }
    }

    /// A pointer, typedef, qualifier or type tag.
    fn refers(&self) -> bool {
        matches!(self.kind, PTR | 8..=11 | 18)
    }

    fn has_members(&self) -> bool {
        matches!(self.kind, STRUCT | UNION)
    }

    /// Words of each entry after its name.
    fn entry_words(kind: u32) -> usize {
        match kind {
            STRUCT | UNION | ENUM64 => 2,
            ENUM | FUNC_PROTO => 1,
            _ => 0,
        }
    }

    fn own_words(kind: u32) -> usize {
        match kind {
            1 | 14 | 17 => 1,
            ARRAY => 3,
            _ => 0,
        }
    }
}

/// All types; type 1 is the first.
#[derive(Clone, Debug, Default)]
pub struct Types(pub Vec<Type>);

impl Types {
    pub fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) & 0xffff, 0xeb9f);
        let header = word(4) as usize;
        let (mut at, end) = (header + word(8) as usize, header + (word(8) + word(12)) as usize);
        let strings = header + word(16) as usize;
        let text = |offset: u32| {
            let rest = &bytes[strings + offset as usize..];
            String::from_utf8(rest[..rest.iter().position(|byte| *byte == 0).unwrap()].to_vec()).unwrap()
        };
        let mut types = Vec::new();
        while at < end {
            let info = word(at + 4);
            let (kind, vlen) = (info >> 24 & 0x1f, info & 0xffff);
            let mut ty = Type {
                name: text(word(at)),
                kind,
                flag: info >> 31 == 1,
                size_or_type: word(at + 8),
                ..Type::default()
            };
            at += 12;
            let mut words = |count: usize| {
                let words: Vec<u32> = (0..count).map(|index| word(at + index * 4)).collect();
                at += count * 4;
                words
            };
            ty.words = words(Type::own_words(kind));
            if kind == DATASEC {
                ty.words = words(vlen as usize * 3);
            } else {
                for _ in 0..if Type::entry_words(kind) == 0 { 0 } else { vlen } {
                    let name = text(words(1)[0]);
                    ty.entries.push(Entry { name, words: words(Type::entry_words(kind)) });
                }
            }
            types.push(ty);
        }
        Self(types)
    }

    pub fn write(&self) -> Vec<u8> {
        let mut strings = vec![0];
        let mut known = HashMap::from([(String::new(), 0)]);
        let mut intern = |name: &str| {
            *known.entry(name.to_owned()).or_insert_with(|| {
                let at = strings.len() as u32;
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
                at
            })
        };
        let mut words = Vec::new();
        for ty in &self.0 {
            let info = ty.entries.len() as u32 | ty.kind << 24 | u32::from(ty.flag) << 31;
            words.extend([intern(&ty.name), info, ty.size_or_type]);
            words.extend(&ty.words);
            for entry in &ty.entries {
                words.push(intern(&entry.name));
                words.extend(&entry.words);
            }
        }
        let types_len = words.len() as u32 * 4;
        let header = [0x0001_eb9f, 24, 0, types_len, types_len, strings.len() as u32];
        let mut bytes: Vec<u8> = header.into_iter().chain(words).flat_map(u32::to_le_bytes).collect();
        bytes.extend(strings);
        bytes
    }

    pub fn get(&self, id: u32) -> &Type {
        &self.0[id as usize - 1]
    }

    /// Adds a type; its number.
    pub fn add(&mut self, ty: Type) -> u32 {
        self.0.push(ty);
        self.0.len() as u32
    }

    /// The first type of this kind and name that is not just a declaration.
    pub fn named(&self, kind: u32, name: &str) -> Option<u32> {
        let wanted =
            |ty: &Type| ty.kind == kind && ty.name == name && (kind != STRUCT || !ty.entries.is_empty());
        Some(self.0.iter().position(wanted)? as u32 + 1)
    }

    /// Renames a member, also in an anonymous part. Returns whether it exists.
    pub fn rename_member(&mut self, structure: u32, member: &str, to: &str) -> bool {
        let entries = self.get(structure).entries.clone();
        if let Some(index) = entries.iter().position(|entry| entry.name == member) {
            self.0[structure as usize - 1].entries[index].name = to.into();
            return true;
        }
        entries.iter().filter(|entry| entry.name.is_empty()).any(|entry| {
            let part = entry.words[0];
            self.get(part).has_members() && self.rename_member(part, member, to)
        })
    }

    /// Renames an enumerator. Returns whether it exists.
    pub fn rename_enumerator(&mut self, name: &str, to: &str) -> bool {
        let enums = self.0.iter_mut().filter(|ty| matches!(ty.kind, ENUM | ENUM64));
        let entry = enums.flat_map(|ty| &mut ty.entries).find(|entry| entry.name == name);
        entry.map(|entry| entry.name = to.into()).is_some()
    }

    /// Makes `mark_victim` pass an `int`, as before 6.9.
    pub fn pass_only_a_pid(&mut self) {
        let int = self.add(Type { words: vec![0x0100_0020], ..Type::plain(1, "int", 4) });
        self.pass_to_mark_victim(&[int]);
    }

    /// Makes `mark_victim` pass these types.
    pub fn pass_to_mark_victim(&mut self, types: &[u32]) {
        let parameter = |ty: &u32| Entry { words: vec![*ty], ..Entry::default() };
        let data = self.add(Type::plain(PTR, "", 0));
        let entries = [data].iter().chain(types).map(parameter).collect();
        let proto = self.add(Type { entries, ..Type::plain(FUNC_PROTO, "", 0) });
        let pointer = self.add(Type::plain(PTR, "", proto));
        let typedef = self.named(TYPEDEF, "btf_trace_mark_victim").unwrap();
        self.0[typedef as usize - 1].size_or_type = pointer;
    }

    /// Keeps only what the layout is read from. Other members keep their place, name and size, but not their
    /// own members; pointers point to nothing.
    pub fn reduced(&self) -> Self {
        let mut kept = Kept { from: self, types: Self::default(), ids: BTreeMap::new() };
        for name in STRUCTURES {
            // Not every kernel has the inner structures.
            if let Some(id) = self.named(STRUCT, name) {
                kept.keep(id);
            }
        }
        for name in ENUMERATIONS {
            let has = |ty: &Type| {
                matches!(ty.kind, ENUM | ENUM64) && ty.entries.iter().any(|entry| entry.name == name)
            };
            kept.types.add(self.0[self.0.iter().position(has).unwrap()].clone());
        }
        let typedef = self.named(TYPEDEF, "btf_trace_mark_victim").unwrap();
        let proto = self.get(self.get(self.get(typedef).size_or_type).size_or_type);
        let parameters: Vec<u32> =
            proto.entries[1..].iter().map(|entry| kept.parameter(entry.words[0])).collect();
        kept.types.add(Type::plain(TYPEDEF, "btf_trace_mark_victim", 0));
        kept.types.pass_to_mark_victim(&parameters);
        kept.types
    }
}

struct Kept<'a> {
    from: &'a Types,
    types: Types,
    ids: BTreeMap<u32, u32>,
}

impl Kept<'_> {
    fn keep(&mut self, id: u32) -> u32 {
        if id == 0 {
            return 0;
        }
        if let Some(known) = self.ids.get(&id) {
            return *known;
        }
        let mut ty = self.from.get(id).clone();
        if ty.kind == PTR {
            ty.size_or_type = 0;
        } else if ty.refers() {
            ty.size_or_type = self.keep(ty.size_or_type);
        } else if ty.kind == ARRAY {
            ty.words = vec![self.keep(ty.words[0]), self.keep(ty.words[1]), ty.words[2]];
        } else if ty.has_members() && (ty.name.is_empty() || STRUCTURES.contains(&ty.name.as_str())) {
            for entry in &mut ty.entries {
                entry.words[0] = self.keep(entry.words[0]);
            }
        } else {
            ty.entries.clear();
        }
        let kept = self.types.add(ty);
        self.ids.insert(id, kept);
        kept
    }

    /// Keeps the name of the structure that a parameter points to.
    fn parameter(&mut self, id: u32) -> u32 {
        let ty = self.from.get(id);
        if ty.kind != PTR {
            return self.keep(id);
        }
        let to = self.keep(ty.size_or_type);
        self.types.add(Type::plain(PTR, "", to))
    }
}

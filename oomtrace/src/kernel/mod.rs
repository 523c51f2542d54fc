//! The abilities of this kernel, read from the kernel itself.

pub mod btf;
pub mod gfp;
pub mod layout;
pub mod mapped;
pub mod privilege;
pub mod tracefs;

use std::{fs, io};

use oomtrace_common::layout::ABSENT;

use crate::{
    cgroups::hierarchy::{HierarchyError, MemoryHierarchy},
    host::root::Root,
};
use btf::{Btf, BtfError};
use gfp::GfpNames;
use layout::{LayoutError, Resolved};
use mapped::Bytes;

/// Where the kernel publishes its types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The numbers of the nodes that this host can have.
const NODES: &str = "/sys/devices/system/node/possible";
/// What is beside it on every host.
const PROCESSORS: &str = "/sys/devices/system/cpu/possible";

/// 1 on PREEMPT_RT.
const REALTIME: &str = "/sys/kernel/realtime";

/// What must be known about the kernel before anything is attached.
pub struct Kernel {
    /// Its types.
    pub btf: Btf,
    /// Its layout, for the programs.
    pub resolved: Resolved,
    /// Where its memory cgroups are.
    pub hierarchy: MemoryHierarchy,
    /// Whether it is a PREEMPT_RT kernel.
    pub realtime: bool,
}

/// A kernel that cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It publishes no types.
    #[error("cannot read this kernel's type information in {BTF}")]
    NoBtf(#[source] io::Error),
    /// Its types cannot be parsed.
    #[error("cannot read this kernel's type information in {BTF}")]
    Btf(#[from] BtfError),
    /// It lacks something that every event needs.
    #[error("unsupported kernel")]
    Layout(#[from] LayoutError),
    /// The place of its memory cgroups is not known.
    #[error("cannot find the memory cgroups")]
    Hierarchy(#[from] HierarchyError),
}

impl Kernel {
    /// Reads the kernel's properties.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn read(root: &Root) -> Result<Self, KernelError> {
        let types = Bytes::of_kernel_types(&root.path(BTF)).map_err(KernelError::NoBtf)?;
        let btf = Btf::parse_for(types, &layout::NAMES)?;
        let hierarchy = MemoryHierarchy::detect(root, layout::has_memory_controller(&btf))?;
        let mut resolved = layout::resolve(&btf, hierarchy.hierarchy_id)?;
        let realtime = fs::read(root.path(REALTIME)).is_ok_and(|text| text.starts_with(b"1"));
        resolved.of_nodes(nodes(root));
        if realtime {
            // On PREEMPT_RT a program can be preempted, and then a signal of another task is missed.
            resolved.layout.follow_signals = ABSENT;
        }
        Ok(Self { btf, resolved, hierarchy, realtime })
    }

    /// The names of its allocation flags, if it publishes them.
    pub fn gfp_names(&self) -> Option<GfpNames> {
        let bits = self.btf.enumeration_with(layout::GFP).unwrap_or_default();
        let bits: Vec<(String, u64)> = bits
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), u64::try_from(value).ok()?)))
            .collect();
        // The kernel log uses the same table as tracefs.
        let format = tracefs::read("events/kmem/mm_page_alloc/format").ok();
        format.and_then(|format| GfpNames::from_format(&format, &bits)).or_else(|| GfpNames::from_bits(&bits))
    }
}

/// How many nodes the kernel keeps apart (`nr_node_ids`); `None` if that cannot be read.
fn nodes(root: &Root) -> Option<u32> {
    match fs::read_to_string(root.path(NODES)) {
        Ok(text) => last_of_list(&text)?.checked_add(1),
        // A kernel without NUMA has one, and no such directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::exists(root.path(PROCESSORS)).is_ok_and(|exists| exists).then_some(1)
        }
        Err(_) => None,
    }
}

/// The last number of a list as `0-1,4`.
fn last_of_list(text: &str) -> Option<u32> {
    text.trim_end().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_node_is_the_one_with_the_highest_number() {
        for (text, last) in [
            ("0\n", Some(0)),
            ("0-3\n", Some(3)),
            ("0-1,4", Some(4)),
            ("0,2-10\n", Some(10)),
            ("", None),
            ("0-\n", None),
            ("none", None),
        ] {
            assert_eq!(last_of_list(text), last, "{text:?}");
        }
    }
}

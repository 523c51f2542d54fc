//! Where the kernel keeps the sizes of a memory cgroup's LRU lists.

use oomtrace_common::layout::{ABSENT, LRU_GENERATIONS, LRU_LISTS, MAX_NODES, MAX_ZONES};

use super::{LISTS, Resolved, Structures};

/// Offsets of the layout; see there.
#[derive(Clone, Copy)]
pub(super) struct Lists {
    pub(super) nodeinfo: u32,
    pub(super) zone_size: u32,
    pub(super) gen_nr_pages: u32,
    pub(super) zones: u32,
}

impl Lists {
    /// Nothing is read.
    pub(super) const NONE: Self =
        Self { nodeinfo: ABSENT, zone_size: ABSENT, gen_nr_pages: ABSENT, zones: ABSENT };
}

/// The lists in the order in which the programs add them up.
const ORDER: [&str; LRU_LISTS] =
    ["LRU_INACTIVE_ANON", "LRU_ACTIVE_ANON", "LRU_INACTIVE_FILE", "LRU_ACTIVE_FILE", "LRU_UNEVICTABLE"];

/// The structure of one cgroup on one node.
const PER_NODE: &str = "mem_cgroup_per_node";

/// Where they are. All or none: a sum of which a part is missing would be false.
pub(super) fn of(s: &mut Structures<'_>) -> Lists {
    let nodeinfo = s.wanted("mem_cgroup", &["nodeinfo"]);
    let found = sizes(s).unwrap_or_else(|what| {
        s.lack(what.into());
        Lists::NONE
    });
    if nodeinfo == ABSENT { Lists::NONE } else { Lists { nodeinfo, ..found } }
}

/// Where the sizes are, without `nodeinfo`; else the name of what is not as expected.
fn sizes(s: &mut Structures<'_>) -> Result<Lists, &'static str> {
    const ZONE_SIZE: &str = "mem_cgroup_per_node.lru_zone_size";
    const NR_PAGES: &str = "mem_cgroup_per_node.lruvec.lrugen.nr_pages";
    let btf = s.btf;
    let lists = btf.enumeration_with(LISTS).unwrap_or_default();
    let is = |name: &str, index: usize| {
        lists.iter().any(|(known, value)| *known == name && usize::try_from(*value) == Ok(index))
    };
    if !is(LISTS, LRU_LISTS) || !ORDER.iter().enumerate().all(|(index, name)| is(name, index)) {
        return Err("enum lru_list as oomtrace knows it");
    }
    let node = s.id(PER_NODE).ok_or(ZONE_SIZE)?;
    let words = |path: &str| {
        let member = btf.member(node, path)?;
        let bytes = usize::try_from(btf.size(member.type_id)?).ok()?;
        (bytes % 8 == 0).then_some((member.offset_bytes, bytes / 8))
    };
    let (zone_size, count) = words("lru_zone_size").ok_or(ZONE_SIZE)?;
    let zones = count / LRU_LISTS;
    if count % LRU_LISTS != 0 || !(1..=MAX_ZONES).contains(&zones) {
        return Err(ZONE_SIZE);
    }
    let gen_nr_pages = if btf.member(node, "lruvec.lrugen").is_none() {
        // A kernel without the multi-gen LRU.
        ABSENT
    } else {
        let (at, count) = words("lruvec.lrugen.nr_pages").ok_or(NR_PAGES)?;
        if count != 2 * LRU_GENERATIONS * zones {
            return Err(NR_PAGES);
        }
        at
    };
    let zones = u32::try_from(zones).map_err(|_| ZONE_SIZE)?;
    Ok(Lists { nodeinfo: ABSENT, zone_size, gen_nr_pages, zones })
}

impl Resolved {
    /// Lets the programs read the LRU lists on a host with this many nodes; `None` if that is not known.
    pub fn of_nodes(&mut self, nodes: Option<u32>) {
        if self.layout.lru_zone_size == ABSENT || self.layout.mem_cgroup_nodeinfo == ABSENT {
            return;
        }
        match nodes {
            Some(nodes) if usize::try_from(nodes).is_ok_and(|nodes| (1..=MAX_NODES).contains(&nodes)) => {
                self.layout.nodes = nodes;
            }
            Some(nodes) => {
                self.absent.push(format!("LRU lists of at most {MAX_NODES} nodes (it has {nodes})"))
            }
            None => self.absent.push("known number of nodes".into()),
        }
    }
}

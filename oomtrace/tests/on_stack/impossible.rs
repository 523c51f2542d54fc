//! Each way in which what looks like the struct cannot be it: one value is wrong, and all the others are right.

use crate::world::{IN_POD, LEADER, MEMCGS, NODES, OF_HOST, OTHER, Oc, TASK, found};

/// Every rule broken alone, by `n` values each.
pub fn all(n: u64) -> Vec<(&'static str, Oc)> {
    let odd = |word: u64| word & !0xf000_0000_0000_0000;
    vec![
        ("nothing below holds its address", Oc { anchor: None, ..IN_POD }),
        ("nothing below holds its address", Oc { anchor: None, ..OF_HOST }),
        ("its address is held above it only", Oc { anchor: Some(60), ..IN_POD }),
        ("its address is an argument of the tracepoint", Oc { anchor: Some((n % 2) as usize), ..IN_POD }),
        ("order", Oc { order: -2 - (n % 1000) as i32, ..OF_HOST }),
        ("order", Oc { order: 14 + (n % 1000) as i32, ..IN_POD }),
        ("gfp", Oc { gfp_mask: 0xcc0 | 1 << (29 + n % 3), ..IN_POD }),
        ("a constraint that is none", Oc { constraint: 4 + (n % 1000) as u32, ..OF_HOST }),
        ("a cgroup's constraint without a cgroup", Oc { constraint: 3, ..OF_HOST }),
        ("a cgroup without its constraint", Oc { constraint: (n % 3) as u32, ..IN_POD }),
        ("no ancestor", Oc { memcg: MEMCGS[1] + 8 * (1 + n % 1000), ..IN_POD }),
        ("no address at all", Oc { memcg: 1 + n % 1000, ..IN_POD }),
        ("nodes of a cgroup", Oc { zonelist: NODES, ..IN_POD }),
        ("nodes of a cgroup", Oc { nodemask: NODES, ..IN_POD }),
        ("nodes nowhere", Oc { zonelist: odd(NODES + n % 1000 * 8), ..OF_HOST }),
        ("nodes nowhere", Oc { nodemask: odd(NODES + n % 1000 * 8), ..OF_HOST }),
        ("nodes askew", Oc { zonelist: NODES + 1 + n % 7, ..OF_HOST }),
        ("nodes askew", Oc { nodemask: NODES + 1 + n % 7, ..OF_HOST }),
        ("sysrq in a cgroup", Oc { order: -1, ..IN_POD }),
        ("not worked out", Oc { totalpages: 0, chosen_points: 0, ..OF_HOST }),
        ("not worked out", Oc { totalpages: 0, chosen_points: 0, ..IN_POD }),
        ("more than any machine", Oc { totalpages: (1 << 40) + n, ..OF_HOST }),
        ("a score beyond all", Oc { chosen_points: 4 * 2000 + 4097 + (n % 1000) as i64, ..IN_POD }),
        ("a score below all", Oc { chosen_points: -(4 * 2000 + 4097 + (n % 1000) as i64), ..IN_POD }),
        ("nobody chosen", Oc { chosen: 0, ..IN_POD }),
        ("another one chosen", Oc { chosen: OTHER + n % 1000 * 64, ..IN_POD }),
        ("another one chosen", Oc { chosen: OTHER + n % 1000 * 64, ..OF_HOST }),
        ("no task at all", Oc { chosen: TASK + 1, ..IN_POD }),
        ("no task at all", Oc { chosen: LEADER - 8, ..OF_HOST }),
    ]
}

#[test]
fn what_cannot_be_one_is_none() {
    assert!(found(&IN_POD.alone()).is_some() && found(&OF_HOST.alone()).is_some());
    for n in [0, 1, 2, 3, 5, 997] {
        for (why, oc) in all(n) {
            assert!(found(&oc.alone()).is_none(), "{why}: {oc:?}");
        }
    }
}

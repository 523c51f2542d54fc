//! How memory went.

use oomtrace::event::*;

use super::{cgroup, container, of_run};

const MINUTE_NS: u64 = 60_000_000_000;
const MIB: u64 = 1 << 20;

pub fn before() -> Before {
    Before {
        of: BeforeOf::Limit,
        interval_ns: 10_000_000_000,
        samples: 264,
        age_ns: Some(44 * MINUTE_NS),
        shape: Some(Shape::Growth),
        over_ns: Some(43 * MINUTE_NS),
        start_bytes: Some(15 * MIB),
        floor_slope: Some(slope()),
        last: Some(LastSample { age_ns: 6_900_000_000, usage_bytes: 49 * MIB }),
        at_limit_ns: Some(0),
        unseen_peak: Some(LastSample { age_ns: 20 * MINUTE_NS, usage_bytes: 48 * MIB }),
        unreclaimable: Some(UnreclaimableBefore {
            shape: Some(Shape::Growth),
            start_bytes: Some(12 * MIB),
            last_bytes: 48 * MIB,
            floor_slope: Some(slope()),
        }),
        points: vec![
            (-2_580_000, 15 * MIB),
            (-1_720_000, 27 * MIB),
            (-860_000, 39 * MIB),
            (-6900, 49 * MIB),
            (0, 52_424_704),
        ],
    }
}

fn slope() -> FloorSlope {
    FloorSlope { bytes_per_hour: 51_642_368, low_bytes_per_hour: 49_283_072, high_bytes_per_hour: 53_477_376 }
}

pub fn recurrence() -> Recurrence {
    Recurrence {
        key: "compose:shop/api".into(),
        kills: 7,
        since: "2026-11-20T19:02:33.000000000Z".into(),
        lifetime_ns: Some(Lifetimes { min: 42 * MINUTE_NS, median: 43 * MINUTE_NS, max: 46 * MINUTE_NS }),
    }
}

pub fn limit_near() -> LimitNear {
    LimitNear {
        envelope: of_run(4),
        because: NearBecause::Rising,
        cgroup: cgroup(),
        limit_bytes: 50 * MIB,
        usage_bytes: 47 * MIB,
        unreclaimable_bytes: 46 * MIB,
        over_ns: Some(20 * MINUTE_NS),
        floor_slope: Some(slope()),
        to_limit_ns: Some(ToLimit { min: 2 * MINUTE_NS, max: 11 * MINUTE_NS }),
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

pub fn limit_near_full() -> LimitNear {
    LimitNear {
        envelope: of_run(5),
        because: NearBecause::Full,
        unreclaimable_bytes: 49 * MIB,
        over_ns: None,
        floor_slope: None,
        to_limit_ns: None,
        container: None,
        systemd: Some(Systemd { unit: "db.service".into(), user: None }),
        ..limit_near()
    }
}

pub fn limit_far() -> LimitFar {
    LimitFar {
        envelope: of_run(6),
        cgroup: cgroup(),
        limit_bytes: Some(50 * MIB),
        usage_bytes: Some(31 * MIB),
        unreclaimable_bytes: Some(30 * MIB),
        near_ns: 12 * MINUTE_NS,
        removed: false,
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

pub fn usage() -> Usage {
    Usage {
        envelope: of_run(7),
        key: "compose:shop/api".into(),
        cgroup: cgroup(),
        cgroup_count: 2,
        limit_bytes: 50 * MIB,
        peak_bytes: 31 * MIB,
        floor_bytes: 12 * MIB,
        watched_ns: 24 * 60 * MINUTE_NS,
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

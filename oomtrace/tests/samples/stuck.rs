//! A victim that does not end.

use oomtrace::event::*;

use super::{STREAM, container, envelope};

/// It waits for a server of files.
pub fn stuck() -> Stuck {
    let thread = |tid, state: &str, wchan: Option<&str>| StuckThread {
        tid,
        state: state.to_owned(),
        wchan: wchan.map(str::to_owned),
    };
    Stuck {
        envelope: Envelope {
            id: Some(format!("{STREAM}-stuck-42-first")),
            ..envelope(Origin::Oomtrace, None)
        },
        of: vec![42],
        after_ns: 5_003_218_441,
        still_there: 1,
        victim: IncidentVictim { pid: Some(2990), comm: Some("python3".into()) },
        thread_count: Some(2),
        threads: vec![thread(2991, "D", Some("rpc_wait_bit_killable")), thread(2990, "Z", None)],
        reaper: Some(Reaper::Reaped),
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

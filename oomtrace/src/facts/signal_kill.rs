//! A record of a signal: bytes in, facts out.

use oomtrace_common::record::{self as wire, SignalKey};

use super::{BootTime, DecodeError, Decoder, Lineage, TaskFacts, prefix, task, until_nul};
use crate::event::{How, Signal};

/// A signal that ended processes.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalKillFacts {
    /// When.
    pub time: BootTime,
    /// Which; `None` if this version does not know it.
    pub signal: Option<Signal>,
    /// How; `None` if this version does not know it.
    pub how: Option<How>,
    /// Who got it.
    pub target: TaskFacts,
    /// Who sent it.
    pub sender: TaskFacts,
    /// The name of the sender's parent: any bytes but NUL.
    pub parent_comm: Option<Vec<u8>>,
    /// The name of the file that the sender runs: any bytes but NUL.
    pub executable_name: Option<Vec<u8>>,
    /// The last SIGTERM to the target.
    pub sigterm: Option<SigtermFacts>,
    /// The target's memory cgroup and some above it, without a path.
    pub lineage: Lineage,
    /// Which signals are counted with it.
    pub group: SignalKey,
}

/// A SIGTERM that came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigtermFacts {
    /// When.
    pub time: BootTime,
    /// The sender's process id.
    pub sender_tgid: u32,
    /// The sender's user id.
    pub sender_uid: u32,
    /// The sender's name: any bytes but NUL.
    pub sender_comm: Vec<u8>,
}

impl SignalKillFacts {
    /// Whether the target is the first process of its pid namespace: that of a container. (The host's own cannot be killed.)
    pub fn is_first_process(&self) -> bool {
        self.target.namespace_tgid == Some(1)
    }
}

pub(super) fn signal_kill(decoder: &Decoder, bytes: &[u8]) -> Result<SignalKillFacts, DecodeError> {
    let raw = prefix::<wire::SignalKill>(wire::KIND_SIGNAL_KILL, bytes)?;
    let target = task(&raw.target);
    let sender = task(&raw.sender);
    let start = target.start;
    let some = |text: Vec<u8>| (!text.is_empty()).then_some(text);
    let count = usize::try_from(raw.level_count).unwrap_or(usize::MAX).min(raw.levels.len());
    let group = SignalKey {
        cgroup_id: target.memcg.map_or(0, |id| id.0),
        sender_tgid: sender.tgid.unwrap_or(0),
        signal: raw.signal,
        how: raw.how,
        first_process: u32::from(target.namespace_tgid == Some(1)),
    };
    Ok(SignalKillFacts {
        time: BootTime(raw.header.boot_time_ns),
        signal: match raw.signal {
            wire::SIGKILL => Some(Signal::Kill),
            wire::SIGTERM => Some(Signal::Term),
            _ => None,
        },
        how: match raw.how {
            wire::HOW_KILL => Some(How::Kill),
            wire::HOW_TGKILL => Some(How::Tgkill),
            wire::HOW_CGROUP_KILL => Some(How::CgroupKill),
            wire::HOW_PID_NAMESPACE_ENDED => Some(How::PidNamespaceEnded),
            wire::HOW_KERNEL => Some(How::Kernel),
            _ => None,
        },
        target,
        sender,
        parent_comm: some(until_nul(&raw.parent_comm)),
        executable_name: some(until_nul(&raw.executable_name)),
        sigterm: (raw.sigterm.sent_ns != 0 && start == Some(BootTime(raw.sigterm.start_ns))).then(|| {
            SigtermFacts {
                time: BootTime(raw.sigterm.sent_ns),
                sender_tgid: raw.sigterm.sender_tgid,
                sender_uid: raw.sigterm.sender_uid,
                sender_comm: until_nul(&raw.sigterm.sender_comm),
            }
        }),
        lineage: Lineage {
            levels: raw.levels.iter().take(count).map(|level| decoder.level(level)).collect(),
            path: Vec::new(),
            path_cut: true,
            levels_cut: true,
        },
        group,
    })
}

//! What a killer itself says of its kills: systemd-oomd and oomd count them on the cgroup, as extended attributes of its directory.
//!
//! They confirm what unit and executable say, and prove nothing alone: who owns a cgroup may write them.

use std::path::{Path, PathBuf};

use crate::{
    cgroups::memory_files::directory,
    event::{Absence, Killer, Reason, SignalKill},
};

/// What they count: processes that were killed, and how often the killer acted.
const COUNTS: [&str; 2] = ["user.oomd_kill", "user.oomd_ooms"];

/// The counts as they were when the signal was seen, of the target's cgroup and of those above it. `None` for other killers.
pub(super) struct Confirmation(Option<Vec<(PathBuf, [Option<u64>; 2])>>);

impl Confirmation {
    /// Reads the counts.
    pub(super) fn begin(killer: Option<Killer>, mount: Option<&Path>, paths: &[Vec<u8>]) -> Self {
        if !matches!(killer, Some(Killer::SystemdOomd | Killer::Oomd)) {
            return Self(None);
        }
        let count = |path: &Vec<u8>| {
            let dir = directory(mount?, path);
            let counts = counts(&dir);
            Some((dir, counts))
        };
        Self(Some(paths.iter().filter_map(count).collect()))
    }

    /// Reads them again, and says in the event whether one grew.
    pub(super) fn end(self, event: &mut SignalKill) {
        let Some(before) = self.0 else { return };
        let grew = |(dir, before): &(PathBuf, [Option<u64>; 2])| {
            let now = counts(dir);
            now.iter().zip(before).any(|(now, before)| now.is_some_and(|now| now > before.unwrap_or(0)))
        };
        if before.iter().any(grew) {
            event.killer_confirmed = Some(true);
        } else {
            event.missing.push(Absence::new("killer_confirmed", Reason::NotInCgroupFiles));
            event.missing.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        }
    }
}

fn counts(dir: &Path) -> [Option<u64>; 2] {
    COUNTS.map(|name| {
        let mut text = [0; 24];
        let len = rustix::fs::getxattr(dir, name, &mut text[..]).ok()?;
        str::from_utf8(text.get(..len)?).ok()?.trim_end_matches('\0').trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_the_killers_that_count_are_asked() {
        let paths = [b"/a".to_vec()];
        for killer in [None, Some(Killer::Earlyoom), Some(Killer::Other)] {
            assert!(Confirmation::begin(killer, Some(Path::new("/")), &paths).0.is_none(), "{killer:?}");
        }
        let begun = Confirmation::begin(Some(Killer::SystemdOomd), Some(Path::new("/nowhere")), &paths).0;
        assert_eq!(begun.unwrap(), [(PathBuf::from("/nowhere/a"), [None, None])]);
    }
}

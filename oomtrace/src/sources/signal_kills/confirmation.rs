//! What a killer itself says of its kills: systemd-oomd and oomd count them on the cgroup, as extended attributes of its directory.
//!
//! They confirm what unit and executable say, and prove nothing alone: who owns a cgroup may write them.

use std::{fs::File, path::Path};

use rustix::io::Errno;

use crate::{
    cgroups::memory_files::directory,
    event::{Absence, Killer, Reason, SignalKill},
};

/// What they count: processes that were killed, and how often the killer acted.
const COUNTS: [&str; 2] = ["user.oomd_kill", "user.oomd_ooms"];

/// The counts as they were when the signal was seen, of the target's cgroup and of those above it. `None` for other killers.
pub(super) struct Confirmation(Option<Vec<Counted>>);

/// A cgroup's directory, held open: it is soon removed.
struct Counted {
    directory: File,
    before: [Option<u64>; 2],
}

impl Confirmation {
    /// Reads the counts.
    pub(super) fn begin(killer: Option<Killer>, mount: Option<&Path>, paths: &[Vec<u8>]) -> Self {
        if !matches!(killer, Some(Killer::SystemdOomd | Killer::Oomd)) {
            return Self(None);
        }
        let count = |path: &Vec<u8>| {
            let directory = File::open(directory(mount?, path)).ok()?;
            let before = counts(&directory);
            Some(Counted { directory, before })
        };
        Self(Some(paths.iter().filter_map(count).collect()))
    }

    /// Reads them again, and says in the event whether one grew.
    pub(super) fn end(self, event: &mut SignalKill) {
        if self.0.is_none() {
            return;
        }
        if self.grew() {
            event.killer_confirmed = Some(true);
        } else {
            event.missing.push(Absence::new("killer_confirmed", Reason::NotInCgroupFiles));
            event.missing.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        }
    }

    fn grew(&self) -> bool {
        let grew = |Counted { directory, before }: &Counted| {
            let now = counts(directory);
            now.iter().zip(before).any(|pair| matches!(pair, (Some(now), Some(before)) if now > before))
        };
        self.0.iter().flatten().any(grew)
    }
}

/// 0 is what has not been counted yet; `None` what cannot be read.
fn counts(directory: &File) -> [Option<u64>; 2] {
    COUNTS.map(|name| {
        let mut text = [0; 24];
        match rustix::fs::fgetxattr(directory, name, &mut text[..]) {
            Ok(len) => str::from_utf8(text.get(..len)?).ok()?.trim_end_matches('\0').trim().parse().ok(),
            Err(Errno::NODATA) => Some(0),
            Err(_) => None,
        }
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
        assert!(begun.unwrap().is_empty());
    }

    #[test]
    fn only_a_count_that_grew_confirms_it() {
        let mount = tempfile::tempdir().unwrap();
        let path = mount.path().join("a");
        std::fs::create_dir(&path).unwrap();
        let count = |text: &str| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, COUNTS[0], text.as_bytes(), flags).unwrap();
        };
        let begin =
            || Confirmation::begin(Some(Killer::Oomd), Some(mount.path()), &[b"/b".to_vec(), b"/a".to_vec()]);
        let begun = begin();
        assert!(!begun.grew());
        count("1");
        assert!(begun.grew(), "the first that was counted");
        for (before, then, grew) in [("", "1", false), ("3", "3", false), ("3", "4", true), ("4", "x", false)]
        {
            count(before);
            let begun = begin();
            count(then);
            assert_eq!(begun.grew(), grew, "{before} {then}");
        }
        // The container's cgroup is removed before the group of signals is complete.
        count("4");
        let begun = begin();
        count("5");
        std::fs::remove_dir(&path).unwrap();
        assert!(begun.grew());
    }
}

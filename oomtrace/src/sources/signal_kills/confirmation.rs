//! What a killer itself says of its kills: systemd-oomd and oomd count them on the cgroup, as extended attributes of its directory.
//!
//! They confirm what unit and executable say, and prove nothing alone: who owns a cgroup may write them.

use std::{collections::VecDeque, fs::File, path::Path};

use rustix::io::Errno;

use crate::{
    cgroups::memory_files::directory,
    enrich::enricher::SignalledCgroup,
    event::{Absence, Killer, Reason, SignalKill},
    facts::CgroupId,
};

/// What they count: processes that were killed, and how often the killer acted.
const COUNTS: [&str; 2] = ["user.oomd_kill", "user.oomd_ooms"];

/// Cgroups whose counts are remembered.
const SEEN_MAX: usize = 256;

/// The counts that were seen last.
#[derive(Debug, Default)]
pub(super) struct Seen(VecDeque<(CgroupId, Count)>);

/// Each of [`COUNTS`]; `None` if it cannot be read.
type Count = [Option<u64>; 2];

/// The counts before the signal, of the target's cgroup and of those above it. `None` for other killers.
pub(super) struct Confirmation(Option<Vec<Counted>>);

/// A cgroup's directory, held open: it is soon removed.
struct Counted {
    cgroup: CgroupId,
    directory: File,
    before: Count,
}

impl Seen {
    /// Takes the counts from before the signal.
    ///
    /// When the signal's record is read, the killer has often counted it already. So the counts are those that were seen last. A
    /// cgroup that was seen when it was made had none. Only those of other cgroups are read now.
    pub(super) fn before(
        &self,
        killer: Option<Killer>,
        mount: Option<&Path>,
        cgroups: &[SignalledCgroup],
    ) -> Confirmation {
        if !matches!(killer, Some(Killer::SystemdOomd | Killer::Oomd)) {
            return Confirmation(None);
        }
        let count = |cgroup: &SignalledCgroup| {
            let directory = File::open(directory(mount?, &cgroup.path)).ok()?;
            let seen = self.0.iter().find(|(id, _)| *id == cgroup.id).map(|(_, count)| *count);
            let made = cgroup.seen_made.then_some([Some(0); 2]);
            let before = seen.or(made).unwrap_or_else(|| counts(&directory));
            Some(Counted { cgroup: cgroup.id, directory, before })
        };
        Confirmation(Some(cgroups.iter().filter_map(count).collect()))
    }

    /// Reads them again, and says in the event whether one grew.
    pub(super) fn compare(&mut self, Confirmation(counted): Confirmation, event: &mut SignalKill) {
        let Some(counted) = counted else { return };
        if self.grew(&counted) {
            event.killer_confirmed = Some(true);
        } else {
            event.missing.push(Absence::new("killer_confirmed", Reason::NotInCgroupFiles));
            event.missing.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        }
    }

    fn grew(&mut self, counted: &[Counted]) -> bool {
        let mut grew = false;
        for Counted { cgroup, directory, before } in counted {
            let now = counts(directory);
            grew |=
                now.iter().zip(before).any(|pair| matches!(pair, (Some(now), Some(before)) if now > before));
            self.0.retain(|(id, _)| id != cgroup);
            self.0.push_back((*cgroup, now));
        }
        self.0.drain(..self.0.len().saturating_sub(SEEN_MAX));
        grew
    }
}

/// 0 is what has not been counted yet; `None` what cannot be read.
fn counts(directory: &File) -> Count {
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

    const OOMD: Option<Killer> = Some(Killer::Oomd);

    fn cgroup(path: &[u8], seen_made: bool) -> SignalledCgroup {
        SignalledCgroup { id: CgroupId(7), path: path.into(), seen_made }
    }

    fn count(path: &Path, text: &str) {
        rustix::fs::setxattr(path, COUNTS[0], text.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    }

    #[test]
    fn only_the_killers_that_count_are_asked() {
        let seen = Seen::default();
        let paths = [cgroup(b"/a", true)];
        for killer in [None, Some(Killer::Earlyoom), Some(Killer::Other)] {
            assert!(seen.before(killer, Some(Path::new("/")), &paths).0.is_none(), "{killer:?}");
        }
        let begun = seen.before(Some(Killer::SystemdOomd), Some(Path::new("/nowhere")), &paths).0;
        assert!(begun.unwrap().is_empty());
    }

    #[test]
    fn only_a_count_that_grew_confirms_it() {
        let mount = tempfile::tempdir().unwrap();
        let path = mount.path().join("a");
        std::fs::create_dir(&path).unwrap();
        let cgroups = [cgroup(b"/b", false), cgroup(b"/a", false)];
        let begin = || Seen::default().before(OOMD, Some(mount.path()), &cgroups).0.unwrap();
        let grew = |begun: &[Counted]| Seen::default().grew(begun);
        let begun = begin();
        assert!(!grew(&begun));
        count(&path, "1");
        assert!(grew(&begun), "the first that was counted");
        for (before, then, grown) in
            [("", "1", false), ("3", "3", false), ("3", "4", true), ("4", "x", false)]
        {
            count(&path, before);
            let begun = begin();
            count(&path, then);
            assert_eq!(grew(&begun), grown, "{before} {then}");
        }
        // The container's cgroup is removed before the group of signals is complete.
        count(&path, "4");
        let begun = begin();
        count(&path, "5");
        std::fs::remove_dir(&path).unwrap();
        assert!(grew(&begun));
    }

    #[test]
    fn what_was_counted_before_the_record_is_read_confirms_it_where_the_count_before_is_known() {
        let mount = tempfile::tempdir().unwrap();
        let path = mount.path().join("a");
        std::fs::create_dir(&path).unwrap();
        count(&path, "2");
        let mut seen = Seen::default();
        let mut confirms = |seen_made| {
            let begun = seen.before(OOMD, Some(mount.path()), &[cgroup(b"/a", seen_made)]).0.unwrap();
            seen.grew(&begun)
        };
        assert!(!confirms(false), "nobody knows what it was before");
        assert!(!confirms(true), "it is what was seen last");
        count(&path, "3");
        assert!(confirms(false), "more than was seen last");
        let mut seen = Seen::default();
        let begun = seen.before(OOMD, Some(mount.path()), &[cgroup(b"/a", true)]).0.unwrap();
        assert!(seen.grew(&begun), "it was made without a count");
    }

    #[test]
    fn a_bounded_number_of_cgroups_is_remembered() {
        let mount = tempfile::tempdir().unwrap();
        std::fs::create_dir(mount.path().join("a")).unwrap();
        let mut seen = Seen::default();
        for id in 0..1000 {
            let made = SignalledCgroup { id: CgroupId(id), ..cgroup(b"/a", true) };
            let begun = seen.before(OOMD, Some(mount.path()), &[made]).0.unwrap();
            assert!(!seen.grew(&begun));
        }
        assert_eq!(seen.0.len(), SEEN_MAX);
        assert_eq!(seen.0.back().unwrap().0, CgroupId(999));
    }
}

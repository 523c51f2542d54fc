//! Whose a cgroup is, without an event of it.

use crate::{
    cgroups::tree::Seen,
    containers::owner::Identity,
    enrich::enricher::Enricher,
    event::{Absence, Cgroup, Reason, text_from_kernel},
    facts::CgroupId,
    host::clock,
};

impl Enricher {
    /// Whose it is now. Runtimes' files may be read for it, in the time of its owner.
    pub fn whose(&mut self, id: CgroupId) -> (Cgroup, Identity) {
        let Some(path) = self.knowledge.tree.path_of(id) else {
            let missing = vec![
                Absence::new("cgroup.path", Reason::CgroupPathUnknown),
                Absence::new("container", Reason::CgroupPathUnknown),
            ];
            let cgroup = Cgroup { path: None, id: Some(id.to_string()) };
            return (cgroup, Identity { missing, ..Identity::default() });
        };
        let seen = Seen { ids: &[id], path: &path, path_is_whole: true };
        let identity = self.knowledge.tree.identify(seen, clock::boot_time());
        (Cgroup { path: Some(text_from_kernel(&path)), id: Some(id.to_string()) }, identity)
    }
}

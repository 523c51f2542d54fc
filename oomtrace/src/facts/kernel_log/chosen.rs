//! The line about the chosen process. Its two paths and the comm are separated by commas and may contain
//! commas, so it is split only if there is a single way to do it.

use crate::{
    event::Constraint,
    facts::kernel_log::line::{OomDomain, Print, positions},
};

/// The victim that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// `None` if this version does not know it.
    pub constraint: Option<Constraint>,
    /// Process id: the leader's.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// The text between `mems_allowed=…` and `,pid=`: both paths and the comm, separated only by commas.
    pub(super) middle: Vec<u8>,
    /// How the line came to be what it is.
    pub(super) print: Print,
}

/// One way to split [`Chosen`]'s middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Whose limit fired.
    pub domain: OomDomain,
    /// The victim's cgroup.
    pub task_memcg: Vec<u8>,
    /// The victim's comm.
    pub task_comm: Vec<u8>,
}

impl Chosen {
    /// The paths and the comm, if there is a single way to split them.
    pub fn split(&self) -> Option<Split> {
        self.only(|_| true)
    }

    /// The paths and the comm, if the victim's cgroup is known from the kernel's own structures.
    ///
    /// `None` if the line does not fit that cgroup, or fits it in more than one way.
    pub fn split_with(&self, task_memcg: &[u8]) -> Option<Split> {
        self.only(|split| split.task_memcg == task_memcg)
    }

    /// The paths and the comm, if another line of the same report has the cgroup whose limit fired.
    pub fn split_with_domain(&self, oom_memcg: &[u8]) -> Option<Split> {
        self.only(|split| matches!(&split.domain, OomDomain::Memcg(path) if path == oom_memcg))
    }

    /// The only split that `accept`s.
    fn only(&self, accept: impl Fn(&Split) -> bool) -> Option<Split> {
        if self.print.maybe_cut {
            return None;
        }
        let mut fitting = self.splits().filter(accept);
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    /// Every possible split.
    fn splits(&self) -> impl Iterator<Item = Split> + '_ {
        const TASK: &[u8] = b",task=";
        const TASK_MEMCG: &[u8] = b",task_memcg=/";
        let middle = self.middle.as_slice();
        // The text after `,task=` is a comm, so this is near the end.
        let tail = middle.len().saturating_sub(TASK.len() + self.print.comm_bytes);
        positions(middle, TASK_MEMCG).flat_map(move |memcg| {
            let path = memcg + TASK_MEMCG.len() - 1;
            positions(middle.get(tail..).unwrap_or_default(), TASK).filter_map(move |at| {
                let task = tail + at;
                let task_memcg = middle.get(path..task)?;
                let task_comm = middle.get(task + TASK.len()..)?;
                if task_memcg.contains(&b'\n') {
                    return None;
                }
                let before = middle.get(..memcg)?;
                let domain = match before.strip_prefix(b",oom_memcg=") {
                    Some(path) if path.starts_with(b"/") && !path.contains(&b'\n') => {
                        OomDomain::Memcg(path.to_vec())
                    }
                    None if before == b",global_oom" => OomDomain::Global,
                    _ => return None,
                };
                Some(Split { domain, task_memcg: task_memcg.to_vec(), task_comm: task_comm.to_vec() })
            })
        })
    }
}

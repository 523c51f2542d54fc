//! The facts of a container that are kept, and their size: whoever makes a container chooses its name, image
//! and labels.

use std::collections::HashSet;
use std::sync::Arc;

use crate::containers::{Runtime, labels::LabelKeys, oci::RuntimeCgroup};

/// What a runtime says about a container. It is kept for every container of the host, so texts that many
/// containers have are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose container it is.
    pub runtime: Runtime,
    /// The name of the container.
    pub name: Option<Box<str>>,
    /// The image, as it was requested.
    pub image: Option<Arc<str>>,
    /// How often the runtime has restarted it.
    pub restart_count: Option<u32>,
    /// Labels that name the service, and labels that the operator asked for.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Its pod.
    pub pod: Option<Box<PodFacts>>,
    /// Whether the runtime says that its cgroup is at this path.
    pub runtime_cgroup: RuntimeCgroup,
    /// The facts come from the files of an unprivileged user.
    pub of_user: bool,
    /// What was not kept for lack of room.
    pub left_out: LeftOut,
}

/// Which facts of a container were not kept, because too much is kept already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// All facts are kept.
    Nothing,
    /// Its labels.
    Labels,
    /// Its labels and its image.
    LabelsAndImage,
}

/// What a CRI runtime says about a container's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// The namespace.
    pub namespace: Option<Arc<str>>,
    /// The pod.
    pub name: Option<Arc<str>>,
    /// The pod's uid.
    pub uid: Option<Arc<str>>,
    /// The container's name in the pod's spec. `None` for the sandbox.
    pub container: Option<Arc<str>>,
    /// How often the kubelet has restarted the container.
    pub restart_count: Option<u32>,
    /// This is the pod's sandbox, not one of its containers.
    pub sandbox: bool,
}

/// The overhead of one allocation.
const OVERHEAD_BYTES: usize = 16;
/// The overhead of a shared text, which also has two counts.
const SHARED_OVERHEAD_BYTES: usize = OVERHEAD_BYTES + 16;

impl Facts {
    /// Heap bytes of these facts. Shared texts are counted by [`Texts`]; the texts of a user are not shared.
    pub fn bytes(&self) -> usize {
        let text = |text: &Arc<str>| if self.of_user { text.len() + SHARED_OVERHEAD_BYTES } else { 0 };
        let labels = self.labels.iter().map(|(key, value)| text(key) + text(value)).sum::<usize>();
        size_of::<Self>()
            + OVERHEAD_BYTES
            + self.name.as_ref().map_or(0, |name| name.len() + OVERHEAD_BYTES)
            + self.image.as_ref().map_or(0, text)
            + labels
            + size_of_val(&*self.labels)
            + self.pod.as_ref().map_or(0, |_| size_of::<PodFacts>() + OVERHEAD_BYTES)
    }

    /// Drops facts until the rest fits, if `used` bytes of `max` are in use. Labels are kept only in the
    /// first half and images in the first three quarters, so that there is room for many names.
    pub fn within(mut self, used: usize, max: usize) -> Option<Self> {
        let fits = |facts: &Self, max: usize| used.saturating_add(facts.bytes()) <= max;
        if !self.labels.is_empty() && !fits(&self, max / 2) {
            self.labels = Box::default();
            self.left_out = self.left_out.max(LeftOut::Labels);
        }
        if self.image.is_some() && !fits(&self, max / 4 * 3) {
            self.image = None;
            self.left_out = LeftOut::LabelsAndImage;
        }
        fits(&self, max).then_some(self)
    }
}

/// Longer texts are left out, not cut: a cut text would be wrong.
const TEXT_MAX: usize = 1024;

/// `text`, if it is short enough to be kept.
pub fn kept(text: &str) -> Option<Box<str>> {
    (!text.is_empty() && text.len() <= TEXT_MAX).then(|| text.into())
}

/// Texts that containers share, and the keys of the labels that are kept.
#[derive(Debug, Default)]
pub struct Texts {
    known: HashSet<Arc<str>>,
    bytes: usize,
    /// The value of `bytes` when unused texts were last dropped.
    swept: usize,
    unshared: bool,
    labels: LabelKeys,
}

impl Texts {
    /// After this many bytes of new texts, unused ones are dropped.
    const SWEEP_AFTER: usize = 1 << 20;

    /// Texts that are not shared: they belong to a user, and each counts for that user.
    pub fn unshared() -> Self {
        Self { unshared: true, ..Self::default() }
    }

    /// Sets the keys of the labels that are kept.
    pub fn keeping(self, labels: LabelKeys) -> Self {
        Self { labels, ..self }
    }

    /// The keys of the labels that are kept.
    pub fn labels(&self) -> &LabelKeys {
        &self.labels
    }

    /// `text`, shared; `None` if it is too long.
    pub fn shared(&mut self, text: &str) -> Option<Arc<str>> {
        if text.len() > TEXT_MAX {
            return None;
        }
        if self.unshared {
            return Some(text.into());
        }
        if let Some(known) = self.known.get(text) {
            return Some(Arc::clone(known));
        }
        if self.bytes > self.swept + Self::SWEEP_AFTER {
            self.sweep();
        }
        let text: Arc<str> = text.into();
        self.bytes += Self::bytes_of(&text);
        self.known.insert(Arc::clone(&text));
        Some(text)
    }

    /// Heap bytes of the texts, including unused ones.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn sweep(&mut self) {
        self.known.retain(|text| Arc::strong_count(text) > 1);
        self.known.shrink_to_fit();
        self.bytes = self.known.iter().map(Self::bytes_of).sum();
        self.swept = self.bytes;
    }

    /// Includes its place in the set, which is half empty.
    fn bytes_of(text: &Arc<str>) -> usize {
        text.len() + SHARED_OVERHEAD_BYTES + 2 * size_of::<Arc<str>>()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn facts(texts: &mut Texts, of_user: bool) -> Facts {
        let label =
            |texts: &mut Texts| (texts.shared("key").unwrap(), texts.shared(&"v".repeat(1000)).unwrap());
        Facts {
            runtime: Runtime::Docker,
            name: kept("web"),
            image: texts.shared(&"i".repeat(500)),
            restart_count: None,
            labels: (0..8).map(|_| label(texts)).collect(),
            pod: None,
            runtime_cgroup: RuntimeCgroup::NotSaid,
            of_user,
            left_out: LeftOut::Nothing,
        }
    }

    #[test]
    fn labels_go_first_then_the_image_then_all() {
        let all = facts(&mut Texts::unshared(), true);
        let bytes = all.bytes();
        assert!(bytes > 8500, "{bytes}");
        let left =
            |used: usize| all.clone().within(used, 100_000).map(|facts| (facts.left_out, facts.bytes()));
        assert_eq!(left(50_000 - bytes), Some((LeftOut::Nothing, bytes)));
        let (left_out, bytes) = left(50_001 - bytes).unwrap();
        assert!(left_out == LeftOut::Labels && (500..1000).contains(&bytes), "{bytes}");
        assert_eq!(left(75_000 - bytes).unwrap().0, LeftOut::Labels);
        let (left_out, bytes) = left(75_001 - bytes).unwrap();
        assert!(left_out == LeftOut::LabelsAndImage && bytes < 300, "{bytes}");
        assert_eq!((left(100_000 - bytes).is_some(), left(100_001 - bytes)), (true, None));
    }

    #[test]
    fn shared_texts_count_once_and_go_when_nobody_has_them() {
        let mut texts = Texts::default();
        let held: Vec<_> = (0..100).map(|_| facts(&mut texts, false)).collect();
        assert!(texts.bytes() < 2000 && held.iter().all(|facts| facts.bytes() < 500));
        for number in 0..10_000 {
            texts.shared(&format!("{number:01000}"));
        }
        assert!(texts.bytes() < 3 << 20, "{}", texts.bytes());
        assert!(Arc::ptr_eq(&texts.shared("key").unwrap(), &held.first().unwrap().labels.first().unwrap().0));
    }
}

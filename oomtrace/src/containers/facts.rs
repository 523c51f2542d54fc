//! What is kept of a container, and how many bytes that is: whoever makes a container chooses its name, image and labels.

use std::collections::HashSet;
use std::sync::Arc;

use crate::containers::{Runtime, labels::LabelKeys, oci::RuntimeCgroup};

/// What a runtime says about one of its containers. Kept for every container of the host,
/// so texts that many of them have are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose container it is.
    pub runtime: Runtime,
    /// The runtime's name for it.
    pub name: Option<Box<str>>,
    /// The image, as it was asked for.
    pub image: Option<Arc<str>>,
    /// How often the runtime has restarted it.
    pub restart_count: Option<u32>,
    /// Labels that say which service it belongs to, and those that the operator asked for.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Its pod.
    pub pod: Option<Box<PodFacts>>,
    /// Where its runtime says that its cgroup is.
    pub runtime_cgroup: RuntimeCgroup,
    /// The files are those of an unprivileged user.
    pub of_user: bool,
    /// What there was no room to keep.
    pub left_out: LeftOut,
}

/// What of a container's facts is not kept, because too much is kept already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Everything is there.
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
    /// The container, in the pod's spec. `None` for the sandbox.
    pub container: Option<Arc<str>>,
    /// How often the kubelet has restarted it.
    pub restart_count: Option<u32>,
    /// It is the pod's sandbox, not one of its containers.
    pub sandbox: bool,
}

/// What an allocation takes besides its bytes.
const OVERHEAD_BYTES: usize = 16;
/// What a shared text takes besides its bytes: two counts too.
const SHARED_OVERHEAD_BYTES: usize = OVERHEAD_BYTES + 16;

impl Facts {
    /// Heap bytes of it. Texts that others share count with [`Texts`]; those of a user are nobody else's.
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

    /// The same with so much less that it fits where `used` bytes of `max` are in use: labels are kept in the first half,
    /// images in the first three quarters, so that there is room for many names.
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

/// Longest text that is kept; a longer one is absent rather than wrong.
const TEXT_MAX: usize = 1024;

/// `text`, unless it is longer than is kept.
pub fn kept(text: &str) -> Option<Box<str>> {
    (!text.is_empty() && text.len() <= TEXT_MAX).then(|| text.into())
}

/// Texts that are kept once, however many containers have them, and which labels are kept.
#[derive(Debug, Default)]
pub struct Texts {
    known: HashSet<Arc<str>>,
    bytes: usize,
    /// How many bytes there were when those that nobody uses were dropped last.
    swept: usize,
    unshared: bool,
    labels: LabelKeys,
}

impl Texts {
    /// Bytes of new texts after which those that are no longer used are dropped.
    const SWEEP_AFTER: usize = 1 << 20;

    /// Texts that nobody else has: a user's, so that each of them counts for that user.
    pub fn unshared() -> Self {
        Self { unshared: true, ..Self::default() }
    }

    /// Keeps the labels with these keys.
    pub fn keeping(self, labels: LabelKeys) -> Self {
        Self { labels, ..self }
    }

    /// The labels that are kept.
    pub fn labels(&self) -> &LabelKeys {
        &self.labels
    }

    /// `text`, shared; `None` if it is longer than is kept.
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

    /// Heap bytes of them, with those that are no longer used.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn sweep(&mut self) {
        self.known.retain(|text| Arc::strong_count(text) > 1);
        self.known.shrink_to_fit();
        self.bytes = self.known.iter().map(Self::bytes_of).sum();
        self.swept = self.bytes;
    }

    /// With its place in the set, which is half empty.
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

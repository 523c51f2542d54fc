//! Which labels of a container an event has: those that name its service, and those that the operator asked
//! for.

use std::sync::Arc;

use crate::containers::Texts;

/// The labels that Compose, Swarm, Nomad and ECS write. Those of Kubernetes are in `k8s`.
const OF_SERVICES: [&str; 18] = [
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.compose.container-number",
    "com.docker.stack.namespace",
    "com.docker.swarm.service.name",
    "com.docker.swarm.service.id",
    "com.docker.swarm.task.name",
    "com.docker.swarm.node.id",
    "com.hashicorp.nomad.namespace",
    "com.hashicorp.nomad.job_name",
    "com.hashicorp.nomad.task_group_name",
    "com.hashicorp.nomad.task_name",
    "com.hashicorp.nomad.alloc_id",
    "com.amazonaws.ecs.cluster",
    "com.amazonaws.ecs.task-definition-family",
    "com.amazonaws.ecs.task-definition-version",
    "com.amazonaws.ecs.task-arn",
    "com.amazonaws.ecs.container-name",
];

/// Keys of labels: those above, and the operator's own.
#[derive(Clone, Debug, Default)]
pub struct LabelKeys {
    own: Arc<[String]>,
}

impl LabelKeys {
    /// The most keys that the operator can give.
    const OWN_MAX: usize = 16;

    /// Adds the operator's `own` keys.
    ///
    /// # Errors
    /// If there are too many, or if one would be both an object and a text, because dots separate names.
    pub fn with(own: &[String]) -> Result<Self, String> {
        if own.len() > Self::OWN_MAX {
            return Err(format!("{} labels are given, at most {} are possible", own.len(), Self::OWN_MAX));
        }
        let keys = Self { own: own.into() };
        for key in own {
            let inner =
                |other: &str| other.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'));
            if let Some(other) = keys.all().find(|other| inner(other)) {
                return Err(format!(
                    "the label {key} cannot be used with {other}: many stores read dots as nested objects, and {key} would be \
                     a text and an object"
                ));
            }
        }
        Ok(keys)
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        OF_SERVICES.into_iter().chain(self.own.iter().map(String::as_str))
    }

    fn has(&self, key: &str) -> bool {
        self.all().any(|known| known == key)
    }
}

/// The most bytes of one container's labels, keys and values. A line has no room for more.
const KEPT_BYTES: usize = 4096;

/// The labels that an event has, sorted by key. A label that does not fit, alone or after the others, is left
/// out.
pub fn kept_labels<'a>(
    labels: impl Iterator<Item = (&'a String, &'a String)>,
    texts: &mut Texts,
) -> Box<[(Arc<str>, Arc<str>)]> {
    let mut wanted: Vec<_> = labels.filter(|(key, _)| texts.labels().has(key)).collect();
    wanted.sort_unstable();
    let mut room = KEPT_BYTES;
    let mut kept = Vec::with_capacity(wanted.len());
    for (key, value) in wanted {
        if let Some(rest) = room.checked_sub(key.len() + value.len())
            && let (Some(key), Some(value)) = (texts.shared(key), texts.shared(value))
        {
            room = rest;
            kept.push((key, value));
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(own: &[&str]) -> Result<LabelKeys, String> {
        LabelKeys::with(&own.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn no_key_is_a_text_and_an_object() {
        for clash in [&["app", "app.kubernetes.io/name"][..], &["a.b.c", "a.b"], &["com.docker.swarm.task"]] {
            assert!(with(clash).is_err(), "{clash:?}");
        }
        for fine in [&["app", "application.name"][..], &["a.b", "a.c"], &["team", "team"], &[]] {
            assert!(with(fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn there_are_not_too_many() {
        let keys: Vec<String> = (0..17).map(|n| format!("key{n}")).collect();
        assert!(LabelKeys::with(&keys).is_err_and(|why| why.contains("17")));
        assert!(LabelKeys::with(keys.get(..16).unwrap_or_default()).is_ok());
    }

    #[test]
    fn one_container_has_no_more_than_a_line_holds() {
        let keys: Vec<String> = (0..8).map(|n| format!("key{n}")).collect();
        let mut texts = Texts::default().keeping(LabelKeys::with(&keys).unwrap_or_default());
        let long = [
            "x".repeat(1025),
            "y".repeat(1000),
            "z".repeat(1000),
            "y".repeat(1000),
            "z".repeat(1000),
            "w".repeat(100),
            "v".into(),
        ];
        let kept = kept_labels(keys.iter().zip(&long), &mut texts);
        let kept: Vec<&str> = kept.iter().map(|(key, _)| &**key).collect();
        assert_eq!(kept, ["key1", "key2", "key3", "key4", "key6"]);
    }

    #[test]
    fn the_operators_and_the_services_are_kept() {
        let keys = with(&["team"]).unwrap_or_default();
        let mut texts = Texts::default().keeping(keys);
        let labels = [
            ("team", "a"),
            ("secret", "b"),
            ("com.hashicorp.nomad.job_name", "c"),
            ("com.amazonaws.ecs.cluster", "d"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let kept = kept_labels(labels.iter().map(|(key, value)| (key, value)), &mut texts);
        let values: Vec<&str> = kept.iter().map(|(_, value)| &**value).collect();
        assert_eq!(values, ["d", "c", "a"]);
    }
}

//! Which limits are near now.

use std::collections::BTreeMap;

use crate::{
    event::{Event, LimitNear},
    outputs::metrics::{
        page::{self, label_value},
        workloads::label_of,
    },
};

/// The most at once.
const MOST: usize = 256;

/// Limits that are near: labels by the id of the cgroup.
#[derive(Debug, Default)]
pub(super) struct NearLimits(BTreeMap<String, String>);

impl NearLimits {
    /// Sees a line.
    pub(super) fn saw(&mut self, line: &Event) {
        match line {
            Event::LimitNear(near) => {
                let Some(id) = near.cgroup.id.clone() else { return };
                if self.0.len() < MOST || self.0.contains_key(&id) {
                    self.0.insert(id, labels(near));
                }
            }
            Event::LimitFar(far) => {
                if let Some(id) = &far.cgroup.id {
                    self.0.remove(id);
                }
            }
            _ => {}
        }
    }

    /// Writes a series for each. Two containers can have the same labels: one of them counts.
    pub(super) fn write(&self, out: &mut String) {
        let mut series: Vec<&String> = self.0.values().collect();
        series.sort_unstable();
        series.dedup();
        let series = series.into_iter().map(|labels| (labels.clone(), 1));
        let help = "Memory limits that come near, by workload: see limit_near in the events.";
        page::gauge(out, "oomtrace_container_limit_near", help, series);
    }
}

fn labels(near: &LimitNear) -> String {
    let container = near.container.as_ref();
    let user = container.and_then(|container| container.runtime.user);
    let k8s = near.k8s.as_ref();
    let name = match (k8s.and_then(|k8s| k8s.container.as_ref()), container) {
        (Some(container), _) => label_of(None, &container.name),
        (None, Some(container)) => label_of(user, container.name.as_ref().unwrap_or(&container.id)),
        (None, None) => near.cgroup.path.clone().unwrap_or_default(),
    };
    let unit = near.systemd.as_ref().map(|systemd| label_of(systemd.user, &systemd.unit));
    let namespace = k8s.and_then(|k8s| k8s.namespace.as_ref()).map(|namespace| namespace.name.clone());
    let pod = k8s.and_then(|k8s| k8s.pod.name.clone());
    let runtime = container.map(|container| container.runtime.name.clone());
    let mut labels = String::new();
    let values = [
        ("runtime", runtime),
        ("namespace", namespace),
        ("pod", pod),
        ("container", Some(name)),
        ("unit", unit),
    ];
    for (label, value) in values.iter().filter_map(|(label, value)| Some((label, value.as_ref()?))) {
        labels.push(if labels.is_empty() { '{' } else { ',' });
        labels.push_str(label);
        labels.push_str("=\"");
        label_value(value, &mut labels);
        labels.push('"');
    }
    labels.push('}');
    labels
}

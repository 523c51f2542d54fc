//! What to look at next: only what follows from facts on the card.

use super::search::Found;
use crate::{
    event::{Event, Finding, FindingId, Incident, OomKill, Part, Scope, Shape},
    outputs::encode::text::{Size, history::Span, plain},
};

/// A line for each.
pub(super) fn steps(found: &Found, incident: Option<&Incident>) -> Vec<String> {
    let mut steps = Vec::new();
    if let Some(incident) = incident {
        steps.extend(incident.findings.iter().find_map(|finding| heap_and_limit(finding, incident)));
        steps.extend(by_shape(incident, &found.kill));
        steps.extend(incident.findings.iter().filter_map(|finding| by_finding(finding, incident)));
    }
    if found.kill.oom.scope == Some(Scope::Host) {
        let told = found.related.iter().any(|event| matches!(event, Event::HostMemory(_)));
        steps.push(match told {
            true => {
                "the host itself was full: the largest users under `host memory`, and their limits".into()
            }
            false => "the host itself was full: who used its memory".into(),
        });
    }
    let told = |incident: &Incident| {
        incident.findings.iter().any(|finding| finding.id == FindingId::ChildKilledContainerLives)
    };
    if is_child(&found.kill) && !incident.is_some_and(told) {
        steps.push("whether the container still does its work: its first process was not killed".into());
    }
    for event in &found.related {
        match event {
            Event::Verdict(verdict) if verdict.missed == Some(true) => {
                steps.push("alerts that ask the runtime: its own state does not show this kill".into());
            }
            Event::Stuck(_) => {
                steps.push("what the threads under `stuck` wait for: until they end, nothing restarts".into())
            }
            _ => {}
        }
    }
    steps
}

/// Whether the container may go on without the victim.
pub(super) fn is_child(kill: &OomKill) -> bool {
    kill.container.is_some() && kill.victim.namespace_pid.is_some_and(|pid| pid > 1)
}

fn by_shape(incident: &Incident, kill: &OomKill) -> Option<String> {
    let before = incident.before.as_ref()?;
    let hidden = before.unreclaimable.as_ref().and_then(|other| other.shape);
    let comm = incident.victim.comm.as_deref().or(kill.victim.comm.as_deref()).map_or("it".into(), plain);
    let text = match (before.shape?, hidden) {
        (Shape::Growth, _) | (_, Some(Shape::Growth)) => format!(
            "what grows in {comm}: compare two heap profiles, taken some time apart. Of a growth that lasts, oomtrace prints a `limit_near` line before the kill: that is the time for one"
        ),
        (Shape::Burst, _) => {
            let last =
                before.last.map(|last| format!(" in the last {}", Span(last.age_ns))).unwrap_or_default();
            format!(
                "what {comm} was asked to do{last}: one request or job can take that much. No warning comes before a burst"
            )
        }
        (Shape::Steps, _) => format!("what {comm} did at the time of each step of the curve"),
        (Shape::AtLimit, _)
            if incident.findings.iter().any(|finding| finding.id == FindingId::AnonFillsLimit) =>
        {
            format!(
                "what {comm} keeps: at its limit nearly all was its own memory, and little could be reclaimed"
            )
        }
        (Shape::AtLimit, _) => {
            "whether it needs more than its limit: it lived at its limit before the kill".into()
        }
        (Shape::Short, _) => format!(
            "how much {comm} takes to start: it had just begun, so the limit may be too small for that"
        ),
        (Shape::Irregular, _) => "the load at the same times: the curve has no clear shape".into(),
    };
    Some(text)
}

/// The heap that the command line allows, and the limit.
fn heap_and_limit(finding: &Finding, incident: &Incident) -> Option<String> {
    if finding.id != FindingId::HeapFlagOverLimit {
        return None;
    }
    let limit = Size(incident.cgroup.as_ref()?.limit_bytes?);
    Some(match finding.bytes {
        Some(heap) => format!(
            "the option of the heap: set it well below the limit of {limit}, or the limit well above {}",
            Size(heap)
        ),
        None => format!("the option of the heap: set it lower, or the limit of {limit} higher"),
    })
}

fn by_finding(finding: &Finding, incident: &Incident) -> Option<String> {
    let text = match finding.id {
        FindingId::ShmemLarge => {
            "files in /dev/shm, in tmpfs mounts and in emptyDir volumes with medium Memory"
        }
        FindingId::KernelLarge => match finding.part {
            Some(Part::KernelStack) => "how many threads it starts",
            Some(Part::Pagetables) => "how many processes map the same large memory",
            Some(Part::SlabReclaimable | Part::SlabUnreclaimable) => {
                "how many files and directories it opens or makes"
            }
            Some(Part::Sock) => "its connections, and data that nobody reads from them",
            Some(Part::Percpu) => "what it makes for each processor: cgroups, eBPF maps, network devices",
            None => "what the kernel holds for it: threads, sockets, open files",
        },
        FindingId::LimitAboveVictim => {
            let path = incident.cgroup.as_ref().and_then(|cgroup| cgroup.cgroup.path.as_deref())?;
            return Some(format!("what else is under the limit of {}", plain(path)));
        }
        FindingId::Bystander | FindingId::ProtectedLargest => {
            "the largest process under `who`: the killer did not choose it, but it has the memory"
        }
        FindingId::ChildKilledContainerLives => {
            "whether the container still works without this process: its runtime restarts nothing"
        }
        FindingId::MemoryStays => "what still holds memory: tmpfs, or processes that live on",
        FindingId::CachePresent => "why page cache could not be reclaimed: it may be mapped or locked",
        FindingId::HostNotFull => {
            "whether memory is in small pieces, or one zone or node is full: /proc/buddyinfo"
        }
        FindingId::AnonFillsLimit | FindingId::NoSwap | FindingId::HeapFlagOverLimit => return None,
    };
    Some(text.into())
}

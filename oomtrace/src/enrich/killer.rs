//! What kind of program sent a signal, by its unit and its executable. Never by its name: a process calls itself what it likes.
//!
//! A process in a container is never one of the host's programs, whatever it runs; nor is one of an unprivileged user's, but for
//! that user's own runtimes and service manager. Pure.

use crate::event::{Container, Killer, Systemd};

/// Where a process is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Party<'a> {
    /// Its container.
    pub container: Option<&'a Container>,
    /// Its unit.
    pub unit: Option<&'a Systemd>,
    /// Its cgroup; `None` if that is not known: then nor is its container.
    pub cgroup: Option<&'a str>,
}

/// What is known of a sender.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'a> {
    /// Where it is.
    pub party: Party<'a>,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its process id in its own pid namespace.
    pub namespace_pid: Option<u32>,
    /// Its user.
    pub uid: Option<u32>,
    /// The file that it runs: its path, or its name alone.
    pub executable: Option<&'a [u8]>,
}

/// Programs that end containers, by the names of their files.
const RUNTIMES: [&str; 23] = [
    "runc",
    "crun",
    "youki",
    "runsc",
    "kata-runtime",
    "docker-runc",
    "dockerd",
    "docker-containerd",
    "docker-init",
    "containerd",
    "containerd-shim",
    "containerd-shim-runc-v1",
    "containerd-shim-runc-v2",
    "containerd-shim-kata-v2",
    "containerd-shim-runsc-v1",
    "nerdctl",
    "ctr",
    "crio",
    "conmon",
    "conmonrs",
    "podman",
    "lxc-start",
    "lxc-stop",
];

/// Whether the sender is in the target's container, or in its unit where it is in none; `None` if that is not known, or if the
/// target has neither and the sender is in another cgroup.
pub fn is_inside(target: &Party<'_>, sender: &Party<'_>) -> Option<bool> {
    let here = sender.cgroup?;
    if target.cgroup == Some(here) {
        return Some(true);
    }
    target.cgroup?;
    match (target.container, sender.container) {
        (Some(target), Some(sender)) => Some(target.id == sender.id && target.runtime == sender.runtime),
        (Some(_), None) => Some(false),
        (None, Some(_)) if target.unit.is_some() => Some(false),
        (None, _) => target.unit.map(|unit| sender.unit == Some(unit)),
    }
}

/// What kind of program the sender is; `None` if too little is known of it. `user`: whose runtime the target's container is of,
/// where that is an unprivileged user.
pub fn killer(sender: &Sender<'_>, inside: Option<bool>, user: Option<u32>) -> Option<Killer> {
    if inside == Some(true) {
        return Some(Killer::Inside);
    }
    sender.party.cgroup?;
    // Also in a container that nobody knows as one.
    let own_namespace = sender.namespace_pid.is_some_and(|pid| sender.pid != Some(pid));
    if sender.party.container.is_some() || own_namespace {
        return Some(Killer::Other);
    }
    let name = file_name(sender.executable?);
    let own_unit = sender.party.unit.filter(|unit| unit.user.is_none()).map(|unit| unit.unit.as_str());
    let killer = match (own_unit, name) {
        (Some("systemd-oomd.service"), "systemd-oomd") => Killer::SystemdOomd,
        (Some("oomd.service"), "oomd" | "oomd_bin") => Killer::Oomd,
        (Some("earlyoom.service"), "earlyoom") => Killer::Earlyoom,
        // It is a script.
        (Some("nohang.service" | "nohang-desktop.service"), name) if name.starts_with("python3") => {
            Killer::Nohang
        }
        (_, "systemd") if is_manager(sender) => Killer::Systemd,
        (_, "kubelet") if sender.uid == Some(0) => Killer::Kubelet,
        (_, name) if RUNTIMES.contains(&name) || name.starts_with("memfd:runc_cloned:") => {
            let may = sender.uid.is_some_and(|uid| uid == 0 || Some(uid) == user);
            if may { Killer::Runtime } else { Killer::Other }
        }
        _ => Killer::Other,
    };
    Some(killer)
}

/// The host's service manager, or a user's.
fn is_manager(sender: &Sender<'_>) -> bool {
    sender.pid == Some(1) || sender.party.unit.is_some_and(|unit| unit.unit == "init.scope")
}

/// The last name of a path, without what the kernel says of a file that is gone.
fn file_name(path: &[u8]) -> &str {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    // That of a file in memory has slashes in it.
    let name = match path.strip_prefix(b"/").filter(|rest| rest.starts_with(b"memfd:")) {
        Some(name) => name,
        None if path.starts_with(b"memfd:") => path,
        None => path.rsplit(|byte| *byte == b'/').next().unwrap_or(path),
    };
    str::from_utf8(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RuntimeName;

    fn unit(name: &str, user: Option<u32>) -> Systemd {
        Systemd { unit: name.into(), user }
    }

    fn container(id: &str) -> Container {
        let runtime = RuntimeName { name: "docker".into(), user: None };
        Container { id: id.into(), runtime, ..Container::default() }
    }

    fn by(executable: &str, of: Option<&Systemd>, within: Option<&Container>) -> Option<Killer> {
        let party = Party { container: within, unit: of, cgroup: Some("/x") };
        let executable = Some(executable.as_bytes());
        let (pid, namespace_pid) = (Some(700), Some(700));
        killer(&Sender { party, pid, namespace_pid, uid: Some(0), executable }, Some(false), None)
    }

    #[test]
    fn a_killer_is_known_by_its_unit_and_its_executable_together() {
        let of = |name: &str| unit(name, None);
        for (executable, name, expected) in [
            ("/usr/bin/earlyoom", "earlyoom.service", Killer::Earlyoom),
            ("earlyoom", "earlyoom.service", Killer::Earlyoom),
            ("/usr/lib/systemd/systemd-oomd", "systemd-oomd.service", Killer::SystemdOomd),
            ("/usr/bin/oomd", "oomd.service", Killer::Oomd),
            ("/usr/bin/python3.11", "nohang-desktop.service", Killer::Nohang),
            ("/usr/bin/python3.11", "other.service", Killer::Other),
            ("/usr/bin/earlyoom", "ssh.service", Killer::Other),
            ("/usr/bin/bash", "earlyoom.service", Killer::Other),
            ("/usr/bin/runc", "containerd.service", Killer::Runtime),
            ("/usr/bin/runc (deleted)", "containerd.service", Killer::Runtime),
            ("/memfd:runc_cloned:/proc/self/exe (deleted)", "containerd.service", Killer::Runtime),
            ("/usr/bin/kubelet", "kubelet.service", Killer::Kubelet),
            ("/usr/lib/systemd/systemd", "init.scope", Killer::Systemd),
            ("/usr/lib/systemd/systemd", "shop.service", Killer::Other),
        ] {
            assert_eq!(by(executable, Some(&of(name)), None), Some(expected), "{executable} of {name}");
        }
    }

    #[test]
    fn who_is_in_a_container_or_a_users_unit_is_not_the_hosts() {
        let within = container("a");
        let own = unit("earlyoom.service", None);
        let hers = unit("earlyoom.service", Some(1000));
        assert_eq!(by("/usr/bin/earlyoom", Some(&own), Some(&within)), Some(Killer::Other));
        assert_eq!(by("/usr/bin/earlyoom", Some(&hers), None), Some(Killer::Other));
        assert_eq!(by("/usr/bin/runc", None, Some(&within)), Some(Killer::Other));
        // In a pid namespace of its own, and in no container that is known.
        let party = Party { unit: Some(&own), cgroup: Some("/x"), ..Party::default() };
        let ids = (Some(700), Some(12), Some(0));
        for executable in [&b"/usr/bin/earlyoom"[..], b"/usr/bin/runc", b"/usr/bin/kubelet"] {
            let (pid, namespace_pid, uid) = ids;
            let sender = Sender { party, pid, namespace_pid, uid, executable: Some(executable) };
            assert_eq!(killer(&sender, Some(false), None), Some(Killer::Other));
        }
    }

    #[test]
    fn a_users_runtime_ends_that_users_containers_alone() {
        let party = Party { cgroup: Some("/x"), ..Party::default() };
        let executable = Some(&b"/usr/bin/conmon"[..]);
        let sender = Sender { party, pid: Some(7), namespace_pid: Some(7), uid: Some(1000), executable };
        assert_eq!(killer(&sender, Some(false), Some(1000)), Some(Killer::Runtime));
        assert_eq!(killer(&sender, Some(false), Some(1001)), Some(Killer::Other));
        assert_eq!(killer(&sender, Some(false), None), Some(Killer::Other));
    }

    #[test]
    fn of_an_unknown_sender_nothing_is_said() {
        let sender = Sender { executable: Some(b"/usr/bin/runc"), uid: Some(0), ..Sender::default() };
        assert_eq!(killer(&sender, None, None), None, "its cgroup may be a container's");
        let party = Party { cgroup: Some("/x"), ..Party::default() };
        assert_eq!(killer(&Sender { party, ..Sender::default() }, None, None), None);
        assert_eq!(killer(&sender, Some(true), None), Some(Killer::Inside));
    }

    #[test]
    fn inside_is_the_same_container_or_the_same_unit() {
        let (one, other) = (container("a"), container("b"));
        let (shop, ssh) = (unit("shop.service", None), unit("ssh.service", None));
        let of = |container, unit, cgroup| Party { container, unit, cgroup: Some(cgroup) };
        let host = unit("containerd.service", None);
        for (target, sender, expected) in [
            (of(Some(&one), None, "/a"), of(Some(&one), None, "/a/x"), Some(true)),
            (of(Some(&one), None, "/a"), of(Some(&other), None, "/b"), Some(false)),
            (of(Some(&one), None, "/a"), of(None, Some(&host), "/c"), Some(false)),
            (of(None, Some(&shop), "/s"), of(None, Some(&shop), "/s/x"), Some(true)),
            (of(None, Some(&shop), "/s"), of(None, Some(&ssh), "/t"), Some(false)),
            (of(None, Some(&shop), "/s"), of(None, None, "/"), Some(false)),
            (of(None, Some(&shop), "/s"), of(Some(&one), None, "/a"), Some(false)),
            (of(None, None, "/p"), of(None, None, "/p"), Some(true)),
            (of(None, None, "/p"), of(None, None, "/q"), None),
        ] {
            assert_eq!(is_inside(&target, &sender), expected, "{target:?} {sender:?}");
        }
        assert_eq!(is_inside(&of(Some(&one), None, "/a"), &Party::default()), None);
    }
}

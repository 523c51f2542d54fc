//! What the names in a cgroup's path claim by their shape. No file is read here, and a claim is not yet a
//! fact: whoever makes a cgroup chooses its name. [`super::owner`] decides which claim holds.

use std::borrow::Cow;

use crate::{
    containers::{Runtime, unit::unescape},
    event::Qos,
};

/// The longest id that containerd allows, in bytes.
const FREE_ID_MAX: usize = 76;
/// The longest accepted name of an LXC container or a machine, in bytes.
const NAME_MAX: usize = 255;

/// What a cgroup is, by its name and the names above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// `docker-ID.scope`, or `ID` in `docker`.
    Docker(&'a str),
    /// `cri-containerd-ID.scope`.
    CriContainerd(&'a str),
    /// `ID` in a pod's cgroup, of containerd, or of Docker through cri-dockerd.
    PodMember(&'a str),
    /// `nerdctl-ID.scope`.
    Nerdctl(&'a str),
    /// `crio-ID.scope` or, by the cgroupfs driver, `crio-ID`.
    CriO(&'a str),
    /// `libpod-ID.scope`, or by the cgroupfs driver `libpod-ID`; `libpod-payload-ID` within a unit.
    Podman(&'a str),
    /// `lxc.payload.NAME`, `lxc.payload/NAME` or `lxc/NAME` at the top.
    Lxc(&'a str),
    /// `machine-NAME.scope` with `payload` below, or `systemd-nspawn@NAME.service`. The name is unescaped.
    Nspawn(Cow<'a, str>),
    /// Perhaps a container: only a runtime's own files can confirm it. `namespace` is the name of the parent
    /// cgroup if that is at the top (`ctr`: `/NAMESPACE/ID`).
    Perhaps {
        /// containerd's namespace.
        namespace: Option<&'a str>,
        /// The id.
        id: &'a str,
    },
}

impl Shape<'_> {
    /// The container's id.
    pub fn id(&self) -> &str {
        match self {
            Shape::Docker(id)
            | Shape::CriContainerd(id)
            | Shape::PodMember(id)
            | Shape::Nerdctl(id)
            | Shape::CriO(id)
            | Shape::Podman(id)
            | Shape::Lxc(id)
            | Shape::Perhaps { id, .. } => id,
            Shape::Nspawn(name) => name,
        }
    }

    /// The runtime of such containers. For `Perhaps` it is the most likely one.
    pub fn runtime(&self) -> Runtime {
        match self {
            Shape::Docker(_) => Runtime::Docker,
            Shape::CriO(_) => Runtime::CriO,
            Shape::Podman(_) => Runtime::Podman,
            Shape::Lxc(_) => Runtime::Lxc,
            Shape::Nspawn(_) => Runtime::Nspawn,
            Shape::CriContainerd(_) | Shape::PodMember(_) | Shape::Nerdctl(_) | Shape::Perhaps { .. } => {
                Runtime::Containerd
            }
        }
    }

    /// Only the name of the cgroup is known: this runtime has no files.
    pub fn is_by_path(&self) -> bool {
        matches!(self, Shape::Lxc(_) | Shape::Nspawn(_))
    }

    /// The shape alone shows which runtime's container this is.
    pub fn is_plain(&self) -> bool {
        !matches!(self, Shape::Perhaps { .. })
    }
}

/// An id in the form that Docker, the CRI runtimes and Podman use.
pub fn is_hex_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// An id or a namespace that containerd allows. Never `.`, `..` or anything with a `/`.
pub fn is_free_id(name: &str) -> bool {
    name.len() <= FREE_ID_MAX
        && name
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The shape of the cgroup `name`. `above` are the names of its ancestors, the topmost first; `below` is the
/// name of the next cgroup below, if there is one.
pub fn shape<'a>(above: &[&'a [u8]], name: &'a [u8], below: Option<&[u8]>) -> Option<Shape<'a>> {
    let name = std::str::from_utf8(name).ok()?;
    let parent = above.last().and_then(|parent| std::str::from_utf8(parent).ok());
    if let Some(scope) = name.strip_suffix(".scope") {
        return scoped(scope, below);
    }
    if let Some(machine) = name.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service"))
    {
        return machine_name(machine).map(Shape::Nspawn);
    }
    for (prefix, shape) in [
        ("libpod-payload-", Shape::Podman as fn(&'a str) -> Shape<'a>),
        ("libpod-", Shape::Podman),
        ("crio-", Shape::CriO),
    ] {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_hex_id(id)) {
            return Some(shape(id));
        }
    }
    if is_hex_id(name) {
        if pod_uid(above).is_some() {
            return Some(Shape::PodMember(name));
        }
        if parent == Some("docker") {
            return Some(Shape::Docker(name));
        }
    }
    match (above.len(), parent) {
        (0, _) => lxc_name(name.strip_prefix("lxc.payload.")?),
        (1, Some("lxc" | "lxc.payload")) => lxc_name(name),
        // Any name below a name at the top: what is `/NAME/ID` too must stand above this.
        (1, Some(parent)) if is_free_id(parent) && is_free_id(name) && !looks_like_unit(name) => {
            Some(Shape::Perhaps { namespace: Some(parent), id: name })
        }
        _ if is_hex_id(name) => Some(Shape::Perhaps { namespace: None, id: name }),
        _ => None,
    }
}

fn scoped<'a>(scope: &'a str, below: Option<&[u8]>) -> Option<Shape<'a>> {
    for (prefix, shape) in [
        ("docker-", Shape::Docker as fn(&'a str) -> Shape<'a>),
        ("cri-containerd-", Shape::CriContainerd),
        ("nerdctl-", Shape::Nerdctl),
        ("crio-", Shape::CriO),
        ("libpod-", Shape::Podman),
    ] {
        if let Some(id) = scope.strip_prefix(prefix).filter(|id| is_hex_id(id)) {
            return Some(shape(id));
        }
    }
    // libvirt's machines have scopes of the same name. Only nspawn has a `payload` below.
    let machine = scope.strip_prefix("machine-").filter(|_| below == Some(b"payload"))?;
    machine_name(machine).map(Shape::Nspawn)
}

fn lxc_name(name: &str) -> Option<Shape<'_>> {
    (!name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control))
        .then_some(Shape::Lxc(name))
}

fn machine_name(escaped: &str) -> Option<Cow<'_, str>> {
    unescape(escaped)
        .filter(|name| !name.is_empty() && !name.contains('/') && !name.chars().any(char::is_control))
}

fn looks_like_unit(name: &str) -> bool {
    [".service", ".scope", ".slice", ".mount", ".socket", ".swap"].iter().any(|kind| name.ends_with(kind))
}

/// The pod's uid, if the last of `names` is a pod's cgroup: `…kubepods/[QOS/]podUID`, or
/// `…kubepods[-QOS]-podUID.slice` with `_` instead of `-` in the uid.
pub fn pod_uid(names: &[&[u8]]) -> Option<String> {
    pod(names).map(|(uid, _)| uid)
}

/// As [`pod_uid`], with the pod's class of quality of service: a guaranteed pod is in no cgroup of a class.
pub fn pod(names: &[&[u8]]) -> Option<(String, Qos)> {
    let mut rest = names.iter().rev().map(|name| std::str::from_utf8(name).ok());
    let name = rest.next()??;
    let (uid, qos) = if let Some(slice) = name.strip_suffix(".slice") {
        let (above, uid) = slice.rsplit_once("-pod")?;
        let of_class = |class| above.strip_suffix(class);
        let (above, qos) = match (of_class("-burstable"), of_class("-besteffort")) {
            (Some(above), _) => (above, Qos::Burstable),
            (_, Some(above)) => (above, Qos::Besteffort),
            _ => (above, Qos::Guaranteed),
        };
        (above == "kubepods" || above.ends_with("-kubepods")).then(|| (uid.replace('_', "-"), qos))?
    } else {
        let uid = name.strip_prefix("pod")?;
        let (parent, qos) = match rest.next()?? {
            "burstable" => (rest.next()??, Qos::Burstable),
            "besteffort" => (rest.next()??, Qos::Besteffort),
            parent => (parent, Qos::Guaranteed),
        };
        (parent == "kubepods").then(|| (uid.to_owned(), qos))?
    };
    // A uid, or for a static pod the hash of its file.
    let dashes = uid.bytes().filter(|b| *b == b'-').count();
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    (hex == 32 && (dashes == 0 || dashes == 4) && hex + dashes == uid.len()).then_some((uid, qos))
}

/// The user of the cgroup `user.slice/user-UID.slice` at the top.
pub fn user_of(names: &[&[u8]]) -> Option<u32> {
    let (top, user) = (names.first()?, names.get(1)?);
    let uid = std::str::from_utf8(user).ok()?.strip_prefix("user-")?.strip_suffix(".slice")?;
    (*top == b"user.slice" && uid.bytes().all(|b| b.is_ascii_digit())).then(|| uid.parse().ok())?
}

/// Whether everything below the cgroup `name` belongs to one owner. `above` are the names of its ancestors.
/// An owner is a user's slice, a service, a scope or a container: its processes can make any number of
/// cgroups there, with any name.
pub fn is_owners(above: &[&[u8]], name: &[u8]) -> bool {
    let is_unit = name.ends_with(b".service") || name.ends_with(b".scope");
    let is_users =
        || above.len() == 1 && user_of(&[above.first().copied().unwrap_or_default(), name]).is_some();
    is_unit || is_users() || shape(above, name, None).is_some_and(|shape| shape.is_plain())
}

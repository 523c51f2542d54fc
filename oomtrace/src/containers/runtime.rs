//! Which container runtimes there are.

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd: `ctr`, nerdctl, Kubernetes.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// LXC, Incus.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
}

impl Runtime {
    /// All of them. The metrics have a series for each.
    pub const ALL: [Self; 6] =
        [Self::Docker, Self::Containerd, Self::CriO, Self::Podman, Self::Lxc, Self::Nspawn];

    /// The name in `container.runtime.name`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
        }
    }

    /// The runtime with this name, if it has files.
    pub fn with_files(name: &str) -> Option<Self> {
        let has_files = |runtime: &Self| match runtime {
            Self::Docker | Self::Containerd | Self::CriO | Self::Podman => true,
            Self::Lxc | Self::Nspawn => false,
        };
        Self::ALL.into_iter().filter(has_files).find(|runtime| runtime.name() == name)
    }
}

//! Why a command failed: a message, a hint for the operator, and an exit code.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind},
    path::Path,
};

use rustix::io::Errno;

use crate::{
    cgroups::hierarchy::HierarchyError,
    host::root::Root,
    kernel::{KernelError, privilege},
    outputs::transport::SinkError,
    sources::probe::{PinError, ProbeError},
};

/// Exit codes; those of sysexits.h where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something failed while running.
    RunTime = 1,
    /// The command line is wrong, which shows only when its words are compared with the files that are there.
    Usage = 2,
    /// `EX_DATAERR`: a part of the input was not understood.
    Data = 65,
    /// `EX_UNAVAILABLE`: this kernel cannot be traced.
    Unsupported = 69,
    /// `EX_NOPERM`: a privilege is missing.
    Privilege = 77,
}

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// From `error` and its causes.
    pub fn new(code: Code, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            next = cause.source();
        }
        Self { code, message, hint: None }
    }

    /// From a message.
    pub fn message(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The message and the hint on one line.
    pub fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }

    /// Sets another exit code.
    pub fn with(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// Adds a hint for the operator.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oomtrace: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The hint for an error about a used-up resource.
fn exhausted(kind: ErrorKind, os: Option<i32>) -> Option<&'static str> {
    match os.map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => Some("allow more open files: ulimit -n 256 is plenty"),
        _ if kind == ErrorKind::OutOfMemory => {
            Some("allow more memory (ulimit -v; the memory limit of its cgroup), or a smaller --ring-size")
        }
        _ => None,
    }
}

/// The error of the system at the end of a chain of causes.
fn system_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let failure = Self::new(Code::Unsupported, &error);
        let hint = system_error(&error).and_then(|error| exhausted(error.kind(), error.raw_os_error()));
        if let Some(hint) = hint {
            return failure.with(Code::RunTime).hint(hint);
        }
        match error {
            KernelError::NoBtf(source) if source.kind() == ErrorKind::PermissionDenied => {
                failure.with(Code::Privilege).hint("run it as root")
            }
            KernelError::NoBtf(source)
                if source.kind() == ErrorKind::NotFound && !Path::new("/sys/kernel").exists() =>
            {
                failure.hint("mount the kernel's own files: mount -t sysfs sysfs /sys")
            }
            KernelError::NoBtf(_) => failure.hint(
                "a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed (any distribution's since 2021)",
            ),
            KernelError::Btf(_) | KernelError::Layout(_) => failure
                .hint("`oomtrace check` says what this kernel offers; please report it with `uname -a`"),
            KernelError::Hierarchy(HierarchyError::Read { .. }) => {
                failure.hint("mount the kernel's own files: mount -t proc proc /proc")
            }
        }
    }
}

impl From<PinError> for Failure {
    fn from(error: PinError) -> Self {
        match &error {
            PinError::NoBpffs { source: Some(source), .. }
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                Self::new(Code::Privilege, &error)
                    .hint("run it as root, or first mount a bpffs: mount -t bpf bpf /sys/fs/bpf")
            }
            PinError::NoBpffs { .. } => Self::new(Code::Unsupported, &error)
                .hint("mount a bpffs (`mount -t bpf bpf /sys/fs/bpf`), or use a directory on a bpffs: --pin=DIR"),
            PinError::NotOurs { .. } => Self::new(Code::RunTime, &error).hint(
                "pins need a directory that nobody else can write to or replace: remove what is there, mount the bpffs \
                 with mode=0700, or use another directory: --pin=DIR",
            ),
            PinError::Busy { .. } => Self::new(Code::RunTime, &error)
                .hint("only one run at a time can use a pin directory: end the other run, or use another directory: --pin=DIR"),
            // bpffs returns these for a name that only the kernel may use.
            PinError::Io { what: "make", path, source }
                if source.raw_os_error() == Some(libc::EPERM)
                    && path.as_os_str().as_encoded_bytes().contains(&b'.') =>
            {
                Self::new(Code::RunTime, &error)
                    .hint("a name on a bpffs must not contain a dot: use another directory: --pin=DIR")
            }
            PinError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Self::new(Code::Privilege, &error).hint("run it as root, or as the directory's owner")
            }
            PinError::Io { .. } => Self::new(Code::RunTime, &error),
            PinError::Kernel { .. } => Self::new(Code::RunTime, &error)
                .hint("run without --pin, or remove what is there with `oomtrace detach`"),
        }
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        let error = match error {
            ProbeError::Pin(error) => return error.into(),
            error => error,
        };
        let root = Root::host();
        if error.is_permission() {
            let missing: Vec<&str> = privilege::missing(&root)
                .unwrap_or_default()
                .iter()
                .filter(|capability| capability.needed)
                .map(|capability| capability.name)
                .collect();
            let failure = Self::new(Code::Privilege, &error);
            return if missing.is_empty() {
                failure.hint("the capabilities that are required are present, but the kernel refuses: look for a seccomp profile or a security module")
            } else {
                failure.hint(format!("run it as root, or with {}", missing.join(" and ")))
            };
        }
        let failure = Self::new(Code::RunTime, &error);
        let kind = error.os().map_or(ErrorKind::Other, |os| io::Error::from_raw_os_error(os).kind());
        if let Some(hint) = exhausted(kind, error.os()) {
            return failure.hint(hint);
        }
        match &error {
            ProbeError::Maps { .. } | ProbeError::Ring { .. } => Self::new(Code::Unsupported, &error)
                .hint("ring buffers need Linux 5.8; `oomtrace check` says what this kernel offers"),
            _ => Self::new(Code::Unsupported, &error).hint("`oomtrace check` says what this kernel offers"),
        }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        let failure = Self::new(Code::RunTime, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_memory_is_no_missing_feature() {
        let failure = Failure::from(KernelError::NoBtf(ErrorKind::OutOfMemory.into()));
        assert_eq!(failure.code, Code::RunTime);
        assert!(failure.to_string().contains("allow more memory"), "{failure}");
        let failure = Failure::from(KernelError::NoBtf(ErrorKind::NotFound.into()));
        assert_eq!(failure.code, Code::Unsupported);
    }

    #[test]
    fn what_ran_out_is_known_by_the_error_and_not_by_its_words() {
        let of = |os| Failure::from(ProbeError::Ring { name: "KILLS", reason: "?".into(), os });
        assert!(of(Some(libc::EMFILE)).to_string().contains("more open files"));
        assert!(of(Some(libc::ENOMEM)).to_string().contains("more memory"));
        assert_eq!(of(Some(libc::ENOMEM)).code, Code::RunTime);
        let words = io::Error::from_raw_os_error(libc::EMFILE).to_string();
        let failure = Failure::from(ProbeError::Ring { name: "KILLS", reason: words, os: None });
        assert_eq!(failure.code, Code::Unsupported);
    }

    #[test]
    fn a_dot_in_the_name_of_a_pin_is_reported() {
        let refused = |what, path: &str, errno| {
            Failure::from(PinError::Io {
                what,
                path: path.into(),
                source: io::Error::from_raw_os_error(errno),
            })
        };
        assert!(
            refused("make", "/sys/fs/bpf/a.b", libc::EPERM).to_string().contains("must not contain a dot")
        );
        for other in [
            refused("make", "/sys/fs/bpf/ab", libc::EPERM),
            refused("make", "/sys/fs/bpf/a.b", libc::EACCES),
            refused("open", "/sys/fs/bpf/a.b", libc::EPERM),
        ] {
            assert_eq!(other.code, Code::Privilege);
        }
    }
}

//! Errors before the programs are attached, by the stage that an operator sees; and errors of pins.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the programs are not attached.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The object could not be loaded: its maps could not be made.
    #[error("failed to create the eBPF maps: {reason}")]
    Maps {
        /// The reason.
        reason: String,
        /// The kernel's error, if there is one.
        os: Option<i32>,
    },
    /// The verifier refused a program, or the kernel refused the call.
    #[error("failed to load {program}: {reason}")]
    Load {
        /// The program.
        program: String,
        /// The kernel's reason and the end of the verifier's log.
        reason: String,
        /// The kernel's error, if there is one.
        os: Option<i32>,
        /// The verifier refused it.
        verifier: bool,
    },
    /// A program could not be attached.
    #[error("failed to attach {hook}: {reason}")]
    Attach {
        /// The hook, as `raw_tracepoint/mark_victim`.
        hook: String,
        /// The kernel's reason.
        reason: String,
        /// The kernel's error, if there is one.
        os: Option<i32>,
    },
    /// A ring buffer could not be mapped.
    #[error("failed to map the ring buffer {name}: {reason}")]
    Ring {
        /// The map.
        name: &'static str,
        /// The reason.
        reason: String,
        /// The kernel's error, if there is one.
        os: Option<i32>,
    },
    /// The counters could not be read.
    #[error("failed to read the eBPF counters: {0}")]
    Counters(String),
    /// Nothing could be pinned or taken over.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The programs' log could not be opened.
    #[error("failed to open the eBPF log: {0}")]
    Log(String),
}

impl ProbeError {
    /// The kernel's error, if there is one.
    pub fn os(&self) -> Option<i32> {
        match self {
            Self::Maps { os, .. }
            | Self::Load { os, .. }
            | Self::Attach { os, .. }
            | Self::Ring { os, .. } => *os,
            Self::Pin(PinError::Io { source, .. } | PinError::NoBpffs { source: Some(source), .. }) => {
                source.raw_os_error()
            }
            Self::Counters(_) | Self::Pin(_) | Self::Log(_) => None,
        }
    }

    /// The maps could not be made.
    pub(super) fn maps(error: &(dyn std::error::Error + 'static)) -> Self {
        let (reason, os) = chain(error);
        Self::Maps { reason, os }
    }

    /// Whether the kernel said EPERM or EACCES.
    pub fn is_permission(&self) -> bool {
        match self {
            // A refusal of the verifier is EACCES too, and has its own reason.
            Self::Load { verifier: true, .. } | Self::Pin(_) => false,
            _ => matches!(self.os(), Some(libc::EPERM | libc::EACCES)),
        }
    }
}

/// Why nothing could be pinned or taken over.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Pins need a bpffs.
    #[error("{} is not on a bpffs{}", dir.display(), if source.is_some() { ", and none could be mounted" } else { "" })]
    NoBpffs {
        /// The place that must be on a bpffs.
        dir: PathBuf,
        /// Why mounting one failed, if that was tried.
        source: Option<io::Error>,
    },
    /// Somebody else could put something there that would be taken for oomtrace's.
    #[error("{} {why}", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Who owns it, or who can write to it.
        why: String,
    },
    /// Another process uses the directory.
    #[error("{} is in use by {}", dir.display(), pid.map_or("another process".into(), |pid| format!("process {pid}")))]
    Busy {
        /// The directory.
        dir: PathBuf,
        /// The other process's id, if the kernel shows it.
        pid: Option<u32>,
    },
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel refused to pin or to open a pin.
    #[error("cannot {what} {}: {reason}", path.display())]
    Kernel {
        /// `pin` or `open`.
        what: &'static str,
        /// The pin.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
}

impl PinError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    pub(super) fn kernel(what: &'static str, path: &Path, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Kernel { what, path: path.to_owned(), reason: chain(error).0 }
    }
}

/// The messages of a chain of errors, outermost first, and the system's error at its end.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> (String, Option<i32>) {
    let mut words = vec![error.to_string()];
    let mut os = None;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            os = io.raw_os_error();
        }
        next = error.source();
        if let Some(source) = next {
            let text = source.to_string();
            if words.iter().all(|word| !word.contains(&text)) {
                words.push(text);
            }
        }
    }
    (words.join(": "), os)
}

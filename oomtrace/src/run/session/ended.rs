//! Why a session ended early.

use std::io;

use crate::{
    failure::Failure,
    outputs::transport::SinkError,
    sources::probe::{PinError, ProbeError},
};

/// Why a session ended early.
pub(crate) enum Ended {
    Sink(SinkError),
    Io(io::Error),
    Failure(Failure),
}

impl From<SinkError> for Ended {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

impl From<ProbeError> for Ended {
    fn from(error: ProbeError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<PinError> for Ended {
    fn from(error: PinError) -> Self {
        Self::Failure(error.into())
    }
}

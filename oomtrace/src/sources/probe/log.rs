//! Prints the programs' own log to standard error.

use aya_log::EbpfLogger;

use crate::{
    sources::probe::{ProbeError, error::chain},
    stderr::say,
};

/// Prints what the programs log.
pub struct ToStderr;

impl log::Log for ToStderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(&format!("oomtrace: ebpf: {}: {}", record.level().as_str().to_lowercase(), record.args()));
    }

    fn flush(&self) {}
}

/// The log. The programs write it only if they were loaded with it.
pub(super) fn open(ebpf: &mut aya::Ebpf) -> Result<EbpfLogger<ToStderr>, ProbeError> {
    EbpfLogger::init_with_logger(ebpf, ToStderr).map_err(|error| ProbeError::Log(chain(&error).0))
}

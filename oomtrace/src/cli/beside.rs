//! Outputs beside the lines.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{PathBufValueParser, TypedValueParser},
};

use crate::{
    cli::values,
    outputs::metrics::{Address, SERIES},
};

/// Outputs beside the lines.
#[derive(Args, Clone, Debug, Default)]
pub struct Beside {
    /// Also write each event to systemd's journal, with fields to search for: `journalctl
    /// OOMTRACE_TYPE=oom_kill`. Entries that journald refuses are counted as lost. Lines still go to --file
    /// or standard output.
    #[arg(long)]
    pub journal: bool,
    /// Write metrics to this file, for node_exporter's textfile collector: after a change at most once a second, else once a minute.
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(metrics_file))]
    pub metrics_file: Option<PathBuf>,
    /// Serve metrics over HTTP (GET /metrics): `9469` (this port on loopback), `10.0.0.7:9469`, `unix:/PATH`, or `fd`, the socket
    /// that systemd passes.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<Address>,
    /// How many workloads get their own series, 16 to 4096. A quarter is kept for names that users can choose. The other workloads
    /// are counted in container="_other".
    #[arg(long, value_name = "N", default_value_t = SERIES, value_parser = values::within(16..=4096u16))]
    pub metrics_series: u16,
}

/// The collector reads only names with this ending.
fn metrics_file(path: PathBuf) -> Result<PathBuf, &'static str> {
    match path.extension() {
        Some(extension) if extension == "prom" => Ok(path),
        _ => Err("node_exporter reads files whose names end in .prom only"),
    }
}

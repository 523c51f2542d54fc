//! `oomtrace replay`: the pipeline without a kernel. Records that `run --record` kept in,
//! lines out.

use std::{fs, time::Duration};

use super::{render, terminal};
use crate::{
    cli::Replay,
    decode::Decoder,
    enrich::{
        Root,
        clock::ClockOffset,
        containers::Runtimes,
        enricher::{Enricher, Sources},
        tree::{CgroupTree, TreeLimits},
    },
    event::Host,
    failure::{Code, Failure},
    pipeline::{Filter, Pipeline},
    sink::{SinkError, StdoutSink},
};

/// `oomtrace replay`. The clock starts at 1970-01-01T00:00:00Z and stands still after the last event, the
/// host is named `replay`: the same records give the same lines on every host.
///
/// # Errors
/// If the file cannot be read or ends in the middle of a record.
pub fn replay(args: &Replay) -> Result<(), Failure> {
    let cannot =
        |what: String| Failure::message(Code::RunTime, format!("{}: {what}", args.records.display()));
    let bytes = fs::read(&args.records).map_err(|error| cannot(error.to_string()))?;
    let root = Root::at(&args.root);
    let sources = Sources {
        tree: CgroupTree::new(Runtimes::discover(root.clone(), &[]), TreeLimits::default()),
        root,
        processes: None,
        log: None,
        gfp: None,
        version: args.cgroup,
        clock: Some(ClockOffset::default()),
        host: Host { name: "replay".into(), boot_id: None, kernel: "replay".into() },
    };
    let decoder = Decoder::new(args.page_size);
    let render = render(args.output, terminal());
    let mut pipeline = Pipeline::new(
        decoder,
        Enricher::new(sources),
        Filter::default(),
        render,
        Box::new(StdoutSink::new()),
    );
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (record, after) = next(rest).ok_or_else(|| cannot("ends in the middle of a record".into()))?;
        match pipeline.kill(record).and_then(|()| pipeline.settle(Duration::MAX)) {
            Err(SinkError::Closed) => return Ok(()),
            done => done?,
        };
        rest = after;
    }
    match pipeline.stop("end of records").and_then(|()| pipeline.settle(Duration::MAX)) {
        Err(SinkError::Closed) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// A length, then as many bytes.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

//! `oomtrace replay`: the pipeline without a kernel. Records that `run --record` kept in,
//! lines out.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    time::Duration,
};

use crate::{
    cgroups::tree::{CgroupTree, TreeLimits},
    cli::Replay,
    commands::{render, terminal},
    containers::Runtimes,
    enrich::enricher::{Enricher, Sources},
    event::Host,
    facts::Decoder,
    failure::{Code, Failure},
    host::{clock::ClockOffset, process::Reason, root::Root},
    outputs::transport::{SinkError, StdoutSink},
    run::pipeline::{Filter, Pipeline},
};

/// `oomtrace replay`. The clock starts at 1970-01-01T00:00:00Z and stands still after the last event, the
/// host is named `replay`: the same records give the same lines on every host.
///
/// # Errors
/// If the file cannot be read or ends in the middle of a record.
pub fn replay(args: &Replay) -> Result<(), Failure> {
    let cannot =
        |what: String| Failure::message(Code::RunTime, format!("{}: {what}", args.records.display()));
    let mut records =
        File::open(&args.records).map(BufReader::new).map_err(|error| cannot(error.to_string()))?;
    let root = Root::at(&args.root);
    let sources = Sources {
        tree: CgroupTree::new(Runtimes::discover(root.clone(), &[]), TreeLimits::default()),
        root,
        processes: Err(Reason::NotRead),
        log: None,
        gfp: None,
        version: args.cgroup,
        clock: Some(ClockOffset::default()),
        host: Host { name: "replay".into(), boot_id: None, kernel: "replay".into() },
    };
    let decoder = Decoder::new(args.page_size);
    let render = render(Some(args.output), terminal());
    let mut pipeline = Pipeline::new(
        decoder,
        Enricher::new(sources),
        Filter::default(),
        render,
        Box::new(StdoutSink::new()),
    );
    let mut record = Vec::new();
    while next(&mut records, &mut record).map_err(|error| cannot(error.to_string()))? {
        match pipeline.kill(&record).and_then(|()| pipeline.settle(Duration::MAX)) {
            Err(SinkError::Closed) => return Ok(()),
            done => done?,
        };
    }
    match pipeline.stop("end of records").and_then(|()| pipeline.settle(Duration::MAX)) {
        Err(SinkError::Closed) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// No record of any version is as long as this: a file that says so is another's.
const RECORD_MAX: u64 = 64 << 10;

/// Reads a length, then as many bytes, into `record`. False at the end.
fn next(records: &mut impl BufRead, record: &mut Vec<u8>) -> io::Result<bool> {
    let torn = || io::Error::other("ends in the middle of a record");
    if records.fill_buf()?.is_empty() {
        return Ok(false);
    }
    let mut len = [0; 4];
    records.read_exact(&mut len).map_err(|_| torn())?;
    let len = u64::from(u32::from_le_bytes(len));
    if len > RECORD_MAX {
        return Err(io::Error::other(format!(
            "a record of {len} bytes: this is not what `run --record` wrote"
        )));
    }
    record.clear();
    if records.take(len).read_to_end(record)? != usize::try_from(len).unwrap_or(usize::MAX) {
        return Err(torn());
    }
    Ok(true)
}

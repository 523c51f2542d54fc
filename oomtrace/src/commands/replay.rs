//! `oomtrace replay`: prints the events of records that `run --record` wrote, without a kernel.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    time::Duration,
};

use crate::{
    accounting::Account,
    cgroups::tree::{CgroupTree, TreeLimits},
    cli::Replay,
    commands::{render, terminal},
    containers::Runtimes,
    enrich::enricher::{Enricher, Knowledge},
    failure::{Code, Failure},
    filter::Filter,
    host::root::Root,
    outputs::{
        Durable, Outputs,
        transport::{SinkError, StdoutSink},
    },
    run::reporter::Reporter,
    sources::{Next, kills::Records},
};

/// `oomtrace replay`. The clock starts at 1970-01-01T00:00:00Z and stops after the last event, the host is
/// named `replay`, and no file of this host is read. So the same records give the same lines on every host.
///
/// # Errors
/// If the file cannot be read or ends in the middle of a record.
pub fn replay(args: &Replay) -> Result<(), Failure> {
    let cannot =
        |what: String| Failure::message(Code::RunTime, format!("{}: {what}", args.records.display()));
    let mut records = File::open(&args.records)
        .map(|file| BufReader::with_capacity(READ_BYTES, file))
        .map_err(|error| cannot(error.to_string()))?;
    let mut knowledge = Knowledge::none("replay", args.cgroup);
    if let Some(root) = args.root.as_ref().map(Root::at) {
        knowledge.tree = CgroupTree::new(Runtimes::discover(root.clone(), &[]), TreeLimits::default());
        knowledge.root = Some(root);
    }
    let records_of = Records::new(args.page_size, None);
    let mut enricher = Enricher::new(knowledge);
    let mut account = Account::new(None, enricher.is_v1());
    let durable = Durable::new(render(Some(args.output), terminal()), Box::new(StdoutSink::new()));
    let mut reporter = Reporter::new(Filter::default(), Outputs::new(durable, Vec::new()));
    let mut record = Vec::new();
    while next(&mut records, &mut record).map_err(|error| cannot(error.to_string()))? {
        if let Next::Event(event) = records_of.event(&record, None, &mut enricher, &mut account)
            && !printed(&mut reporter, |reporter| reporter.report(&event, &mut account).map(drop))?
        {
            return Ok(());
        }
    }
    let envelope = enricher.own_envelope();
    printed(&mut reporter, |reporter| reporter.stop("end of records", envelope, &mut account))?;
    Ok(())
}

/// Prints, and waits until everything is written. Returns false if the reader is gone.
fn printed(
    reporter: &mut Reporter,
    print: impl FnOnce(&mut Reporter) -> Result<(), SinkError>,
) -> Result<bool, SinkError> {
    match print(reporter).and_then(|()| reporter.outputs().durable().settle(Duration::MAX)) {
        Err(SinkError::Closed) => Ok(false),
        done => done,
    }
}

/// How much of the file is read at once: about sixty records.
const READ_BYTES: usize = 64 << 10;

/// The longest possible record. A file with a longer one is not a recording.
const RECORD_MAX: u64 = 64 << 10;

/// Reads a length and that many bytes into `record`. Returns false at the end.
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

//! The outputs besides the durable one. They are opened before the programs are attached and used after that.

use std::path::Path;

use crate::{
    cli::{self, Run},
    failure::{Code, Failure},
    outputs::{
        BestEffort, Durable, Outputs,
        journal::{Journal, SOCKET},
        metrics::{self, Metrics},
    },
    sources::probe::{COUNTERS, FillMeter, Kept, PinDir, Rings},
};

/// The opened outputs. Errors that the operator can cause happen here.
pub(crate) struct Beside {
    metrics: Option<Metrics>,
    journal: Option<Journal>,
}

impl Beside {
    /// The options.
    pub(crate) fn open(args: &cli::Beside) -> Result<Self, Failure> {
        let journal = args.journal.then(|| Journal::at(Path::new(SOCKET))).transpose().map_err(|error| {
            Failure::message(Code::RunTime, format!("cannot open a socket for --journal: {error}"))
        })?;
        if args.metrics_file.is_none() && args.metrics_listen.is_none() {
            return Ok(Self { metrics: None, journal });
        }
        let mut metrics = Metrics::new(args.metrics_series);
        if let Some(path) = &args.metrics_file {
            metrics = metrics.to_file(path.clone()).map_err(|error| {
                let hint =
                    "name a file in an existing, writable directory; in a unit, ReadWritePaths= may have to name it";
                Failure::message(Code::RunTime, format!("cannot write {}: {error}", path.display()))
                    .hint(hint)
            })?;
        }
        if let Some(at) = &args.metrics_listen {
            metrics = metrics.listening(at).map_err(|error| {
                Failure::message(Code::RunTime, format!("cannot listen at {at}: {error}"))
                    .hint(at.hint(&error))
            })?;
        }
        Ok(Self { metrics: Some(metrics), journal })
    }
}

/// The durable output and the others.
pub(crate) fn outputs(
    durable: Durable,
    beside: Beside,
    args: &Run,
    pins: Option<&PinDir>,
    rings: &Rings,
) -> Result<Outputs, Failure> {
    let meter = match beside.metrics {
        Some(_) => FillMeter::of(&rings.kills, args.ring_size.0),
        None => FillMeter::default(),
    };
    let metrics = match (beside.metrics, pins) {
        (Some(metrics), Some(pins)) => {
            let places = u32::try_from(metrics::places(args.beside.metrics_series)).unwrap_or(u32::MAX);
            Some(metrics.kept_in(Box::new(Counters(pins.kept(COUNTERS, places)?))))
        }
        (metrics, _) => metrics,
    };
    let list = [
        metrics.map(|metrics| Box::new(metrics) as Box<dyn BestEffort>),
        beside.journal.map(|journal| Box::new(journal) as Box<dyn BestEffort>),
    ];
    let others = list.into_iter().flatten().collect();
    Ok(Outputs::new(durable, others).with_ring(Box::new(move || meter.read())))
}

/// The file in which counters are kept across runs.
struct Counters(Kept<metrics::Value>);

impl metrics::Store for Counters {
    fn places(&self) -> usize {
        usize::try_from(self.0.places()).unwrap_or_default()
    }

    fn get(&self, place: usize) -> Option<metrics::Value> {
        self.0.get(u32::try_from(place).ok()?)
    }

    fn put(&mut self, place: usize, value: &metrics::Value) -> Result<(), String> {
        let place = u32::try_from(place).map_err(|error| error.to_string())?;
        self.0.put(place, *value)
    }
}

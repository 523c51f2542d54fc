//! The outputs beside the durable one: opened before anything is attached, and put together once it is.

use std::path::Path;

use crate::{
    cli::{self, Run},
    failure::{Code, Failure},
    outputs::{
        BestEffort, Durable, Outputs,
        journal::{Journal, SOCKET},
        metrics::{self, Metrics},
    },
    sources::probe::{FillMeter, Kept, PinDir, Rings},
};

/// The outputs beside it, opened. What fails for the operator's reasons fails here.
pub(crate) struct Beside {
    metrics: Option<Metrics>,
    journal: Option<Journal>,
}

impl Beside {
    /// As typed.
    pub(crate) fn open(args: &cli::Beside) -> Result<Self, Failure> {
        let journal = args.journal.then(|| Journal::at(Path::new(SOCKET))).transpose().map_err(|error| {
            Failure::message(Code::RunTime, format!("cannot have a socket for --journal: {error}"))
        })?;
        if args.metrics_file.is_none() && args.metrics_listen.is_none() {
            return Ok(Self { metrics: None, journal });
        }
        let mut metrics = Metrics::new(args.metrics_series);
        if let Some(path) = &args.metrics_file {
            metrics = metrics.to_file(path.clone()).map_err(|error| {
                let hint = "name a file in a directory that is there and can be written; a sandbox may need ReadWritePaths=";
                Failure::message(Code::RunTime, format!("cannot write {}: {error}", path.display())).hint(hint)
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

/// All outputs of a run: the durable one, and the others.
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
            Some(metrics.kept_in(Box::new(Counters(pins.kept(places)?))))
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

/// Where counters are kept over runs.
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

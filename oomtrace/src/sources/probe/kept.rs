//! Values that one run keeps for the next: a separate array map in the directory of pins, which no program
//! uses. It stays when other programs replace these.

use std::{fs, io, path::Path};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError, MapInfo, MapType},
};

use crate::sources::probe::{PinDir, PinError, error::chain};

/// The name of the map of counters among the pins.
pub const COUNTERS: &str = "metrics";
/// That of how memory went.
pub const TRACKS: &str = "history";
/// That of how often services were killed.
pub const KILLS: &str = "recurrence";
const NAMES: [&str; 3] = [COUNTERS, TRACKS, KILLS];

/// Values in numbered places.
pub struct Kept<V: Pod>(Array<MapData, V>);

impl<V: Pod> Kept<V> {
    /// The number of places.
    pub fn places(&self) -> u32 {
        self.0.len()
    }

    /// The content of a place; zeros if nothing was kept.
    pub fn get(&self, place: u32) -> Option<V> {
        self.0.get(&place, 0).ok()
    }

    /// Keeps a value, in one system call, which a SIGKILL cannot interrupt.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn put(&mut self, place: u32, value: V) -> Result<(), String> {
        self.0.set(place, value, 0).map_err(|error| chain(&error).0)
    }
}

impl PinDir {
    /// What an earlier run kept under this name, with this number of places. New places hold zeros; extra ones are dropped.
    ///
    /// # Errors
    /// If the kernel refuses to make or pin the map.
    pub fn kept<V: Pod>(&self, name: &str, places: u32) -> Result<Kept<V>, PinError> {
        let path = self.path().join(name);
        match opened::<V>(&path) {
            Some(there) if there.places() == places => Ok(there),
            other => renewed(&path, places, other.as_ref()),
        }
    }

    /// Removes the kept values. Returns whether there were any.
    pub(super) fn forget(&self) -> Result<bool, PinError> {
        NAMES.iter().try_fold(false, |any, name| Ok(remove(&self.path().join(name))? || any))
    }
}

fn renewed<V: Pod>(path: &Path, places: u32, old: Option<&Kept<V>>) -> Result<Kept<V>, PinError> {
    let error = |what, error: &MapError| PinError::kernel(what, path, error);
    let mut map = Array::<MapData, V>::create(places, 0).map_err(|why| error("make", &why))?;
    for place in 0..old.map_or(0, |old| old.places().min(places)) {
        if let Some(value) = old.and_then(|old| old.get(place)) {
            map.set(place, value, 0).map_err(|why| error("copy", &why))?;
        }
    }
    remove(path)?;
    map.pin(path).map_err(|why| PinError::kernel("pin", path, &why))?;
    opened(path).ok_or_else(|| {
        let reason = "it is another map than the one that was just made".into();
        PinError::Kernel { what: "open", path: path.to_owned(), reason }
    })
}

/// The existing map, if it has values of this kind.
fn opened<V: Pod>(path: &Path) -> Option<Kept<V>> {
    let info = MapInfo::from_pin(path).ok()?;
    let value = u32::try_from(size_of::<V>()).ok()?;
    let is_one = info.map_type().is_ok_and(|kind| kind == MapType::Array);
    if !is_one || (info.key_size(), info.value_size()) != (4, value) {
        return None;
    }
    let map = MapData::from_pin(path).and_then(Map::from_map_data).ok()?;
    Array::try_from(map).ok().map(Kept)
}

fn remove(path: &Path) -> Result<bool, PinError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PinError::io("remove", path, error)),
    }
}

//! What stays for the next run (`--pin`): the tracks and the kills of services, in two maps that no program uses. Each value is
//! written in one system call, which a SIGKILL cannot interrupt.

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    history::{
        TRACK_BYTES, Track,
        recurrence::{Kills, SERVICES},
    },
    sources::probe::{self, PinDir, PinError},
};

type TrackBytes = [u8; TRACK_BYTES];
type KillsBytes = [u8; size_of::<Kills>()];

/// What stays.
pub struct Kept {
    tracks: probe::Kept<TrackBytes>,
    kills: probe::Kept<KillsBytes>,
}

impl Kept {
    /// What an earlier run kept, for so many cgroups.
    ///
    /// # Errors
    /// If the kernel refuses to make or pin a map.
    pub fn open(pins: &PinDir, cgroups: usize) -> Result<Self, PinError> {
        let places = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Self {
            tracks: pins.kept(probe::TRACKS, places(cgroups))?,
            kills: pins.kept(probe::KILLS, places(SERVICES))?,
        })
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = Track> {
        let free = Track::free();
        (0..self.tracks.places()).map(move |place| {
            let bytes = self.tracks.get(place);
            bytes.and_then(|bytes| Track::read_from_bytes(&bytes).ok()).unwrap_or(free)
        })
    }

    pub(super) fn kills(&self) -> impl Iterator<Item = Kills> {
        (0..self.kills.places()).filter_map(|place| Kills::read_from_bytes(&self.kills.get(place)?).ok())
    }

    // An array map takes each value whose place is in it. What cannot be kept is only missing in the next run.

    pub(super) fn keep_track(&mut self, place: usize, track: &Track) {
        let mut bytes = [0; TRACK_BYTES];
        bytes.copy_from_slice(track.as_bytes());
        if let Ok(place) = u32::try_from(place) {
            let _not_kept = self.tracks.put(place, bytes);
        }
    }

    pub(super) fn keep_kills(&mut self, place: usize, kills: &Kills) {
        let mut bytes = [0; size_of::<Kills>()];
        bytes.copy_from_slice(kills.as_bytes());
        if let Ok(place) = u32::try_from(place) {
            let _not_kept = self.kills.put(place, bytes);
        }
    }
}

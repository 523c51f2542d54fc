//! What stays when the process ends: a directory of pins.
//!
//! ```text
//! DIR/                            locked by the one process that uses it
//!   v<wire>-<hash>/               a generation: one set of attached programs
//!     KILLS CGROUPS SIGNALS SIGNAL_GROUPS COUNTERS PINNED WAKEUPS WATCH
//!     link-<kind>-<hook>
//!     program-<hook>            only of the one that follows signals
//!   metrics                     counters that a run keeps for the next, whatever its programs
//!   history recurrence          how memory went, and how often services were killed
//! ```
//!
//! The hash covers everything that decides what the programs do and how large their maps are. So a run that
//! finds a directory with its own name finds its own programs. Other programs are drained and removed;
//! records of another wire version are never read.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapInfo, MapType, PerCpuArray},
    programs::{RawTracePoint, links::FdLink},
};
use oomtrace_common::{WIRE_VERSION, counter, early::Watch, layout::KernelLayout, pinned::Pinned};
use zerocopy::IntoBytes;

use crate::sources::probe::{
    Early, Options, PinError, ProbeError, Ring, bpffs,
    handover::Handover,
    lock::Lock,
    object,
    signals::{GROUP_SIZES, GroupMap},
};

/// The default directory of pins.
pub const DEFAULT_DIR: &str = "/sys/fs/bpf/oomtrace";

/// The maps that are pinned.
const MAPS: [&str; 8] =
    ["KILLS", "CGROUPS", "SIGNALS", "SIGNAL_GROUPS", "COUNTERS", "PINNED", "WAKEUPS", "WATCH"];

/// A locked directory of pins.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    _lock: Lock,
}

impl PinDir {
    /// Makes the directory, mounts a bpffs for it if necessary, and locks it. The text says what was mounted.
    ///
    /// # Errors
    /// If another process uses it, or it cannot be made.
    pub fn open(path: &Path) -> Result<(Self, Option<String>), PinError> {
        let said = bpffs::make(path)?;
        Ok((Self { path: path.to_owned(), _lock: Lock::take(path)? }, said))
    }

    /// Removes every pin, which detaches the programs. Returns whether there were any.
    ///
    /// # Errors
    /// If another process uses the directory, or something cannot be removed.
    pub fn detach(path: &Path) -> Result<bool, PinError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bpffs::unmount_ours()?;
                return Ok(false);
            }
            there => there.map_err(|error| PinError::io("look at", path, error))?,
        };
        // Only pins may be removed here, not other files.
        bpffs::check(path)?;
        let dir = Self { path: path.to_owned(), _lock: Lock::take(path)? };
        let generations = dir.generations()?;
        for generation in &generations {
            generation.remove()?;
        }
        let kept = dir.forget()?;
        bpffs::remove_if_empty(path).map_err(|error| PinError::io("remove", path, error))?;
        drop(dir);
        bpffs::unmount_ours()?;
        Ok(kept || !generations.is_empty())
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The generation of these programs, whether it exists or not.
    pub(super) fn generation(&self, options: &Options, layout: &KernelLayout) -> Generation {
        let mut hash = DefaultHasher::new();
        object::OBJECT.hash(&mut hash);
        layout.as_bytes().hash(&mut hash);
        (options.kill_ring_bytes, options.cgroup_ring_bytes, options.hook as u8).hash(&mut hash);
        Generation { dir: self.path.join(format!("v{WIRE_VERSION}-{:016x}", hash.finish())) }
    }

    /// All existing generations, of any wire version.
    pub(super) fn generations(&self) -> Result<Vec<Generation>, PinError> {
        let error = |error| PinError::io("read", &self.path, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name();
            if name.to_str().is_some_and(is_generation) {
                found.push(Generation { dir: entry.path() });
            }
        }
        Ok(found)
    }
}

/// An array of one such value.
fn one_of<T>() -> (MapType, u32, u32, Option<u32>) {
    (MapType::Array, 4, u32::try_from(size_of::<T>()).unwrap_or(u32::MAX), Some(1))
}

/// Whether a name has the form of [`PinDir::generation`].
fn is_generation(name: &str) -> bool {
    let parts = name.strip_prefix('v').and_then(|name| name.split_once('-'));
    let digits = |text: &str, all: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(all);
    parts.is_some_and(|(wire, hash)| {
        digits(wire, u8::is_ascii_digit) && hash.len() == 16 && digits(hash, u8::is_ascii_hexdigit)
    })
}

/// One set of pinned programs and maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    dir: PathBuf,
}

/// The maps of a generation.
pub(super) struct Maps {
    pub(super) kills: Ring,
    pub(super) early: Option<Early>,
    pub(super) cgroups: Ring,
    pub(super) signals: Ring,
    pub(super) signal_groups: GroupMap,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) handover: Handover,
}

impl Generation {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Whether its records have this build's format.
    pub(super) fn is_readable(&self) -> bool {
        let name = self.dir.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&format!("v{WIRE_VERSION}-")))
    }

    /// Renames it to a name that no programs have. It is there only to be reported and removed.
    pub(super) fn renamed(self) -> Result<Self, PinError> {
        let name = self.dir.file_name().and_then(|name| name.to_str()?.split_once('-'));
        let (wire, hash) =
            name.map_or(("v0", 0), |(wire, hash)| (wire, u64::from_str_radix(hash, 16).unwrap_or_default()));
        let free = (1..=u64::MAX)
            .map(|step| self.dir.with_file_name(format!("{wire}-{:016x}", hash.wrapping_add(step))))
            .find(|dir| !dir.exists())
            .unwrap_or_else(|| self.dir.clone());
        fs::rename(&self.dir, &free).map_err(|error| PinError::io("rename", &self.dir, error))?;
        Ok(Self { dir: free })
    }

    /// Pins the maps of programs that are not attached yet.
    pub(super) fn pin_maps(&self, ebpf: &Ebpf) -> Result<(), PinError> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.dir)
            .map_err(|error| PinError::io("make", &self.dir, error))?;
        for name in MAPS {
            let path = self.dir.join(name);
            let pinned = ebpf.map(name).map(|map| map.pin(&path));
            if let Some(Err(error)) = pinned {
                return Err(PinError::kernel("pin", &path, &error));
            }
        }
        Ok(())
    }

    /// Opens the maps, and checks that they are like this build's.
    pub(super) fn open(&self) -> Result<Maps, ProbeError> {
        let kills = self.ring("KILLS")?;
        Ok(Maps {
            early: self.early(&kills)?,
            kills,
            cgroups: self.ring("CGROUPS")?,
            signals: self.ring("SIGNALS")?,
            signal_groups: self
                .typed("SIGNAL_GROUPS", (MapType::LruHash, GROUP_SIZES.0, GROUP_SIZES.1, None))?,
            counters: self.typed("COUNTERS", (MapType::PerCpuArray, 4, 8, Some(counter::COUNT)))?,
            handover: self.handover()?,
        })
    }

    /// Opens a ring. The kernel checks its format.
    pub(super) fn ring(&self, name: &'static str) -> Result<Ring, ProbeError> {
        Ring::of(name, self.map(name, (MapType::RingBuf, 0, 0, None))?)
    }

    /// An older build did not pin it.
    fn early(&self, kills: &Ring) -> Result<Option<Early>, ProbeError> {
        if !self.dir.join("WATCH").exists() {
            return Ok(None);
        }
        let watch = self.map("WATCH", one_of::<Watch>())?;
        Early::of(self.ring("WAKEUPS")?, &watch, kills).map(Some)
    }

    fn handover(&self) -> Result<Handover, PinError> {
        let map: Array<MapData, Pinned> = self.typed("PINNED", one_of::<Pinned>())?;
        Handover::of(map).map_err(|error| PinError::kernel("read", &self.dir, &error))
    }

    fn typed<T>(&self, name: &str, want: (MapType, u32, u32, Option<u32>)) -> Result<T, PinError>
    where
        T: TryFrom<Map, Error = aya::maps::MapError>,
    {
        let error = |error: aya::maps::MapError| PinError::kernel("open", &self.dir.join(name), &error);
        T::try_from(Map::from_map_data(self.map(name, want)?).map_err(error)?).map_err(error)
    }

    /// aya accepts any pin, so its type must be checked first.
    fn map(&self, name: &str, want: (MapType, u32, u32, Option<u32>)) -> Result<MapData, PinError> {
        let path = self.dir.join(name);
        let error = |error: aya::maps::MapError| PinError::kernel("open", &path, &error);
        let info = MapInfo::from_pin(&path).map_err(error)?;
        let (kind, key, value, entries) = want;
        let is = (info.map_type().map_err(error)?, info.key_size(), info.value_size());
        if is != (kind, key, value) || entries.is_some_and(|entries| entries != info.max_entries()) {
            let reason = "it is another map than the one expected".into();
            return Err(PinError::Kernel { what: "open", path, reason });
        }
        MapData::from_pin(&path).map_err(error)
    }

    /// Pins the link of a program, which stays attached.
    pub(super) fn pin_link(&self, kind: &str, name: &str, link: FdLink) -> Result<(), PinError> {
        let path = self.link(kind, name);
        link.pin(&path).map(drop).map_err(|error| PinError::kernel("pin", &path, &error))
    }

    /// Pins a program that is queried later.
    pub(super) fn pin_program<E: std::error::Error + 'static>(
        &self,
        name: &str,
        pin: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), PinError> {
        let path = self.dir.join(format!("program-{name}"));
        pin(&path).map_err(|error| PinError::kernel("pin", &path, &error))
    }

    /// The pinned program, if it exists.
    pub(super) fn program(&self, name: &str) -> Option<OwnedFd> {
        let program = RawTracePoint::from_pin(self.dir.join(format!("program-{name}"))).ok()?;
        program.fd().ok()?.as_fd().try_clone_to_owned().ok()
    }

    /// Detaches a program, if it was pinned.
    pub(super) fn unpin_link(&self, kind: &str, name: &str) {
        // It most likely does not exist. A directory that cannot be written causes an error in the next step.
        let _not_there = fs::remove_file(self.link(kind, name));
    }

    /// The pinned links: the kind and the name of each hook.
    pub(super) fn links(&self) -> Vec<(String, String)> {
        let names = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut links: Vec<_> = names
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (kind, hook) = name.strip_prefix("link-")?.split_once('-')?;
                Some((kind.to_owned(), hook.to_owned()))
            })
            .collect();
        links.sort();
        links
    }

    /// Detaches the programs. Their records stay.
    pub(super) fn detach(&self) {
        for (kind, name) in self.links() {
            self.unpin_link(&kind, &name);
        }
    }

    /// Removes everything. The links go first, so that nothing more is recorded.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self) -> Result<(), PinError> {
        self.detach();
        let error = |error| PinError::io("remove", &self.dir, error);
        for entry in fs::read_dir(&self.dir).map_err(error)? {
            let path = entry.map_err(error)?.path();
            fs::remove_file(&path).map_err(|error| PinError::io("remove", &path, error))?;
        }
        fs::remove_dir(&self.dir).map_err(error)
    }

    fn link(&self, kind: &str, name: &str) -> PathBuf {
        self.dir.join(format!("link-{kind}-{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_names_are_generations() {
        assert!(is_generation("v3-00ab9cf7e21d4480"));
        for name in
            ["v1-2024", "v-00ab9cf7e21d4480", "v1-+0ab9cf7e21d4480", "v+1-00ab9cf7e21d4480", "maps", ""]
        {
            assert!(!is_generation(name), "{name}");
        }
    }

    #[test]
    fn files_that_are_no_pins_stay() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| unreachable!("{error}"));
        let file = dir.path().join("v1-00ab9cf7e21d4480/report.txt");
        let made =
            fs::create_dir(dir.path().join("v1-00ab9cf7e21d4480")).and_then(|()| fs::write(&file, "mine"));
        assert!(made.is_ok());
        assert!(matches!(PinDir::detach(dir.path()), Err(PinError::NoBpffs { .. })));
        assert!(file.exists());
    }
}

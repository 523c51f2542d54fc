//! Parses the values of options. An error is what is wrong with the value.

use std::{
    fmt::Display,
    num::{IntErrorKind, ParseIntError},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::CommandFactory;
use oomtrace_common::record::OomKill;

use crate::{
    cli::{Cli, RingSize},
    containers::Runtime,
    event::CgroupVersion,
    sources::earlier_kills::Since,
};

pub(super) fn command_name(text: &str) -> Result<String, &'static str> {
    let mut cli = Cli::command();
    cli.build();
    cli.find_subcommand(text).map(|command| command.get_name().to_owned()).ok_or("no such command")
}

pub(super) fn cgroup_version(text: &str) -> Result<CgroupVersion, String> {
    match text {
        "v1" => Ok(CgroupVersion::V1),
        "v2" => Ok(CgroupVersion::V2),
        "hybrid" => Ok(CgroupVersion::Hybrid),
        "none" => Ok(CgroupVersion::None),
        _ => Err("the versions are v1, v2 and hybrid".into()),
    }
}

/// For many programs `-` means standard output. Here that is the default, without `--file`.
pub(super) fn not_dash(path: PathBuf) -> Result<PathBuf, &'static str> {
    if path.as_os_str() == "-" {
        return Err("without --file, lines go to standard output; a file of that name is ./-");
    }
    Ok(path)
}

/// Digits, and the text after them. `like` says what was expected.
fn number<'a, T: FromStr<Err = ParseIntError>>(
    text: &'a str,
    like: &'static str,
) -> Result<(T, &'a str), &'static str> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "the number is too large",
        _ => like,
    })?;
    Ok((number, unit))
}

/// Parses a whole number in this range.
pub(super) fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr<Err = ParseIntError> + PartialOrd + Display + Clone,
{
    move |text| {
        let (least, most) = (range.start(), range.end());
        let number = match number(text, "a whole number, as in 5") {
            Ok((number, "")) => number,
            Ok(_) => return Err("a whole number, as in 5".into()),
            Err(error) => return Err(error.into()),
        };
        match number {
            number if number < *least => Err(format!("at least {least}")),
            number if number > *most => Err(format!("at most {most}")),
            number => Ok(number),
        }
    }
}

/// How many cgroups have their history kept; 0 if none.
pub(super) fn history(text: &str) -> Result<usize, String> {
    const MOST: usize = 16_384;
    if text == "off" {
        return Ok(0);
    }
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("`off`, or a number from 1 to {MOST}"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit): (u64, _) = number(text, "a time is a number and a unit, as in 30s")?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        unit if unit.starts_with('.') => return Err("a whole number, please: 1500ms".into()),
        _ => return Err("the units of time are ms, s, m, h and d".into()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| "too long".into())
}

pub(super) fn since(text: &str) -> Result<Since, String> {
    match text {
        "boot" => Ok(Since::Boot),
        ago => duration(ago)
            .map(Since::Ago)
            .map_err(|error| format!("{error}; `boot` is all since the host's boot")),
    }
}

/// A smaller file is useless: a line can have 4096 bytes.
const SMALLEST_FILE: u64 = 4096;

pub(super) fn file_size(text: &str) -> Result<u64, String> {
    let (number, unit): (u64, _) = number(text, "a size is a number and a unit, as in 10MiB")?;
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("the units of size are KiB, MiB and GiB".into()),
    };
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    if bytes < SMALLEST_FILE {
        return Err(format!("at least {SMALLEST_FILE} bytes"));
    }
    Ok(bytes)
}

/// Lines contain command lines: others can read them only if the operator wants that, and nobody else can
/// write them.
pub(super) fn file_mode(text: &str) -> Result<u32, &'static str> {
    let mode = u32::from_str_radix(text, 8).map_err(|_| "a mode is octal, as in 640")?;
    if mode & !0o666 != 0 || mode & 0o600 != 0o600 {
        return Err("its owner must read and write it, and nobody can execute it: 600 to 666");
    }
    Ok(mode)
}

/// Half of this would hold no kill at all: the room for a kill is reserved at its maximum size.
const SMALLEST_RING: u32 = 8 << 10;
const _: () = assert!(size_of::<OomKill>() + 8 < SMALLEST_RING as usize);

pub(super) fn ring_size(text: &str) -> Result<RingSize, String> {
    let (number, unit): (u32, _) = number(text, "a size is a number and a unit, as in 512KiB")?;
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => return Err("at most 256MiB".into()),
        _ => return Err("the units of size are KiB and MiB".into()),
    };
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes <= 256 << 20).ok_or("at most 256MiB")?;
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    let smallest = page.max(SMALLEST_RING);
    if !bytes.is_power_of_two() || bytes < smallest {
        return Err(format!("must be a power of two, at least {smallest} bytes"));
    }
    Ok(RingSize(bytes))
}

pub(super) fn runtime_root(text: &str) -> Result<(Runtime, PathBuf), String> {
    let (name, dir) = text.split_once('=').ok_or("as in docker=/data/docker")?;
    let runtime = Runtime::with_files(name)
        .ok_or("the runtimes with state files are docker, containerd, podman and cri-o")?;
    if !dir.starts_with('/') {
        return Err("the directory must be absolute".into());
    }
    Ok((runtime, PathBuf::from(dir)))
}

/// A moment: of the calendar, or so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nanoseconds since 1970.
    At(i128),
    /// Before now.
    Ago(Duration),
}

impl Moment {
    /// Nanoseconds since 1970, where `now` is that.
    pub fn unix_ns(self, now: i128) -> i128 {
        match self {
            Self::At(unix_ns) => unix_ns,
            Self::Ago(ago) => now.saturating_sub(i128::try_from(ago.as_nanos()).unwrap_or(i128::MAX)),
        }
    }
}

pub(super) fn moment(text: &str) -> Result<Moment, String> {
    let moment = if text.contains('-') {
        text.parse::<jiff::Timestamp>().ok().map(|moment| Moment::At(moment.as_nanosecond()))
    } else {
        duration(text).ok().map(Moment::Ago)
    };
    moment.ok_or_else(|| {
        "a time is written as 2026-11-21T03:00:00Z, with Z or an offset, or as 2h for two hours ago".into()
    })
}

//! The faults that can happen to a tracer.

use std::time::Instant;

use anyhow::{Result, bail};

use super::super::output::Output;
use super::Lane;
use crate::process::send_signal;

/// At this size a file is rotated.
const FILE_BYTES: u64 = 8 << 20;

/// Each fault, its relative frequency, and its name in the table.
const FAULTS: [(Fault, u64, &str); 14] = [
    (Fault::Killed, 4, "SIGKILL"),
    (Fault::KilledAtStart, 4, "SIGKILL while it starts"),
    (Fault::Stopped, 3, "SIGSTOP for seconds"),
    (Fault::KilledWhileStopped, 1, "SIGSTOP, then SIGKILL"),
    (Fault::Upgraded, 3, "upgraded: SIGTERM, another copy of the binary"),
    (Fault::Replaced, 2, "replaced by other programs (`--ring-size`)"),
    (Fault::ReplacedAndKilled, 2, "replaced, SIGKILL while it takes over"),
    (Fault::DiskFull, 3, "disk full"),
    (Fault::DiskFullAndKilled, 1, "disk full, SIGKILL meanwhile"),
    (Fault::Fails, 2, "file fails every write"),
    (Fault::Rotated, 3, "log rotated: create"),
    (Fault::Truncated, 2, "log rotated: copytruncate"),
    (Fault::Blocked, 4, "pipe blocked"),
    (Fault::EndedWhileBlocked, 2, "pipe blocked, SIGTERM meanwhile"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Killed,
    KilledAtStart,
    Stopped,
    KilledWhileStopped,
    Upgraded,
    Replaced,
    ReplacedAndKilled,
    DiskFull,
    DiskFullAndKilled,
    Fails,
    Rotated,
    Truncated,
    Blocked,
    EndedWhileBlocked,
}

impl Fault {
    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        FAULTS.iter().find(|known| known.0 == self).map_or("", |known| known.2)
    }
}

impl Lane {
    /// A fault that can happen to this tracer now.
    pub(super) fn next_fault(&mut self) -> Fault {
        let on_disk = match &self.output {
            Output::File(file) if file.size() > FILE_BYTES => return Fault::Rotated,
            Output::File(_) => true,
            Output::Pipe(_) => false,
        };
        let possible: Vec<Fault> = FAULTS
            .iter()
            .filter(|(fault, ..)| match fault {
                Fault::DiskFull
                | Fault::DiskFullAndKilled
                | Fault::Fails
                | Fault::Rotated
                | Fault::Truncated => on_disk,
                Fault::Blocked | Fault::EndedWhileBlocked => !on_disk,
                _ => true,
            })
            .flat_map(|(fault, weight, _)| std::iter::repeat_n(*fault, usize::try_from(*weight).unwrap_or(1)))
            .collect();
        self.random.pick(&possible).copied().unwrap_or(Fault::Killed)
    }

    /// Makes it happen.
    pub(super) fn happen(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Killed => {
                self.kill()?;
                let nobody = self.random.time(0, 1500);
                std::thread::sleep(nobody);
                self.start()
            }
            Fault::KilledAtStart => {
                self.kill()?;
                self.start_and_kill()?;
                self.start()
            }
            Fault::Stopped | Fault::KilledWhileStopped => {
                self.stop_still()?;
                self.some_seconds();
                if fault == Fault::Stopped {
                    return self.signal(libc::SIGCONT);
                }
                self.kill()?;
                self.start()
            }
            Fault::Upgraded => {
                self.end()?;
                self.turn.0 ^= 1;
                self.start()
            }
            Fault::Replaced | Fault::ReplacedAndKilled => self.replace(fault == Fault::ReplacedAndKilled),
            Fault::Blocked | Fault::EndedWhileBlocked => {
                self.pause_reader(true);
                self.some_seconds();
                if fault == Fault::EndedWhileBlocked {
                    self.end()?;
                    self.start()?;
                    self.some_seconds();
                }
                self.pause_reader(false);
                Ok(())
            }
            Fault::DiskFull | Fault::DiskFullAndKilled | Fault::Fails | Fault::Rotated | Fault::Truncated => {
                self.happen_to_file(fault)
            }
        }
    }

    fn some_seconds(&mut self) {
        let time = self.random.time(1000, 4000);
        std::thread::sleep(time);
    }

    /// Replaces the pinned programs by others.
    fn replace(&mut self, and_killed: bool) -> Result<()> {
        if self.random.percent(50) {
            self.end()?;
        } else {
            self.kill()?;
        }
        self.turn.1 ^= 1;
        self.two_since = self.two_since.or(Some(Instant::now()));
        if and_killed {
            self.start_and_kill()?;
            // Chance decides which comes next.
            self.turn.1 ^= usize::from(self.random.percent(50));
        }
        self.start()?;
        self.wait("one set of programs", |lane| {
            lane.look_at_pins();
            Ok(lane.two_since.is_none())
        })
    }

    /// A fault of the output file.
    fn happen_to_file(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::DiskFull | Fault::DiskFullAndKilled => {
                self.on_disk()?.fill_disk()?;
                self.some_seconds();
                if fault == Fault::DiskFullAndKilled {
                    self.kill()?;
                    self.start()?;
                    self.some_seconds();
                }
                self.on_disk()?.free_disk()
            }
            Fault::Fails => {
                self.on_disk()?.fail()?;
                self.some_seconds();
                self.on_disk()?.heal()
            }
            Fault::Rotated => {
                let pid = self.pid()?;
                match self.random.below(3) {
                    0 => self.on_disk()?.rotate(|| send_signal(pid, libc::SIGHUP)),
                    1 => self.on_disk()?.rotate(|| Ok(())),
                    _ => self.on_disk()?.remove(),
                }
            }
            Fault::Truncated => {
                self.stop_still()?;
                self.on_disk()?.copy_and_truncate()?;
                self.signal(libc::SIGCONT)
            }
            _ => bail!("{fault:?} does not happen to a file"),
        }
    }
}

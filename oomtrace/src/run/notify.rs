//! Reports the state of the run to systemd (`sd_notify`), as datagrams to `$NOTIFY_SOCKET`.
//!
//! Nothing here waits, and errors are ignored: tracing must not depend on a service manager that does not
//! answer. Only the loop that empties the ring feeds the watchdog.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior};

/// The socket of the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    status: (u64, u64),
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_env() -> Self {
        let to = env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let address = match path.as_encoded_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&path),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let other = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
        let period = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && !other);
        Self { to, watchdog: period.map(Duration::from_micros), status: (0, 0) }
    }

    /// Reports that the programs are attached.
    pub fn ready(&self) {
        self.send("READY=1\nSTATUS=0 events reported, 0 lost");
    }

    /// Reports how many events were reported and lost, when these numbers have changed.
    pub fn status(&mut self, reported: u64, lost: u64) {
        if self.status != (reported, lost) {
            self.status = (reported, lost);
            self.send(&format!("STATUS={reported} events reported, {lost} lost"));
        }
    }

    /// Reports that the loop is running.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// Reports that the run ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// A timer that wakes the loop often enough for the watchdog. `None` if there is no watchdog.
    pub fn ticks(&self) -> Option<Interval> {
        // Half of the watchdog's period, as sd_watchdog_enabled(3) advises.
        let mut ticks = tokio::time::interval(self.watchdog? / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(ticks)
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.to {
            let _ignored = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

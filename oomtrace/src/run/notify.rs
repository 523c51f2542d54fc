//! Tells systemd how the run goes (`sd_notify`): states in, datagrams to `$NOTIFY_SOCKET` out.
//!
//! Nothing here waits, and nobody is told of a failure: a service manager that does not listen is no reason to
//! trace worse. The watchdog is fed by the loop that empties the ring, and by nothing else.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior};

/// The way to the service manager, if there is one.
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

    /// The programs are attached.
    pub fn ready(&self) {
        self.send("READY=1\nSTATUS=0 events told, 0 lost");
    }

    /// How the run goes; said when it changes.
    pub fn status(&mut self, told: u64, lost: u64) {
        if self.status != (told, lost) {
            self.status = (told, lost);
            self.send(&format!("STATUS={told} events told, {lost} lost"));
        }
    }

    /// The loop has gone round.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// The run ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Wakes the loop as often as it must go round; `None` if nobody watches.
    pub fn ticks(&self) -> Option<Interval> {
        // Twice as often as asked for, as sd_watchdog_enabled(3) advises.
        let mut ticks = tokio::time::interval(self.watchdog? / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(ticks)
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.to {
            let _nobody_listens = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

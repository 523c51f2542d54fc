//! The cost of a signal: the hook on `signal_generate` runs for each signal on the host.

use std::time::Instant;

use anyhow::{Result, ensure};

/// Signals in one measurement.
const SIGNALS: u32 = 200_000;
/// Measurements. Their median is used.
const TIMES: usize = 5;

/// ns of one `kill(2)` of this process to itself, with a signal that it ignores, so that nothing else
/// happens.
pub fn cost_ns() -> Result<f64> {
    // SAFETY: ignores a signal that nothing here uses.
    let before = unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    ensure!(before != libc::SIG_ERR, "signal: {}", std::io::Error::last_os_error());
    // SAFETY: takes nothing, cannot fail.
    let own = unsafe { libc::getpid() };
    let mut costs: Vec<f64> = (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..SIGNALS {
                // SAFETY: numbers only; the signal is ignored.
                unsafe { libc::kill(own, libc::SIGUSR1) };
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(SIGNALS)
        })
        .collect();
    costs.sort_unstable_by(f64::total_cmp);
    Ok(costs.get(TIMES / 2).copied().unwrap_or_default())
}

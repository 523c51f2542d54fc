//! The cost of a signal: the hook on `signal_generate` runs for each signal on the host.

use std::time::Instant;

use anyhow::{Result, ensure};

/// Signals in one measurement.
const SIGNALS: u32 = 200_000;
/// Measurements. The median is used.
const TIMES: usize = 5;

/// Children in one measurement of SIGKILLs.
const CHILDREN: usize = 400;

/// ns of one signal: of one that matters to nobody, and of a SIGKILL.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signals {
    /// One that is ignored.
    pub ignored: f64,
    /// One that ends a process.
    pub deadly: f64,
}

impl Signals {
    /// Measures both.
    pub fn measure() -> Result<Self> {
        Ok(Self { ignored: cost_ns()?, deadly: deadly_ns()? })
    }
}

/// ns of one SIGKILL to a child that waits: the median, because the children begin to end meanwhile.
fn deadly_ns() -> Result<f64> {
    let mut costs = Vec::new();
    for _ in 0..TIMES {
        let mut children = Vec::new();
        for _ in 0..CHILDREN {
            children.push(waiting_child()?);
        }
        for child in &children {
            let began = Instant::now();
            // SAFETY: numbers only; a child that has not been waited for.
            unsafe { libc::kill(*child, libc::SIGKILL) };
            costs.push(began.elapsed().as_secs_f64() * 1e9);
        }
        for child in children {
            // SAFETY: no status is asked for.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        }
    }
    costs.sort_unstable_by(f64::total_cmp);
    Ok(costs.get(costs.len() / 2).copied().unwrap_or_default())
}

fn waiting_child() -> Result<libc::pid_t> {
    // SAFETY: the child calls only what is safe after a fork.
    match unsafe { libc::fork() } {
        -1 => anyhow::bail!("fork: {}", std::io::Error::last_os_error()),
        0 => loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        },
        child => Ok(child),
    }
}

/// ns of one `kill(2)` of this process to itself, with a signal that it ignores, so that nothing else
/// happens.
fn cost_ns() -> Result<f64> {
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

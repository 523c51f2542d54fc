//! Victims that take long to die: another thread keeps a processor busy, and they run only when that thread
//! does not.

use std::mem::zeroed;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};

/// Keeps a processor busy until it is dropped.
pub struct BusyProcessor {
    number: usize,
    done: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl BusyProcessor {
    /// Uses the last processor that this process may run on.
    pub fn start() -> Result<Self> {
        // SAFETY: a set of processors is plain bits; the call fills one that lives through it.
        let allowed = unsafe {
            let mut set: libc::cpu_set_t = zeroed();
            ensure!(libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) == 0, "sched_getaffinity");
            set
        };
        // SAFETY: each number lies within the set.
        let of_set = |number: &usize| unsafe { libc::CPU_ISSET(*number, &allowed) };
        let numbers = 0..usize::try_from(libc::CPU_SETSIZE)?;
        let number = numbers.rev().find(of_set).unwrap_or_default();
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        let thread = thread::spawn(move || {
            let _ignored = pin(0, number);
            while !until.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        Ok(Self { number, done, thread: Some(thread) })
    }

    /// Restricts a process to this processor, and to the time that the others leave.
    pub fn takes(&self, pid: u32) -> Result<()> {
        let pid = i32::try_from(pid)?;
        ensure!(pin(pid, self.number), "sched_setaffinity of {pid}");
        let parameter = libc::sched_param { sched_priority: 0 };
        // SAFETY: the parameter is a local that lives through the call.
        let idle = unsafe { libc::sched_setscheduler(pid, libc::SCHED_IDLE, &raw const parameter) };
        ensure!(idle == 0, "sched_setscheduler of {pid}");
        Ok(())
    }
}

fn pin(pid: i32, number: usize) -> bool {
    // SAFETY: a set of processors is plain bits; the number is one of the set, which lives through the call.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(number, &mut set);
        libc::sched_setaffinity(pid, size_of_val(&set), &raw const set) == 0
    }
}

impl Drop for BusyProcessor {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ignored = thread.join();
        }
    }
}

//! The machine while it is measured. Changed settings are restored, also after Ctrl-C.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    ASKED_TO_END.store(true, Ordering::Relaxed);
}

/// After this, SIGINT and SIGTERM do not end the process: they end the next [`pause`], and so the run.
pub fn end_orderly_on_signals() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler: extern "C" fn(libc::c_int) = note;
        // SAFETY: the handler does nothing but store to an atomic.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        ensure!(before != libc::SIG_ERR, "signal: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Waits.
pub fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        ensure!(!ASKED_TO_END.load(Ordering::Relaxed), "interrupted");
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
}

/// bpftrace expects tracefs at a fixed place. If it is not there, it is mounted for this process and its
/// children only.
pub fn own_tracefs() -> Result<()> {
    if Path::new("/sys/kernel/tracing/events").exists() {
        return Ok(());
    }
    // SAFETY: takes a number; this process has one thread yet, and shares no mount namespace it must keep.
    ensure!(unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0, "unshare: {}", std::io::Error::last_os_error());
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE)?;
    mount(c"tracefs", c"/sys/kernel/tracing", c"tracefs", 0)
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) -> Result<()> {
    // SAFETY: strings ended by NUL; no data.
    let status =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    ensure!(status == 0, "mount {target:?}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Drops a file from the page cache. The next start reads it from the disk, as after a boot.
///
/// A file that was just written is in larger pieces there than one that was read. So more of a program stays
/// resident: 0.7 MiB more of oomtrace (ext4, Linux 6.18). Pages that a process has mapped stay.
pub fn drop_from_page_cache(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    // Only pages that are on the disk can be dropped.
    file.sync_data().with_context(|| format!("fdatasync {}", path.display()))?;
    // SAFETY: takes numbers only. The descriptor is open.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(error == 0, "posix_fadvise {}: {}", path.display(), std::io::Error::from_raw_os_error(error));
    Ok(())
}

/// A file of `/proc/sys` that has another value for a while.
#[derive(Debug)]
pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Changes it until this is dropped.
    pub fn change(path: &str, value: &str) -> Result<Self> {
        let before = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
        std::fs::write(path, value).with_context(|| path.to_owned())?;
        Ok(Self { path: path.into(), before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.path, &self.before) {
            crate::progress(&format!("{} was not restored: {error}", self.path.display()));
        }
    }
}

/// The machine on which the figures were measured.
pub fn description() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let cpuinfo = read("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let printk = read("/proc/sys/kernel/printk")?;
    Ok(format!(
        "Linux {}, {} CPUs ({}), load {} at the end, console log level {}.",
        read("/proc/sys/kernel/osrelease")?.trim(),
        std::thread::available_parallelism()?,
        model.map_or("unknown model", |(_, model)| model.trim()),
        read("/proc/loadavg")?.split(' ').take(3).collect::<Vec<_>>().join(" "),
        printk.split_whitespace().next().unwrap_or("unknown"),
    ))
}

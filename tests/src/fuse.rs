//! A file system that this program serves, with the raw protocol of `/dev/fuse` (include/uapi/linux/fuse.h):
//! one directory with one file. It answers until it is told to be silent, and never answers a write.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};

/// The one file.
pub const FILE: &str = "file";
const ROOT_NODE: u64 = 1;
const FILE_NODE: u64 = 2;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const BATCH_FORGET: u32 = 42;

/// Written pages stay in the kernel until they must go.
const WRITEBACK_CACHE: u32 = 1 << 16;
/// `FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE`: the kernel's cached pages of the file are dropped when it is mapped,
/// not when it is opened.
const DIRECT_IO: u32 = 1 | 2;

/// A mounted file system. A drop unmounts it and so ends all processes that wait for it.
#[derive(Debug)]
pub struct Fuse {
    dir: PathBuf,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    silent: AtomicBool,
    /// Requests that were not answered.
    waiting: AtomicU64,
    opened: AtomicU64,
}

impl Fuse {
    /// Mounts it on `dir` for everybody, as with `allow_other`. `uid` is its owner.
    pub fn mount(dir: &Path, uid: u32) -> Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").context("open /dev/fuse")?;
        let options =
            format!("fd={},rootmode=40000,user_id={uid},group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options)?;
        let target = c_path(dir)?;
        // SAFETY: strings that live through the call.
        let mounted = unsafe {
            libc::mount(
                c"oomtrace-test".as_ptr(),
                target.as_ptr(),
                c"fuse".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        ensure!(mounted == 0, "mount a FUSE on {}: {}", dir.display(), std::io::Error::last_os_error());
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let server =
            std::thread::Builder::new().name("fuse".into()).spawn(move || serve(&device, &theirs))?;
        Ok(Self { dir: dir.to_owned(), shared, server: Some(server) })
    }

    /// After this it answers nothing.
    pub fn be_silent(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    /// How many requests were not answered.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::SeqCst)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Ok(target) = c_path(&self.dir) {
            // The first call ends the waiting processes and the server. The second one detaches the mount
            // from processes that use it. SAFETY: a string that lives through the calls.
            unsafe {
                libc::umount2(target.as_ptr(), libc::MNT_FORCE);
                libc::umount2(target.as_ptr(), libc::MNT_DETACH);
            }
        }
        if let Some(server) = self.server.take() {
            let _panicked = server.join();
        }
    }
}

fn c_path(path: &Path) -> Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}

/// Serves until it is unmounted.
fn serve(device: &File, shared: &Shared) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match (&*device).read(&mut buffer) {
            Ok(read) => read,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT | libc::EAGAIN)) => {
                continue;
            }
            Err(_) => return,
        };
        let Some(request) = buffer.get(..read).and_then(Request::parse) else { return };
        if let Some(answer) = request.answer(shared) {
            let _ignored = (&*device).write_all(&answer);
        }
    }
}

struct Request<'a> {
    opcode: u32,
    unique: u64,
    node: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// `struct fuse_in_header`: 40 bytes.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let opcode = u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
        Some(Self { opcode, unique: number(8)?, node: number(16)?, body: bytes.get(40..)? })
    }

    /// The answer; `None` if there is none.
    fn answer(&self, shared: &Shared) -> Option<Vec<u8>> {
        if matches!(self.opcode, FORGET | BATCH_FORGET) {
            return None;
        }
        if self.opcode != INIT && shared.silent.load(Ordering::SeqCst) || self.opcode == WRITE {
            shared.waiting.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        Some(match self.opcode {
            INIT => self.says(&init()),
            LOOKUP if self.body.strip_suffix(b"\0") == Some(FILE.as_bytes()) => self.says(&entry(FILE_NODE)),
            LOOKUP => self.refuses(libc::ENOENT),
            GETATTR | SETATTR => self.says(&[&[0; 16][..], &attributes(self.node)].concat()),
            OPEN => {
                let first = shared.opened.fetch_add(1, Ordering::SeqCst) == 0;
                self.says(&opened(if first { 0 } else { DIRECT_IO }))
            }
            OPENDIR => self.says(&opened(0)),
            STATFS => self.says(&[0; 80]),
            FLUSH => self.says(&[]),
            _ => self.refuses(libc::ENOSYS),
        })
    }

    /// `struct fuse_out_header`: 16 bytes.
    fn framed(&self, error: i32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap_or(16);
        [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &self.unique.to_ne_bytes(), body].concat()
    }

    fn says(&self, body: &[u8]) -> Vec<u8> {
        self.framed(0, body)
    }

    fn refuses(&self, errno: i32) -> Vec<u8> {
        self.framed(-errno, &[])
    }
}

/// `struct fuse_init_out`: 64 bytes.
fn init() -> Vec<u8> {
    let numbers: [u32; 6] = [7, 31, 0, WRITEBACK_CACHE, 12 << 16 | 16, 4096];
    let mut body: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    body.extend(1_u32.to_ne_bytes());
    body.resize(64, 0);
    body
}

/// `struct fuse_entry_out`: the kernel must not cache it.
fn entry(node: u64) -> Vec<u8> {
    [&node.to_ne_bytes()[..], &[0; 32], &attributes(node)].concat()
}

/// `struct fuse_attr`: 88 bytes.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, links): (u32, u32) = if node == ROOT_NODE { (0o040_755, 2) } else { (0o100_666, 1) };
    let mut body = node.to_ne_bytes().to_vec();
    // Sizes and times.
    body.resize(60, 0);
    body.extend(mode.to_ne_bytes());
    body.extend(links.to_ne_bytes());
    body.resize(88, 0);
    body
}

/// `struct fuse_open_out`: 16 bytes.
fn opened(flags: u32) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(flags.to_ne_bytes());
    body.resize(16, 0);
    body
}

/// Mounts `lower` again below an overlay on `dir`: a file system type without a server program, above one
/// that has one. `lower` must answer at this time.
pub fn overlay(lower: &Path, scratch: &Path, dir: &Path) -> Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let text =
        |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| anyhow!("a path that is no text"));
    let options = format!("lowerdir={},upperdir={},workdir={}", text(lower)?, text(&upper)?, text(&work)?);
    let (options, target) = (std::ffi::CString::new(options)?, c_path(dir)?);
    // SAFETY: strings that live through the call.
    let mounted = unsafe {
        libc::mount(c"none".as_ptr(), target.as_ptr(), c"overlay".as_ptr(), 0, options.as_ptr().cast())
    };
    ensure!(mounted == 0, "mount an overlay on {}: {}", dir.display(), std::io::Error::last_os_error());
    Ok(())
}

/// Detaches a mount, also from processes that use it.
pub fn unmount(dir: &Path) {
    if let Ok(target) = c_path(dir) {
        // SAFETY: a string that lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

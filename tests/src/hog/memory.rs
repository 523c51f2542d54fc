//! Takes memory: each page is written once and kept until the process ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// At most the page size of every machine that runs this, so that no page is skipped.
const STEP: usize = 4096;

/// The kind of memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Private and anonymous.
    Anonymous,
    /// A mapping of a memory file that others could share.
    Shared,
}

/// Takes `bytes`, page by page.
pub(super) fn take(kind: Kind, bytes: usize) -> io::Result<()> {
    let file = match kind {
        Kind::Anonymous => None,
        Kind::Shared => {
            let file = memory_file()?;
            File::from(file.try_clone()?).set_len(bytes as u64)?;
            Some(file)
        }
    };
    let (flags, fd) = match &file {
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags | libc::MAP_NORESERVE, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Small pages, so that the figures grow evenly on every kernel. Without THP this fails, which is fine.
    // SAFETY: the mapping made above.
    let _advised = unsafe { libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE) };
    for offset in (0..bytes).step_by(STEP) {
        // SAFETY: inside the mapping made above, which nobody else knows and nobody unmaps.
        unsafe { start.cast::<u8>().add(offset).write_volatile(1) };
    }
    Ok(())
}

/// Takes `bytes` that are never swapped out.
pub(super) fn take_locked(bytes: usize) -> io::Result<()> {
    take_with(bytes, libc::MAP_LOCKED)
}

/// Takes `bytes` in one system call.
pub(super) fn take_at_once(bytes: usize) -> io::Result<()> {
    take_with(bytes, libc::MAP_POPULATE)
}

fn take_with(bytes: usize, how: libc::c_int) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | how;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Fills a memory file with `write`: if the cgroup's limit refuses it and no process can be killed, this
/// fails instead of faulting for ever. Returns the bytes written and the error.
pub(super) fn fill(bytes: u64) -> io::Result<(u64, Option<io::Error>)> {
    use std::io::Write;
    let mut file = File::from(memory_file()?);
    // New code needs page tables, which are charged too, and a fault without room for one would never end.
    // SAFETY: takes a number.
    if unsafe { libc::mlockall(libc::MCL_CURRENT) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let chunk = [1; STEP];
    let mut written = 0;
    while written < bytes {
        match file.write(&chunk) {
            Ok(more) => written += more as u64,
            Err(error) => return Ok((written, Some(error))),
        }
    }
    Ok((written, None))
}

/// Opens many files: each has an inode, a dentry and a file in the kernel's slab.
pub(super) fn descriptors(count: u64) -> io::Result<()> {
    /// As many as the kernel allows by default. A host may not give the privilege to raise the hard limit.
    const MOST: libc::rlim_t = 1 << 20;
    let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let most = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
    // SAFETY: the limits are alive through the calls, which fill the first and only read the others.
    let is_set = unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) == 0
            || libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut own) == 0 && {
                own.rlim_cur = own.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const own) == 0
            }
    };
    if !is_set {
        return Err(io::Error::last_os_error());
    }
    for _ in 0..count {
        std::mem::forget(memory_file()?);
    }
    Ok(())
}

/// Sends this much through connections whose other end does not read. Returns how much the buffers took.
pub(super) fn sockets(bytes: usize) -> io::Result<usize> {
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sent = 0;
    let chunk = vec![1; 64 << 10];
    for _ in 0..64 {
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        std::mem::forget(listener.accept()?);
        stream.set_nonblocking(true)?;
        while sent < bytes {
            match stream.write(&chunk) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        std::mem::forget(stream);
        if sent >= bytes {
            break;
        }
    }
    Ok(sent)
}

/// Writes a file of this size, and waits until it is on the disk.
pub(super) fn cache(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let chunk = vec![1; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&chunk)?;
    }
    file.sync_all()
}

/// Keeps all pages of a file that is there in memory, until this process ends.
pub(super) fn lock_file(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let (fd, how) = (file.as_raw_fd(), libc::MAP_SHARED | libc::MAP_LOCKED);
    // SAFETY: a new mapping of an open file at an address of the kernel's choice; nothing of it is used.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, how, fd, 0) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes `bytes` into a file that is there already. Its pages belong to this process's cgroup, and stay after its end.
pub(super) fn pour(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let chunk = [1; STEP];
    (0..bytes).step_by(STEP).try_for_each(|_| file.write_all(&chunk))
}

/// A file of memory, which is gone with the last descriptor of it.
pub fn memory_file() -> io::Result<OwnedFd> {
    // SAFETY: a name ended by NUL.
    let fd = unsafe { libc::memfd_create(c"hog".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: opened above and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Maps a file whose dirty pages must be written first, which its server never answers. The kernel waits for
/// that while it holds the lock of this process's memory.
pub(super) fn lock_for_ever(path: &Path) -> io::Result<()> {
    let mut written = File::options().read(true).write(true).open(path)?;
    written.write_all(b"x")?;
    let direct = File::options().read(true).write(true).open(path)?;
    let (read, private) = (libc::PROT_READ, libc::MAP_PRIVATE);
    // SAFETY: a new mapping of a file that is open; nothing of it is used.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, read, private, direct.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! Which files a program asks for, by ptrace(2): paths of its system calls, whether they are there or not.

use std::io::Error;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A stop at a system call, with `PTRACE_O_TRACESYSGOOD`.
const SYSCALL_STOP: libc::c_int = libc::SIGTRAP | 0x80;
const ENTRY: u8 = 1;

/// Calls whose second argument is a path.
const WITH_PATH: [libc::c_long; 6] = [
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
];

/// Runs the command to its end: the paths that its first thread asked for, and its exit code.
pub fn paths(command: &mut Command) -> (Vec<String>, i32) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: one system call between fork and exec, which touches no memory.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        });
    }
    let spawned = command.spawn();
    let mut child = spawned
        .unwrap_or_else(|why| panic!("{why}: ptrace(2) must be allowed (sysctl kernel.yama.ptrace_scope=1)"));
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut paths = Vec::new();
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    let mut stop = wait(pid);
    trace(libc::PTRACE_SETOPTIONS, pid, options.try_into().unwrap());
    while let Some(signal) = stop.signal() {
        if signal == SYSCALL_STOP
            && let Some(address) = path_argument(pid)
        {
            let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
            let mut bytes = [0; 256];
            let len = memory.read_at(&mut bytes, address).unwrap_or(0);
            let path = bytes[..len].split(|byte| *byte == 0).next().unwrap();
            paths.push(String::from_utf8_lossy(path).into_owned());
        }
        let pass_on = if matches!(signal, SYSCALL_STOP | libc::SIGTRAP) { 0 } else { signal };
        trace(libc::PTRACE_SYSCALL, pid, pass_on.try_into().unwrap());
        stop = wait(pid);
    }
    // Its end was seen above: there is nothing left to wait for.
    let _seen_already = child.wait();
    (paths, libc::WEXITSTATUS(stop.0))
}

struct Stop(libc::c_int);

impl Stop {
    /// The signal that it stopped at; `None` if it has ended.
    fn signal(&self) -> Option<libc::c_int> {
        libc::WIFSTOPPED(self.0).then(|| libc::WSTOPSIG(self.0))
    }
}

fn wait(pid: libc::pid_t) -> Stop {
    let mut status = 0;
    // SAFETY: the status is a local that lives through the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid, "{}", Error::last_os_error());
    Stop(status)
}

fn trace(request: libc::c_uint, pid: libc::pid_t, data: usize) {
    // SAFETY: numbers only.
    let done = unsafe { libc::ptrace(request, pid, 0, data) };
    assert_eq!(done, 0, "{}", Error::last_os_error());
}

/// Where the path of the call is that it is about to make, if it has one.
fn path_argument(pid: libc::pid_t) -> Option<u64> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes at most `size` bytes to what lives through the call; all of it was zeroed before.
    let (got, info) = unsafe {
        (libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr()), info.assume_init())
    };
    assert!(got > 0, "{}", Error::last_os_error());
    if info.op != ENTRY {
        return None;
    }
    // SAFETY: at the entry of a call this is what the kernel has written.
    let entry = unsafe { info.u.entry };
    let number = libc::c_long::try_from(entry.nr).unwrap();
    WITH_PATH.contains(&number).then_some(entry.args[1])
}

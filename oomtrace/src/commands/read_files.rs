//! `oomtrace read-files`: the child of a run that reads what a user may slow down. Requests on standard input, which is a
//! socket; answers on it too.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
};

use crate::{
    failure::{Code, Failure},
    host::{files, protection},
};

/// Reads files until nobody asks any more.
///
/// # Errors
/// If standard input is no socket, or who asks has gone amid an answer.
pub fn read_files() -> Result<(), Failure> {
    close_inherited();
    protection::no_core_dumps();
    let served = || {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        files::serve(&socket, &socket)
    };
    served().map_err(|error| Failure::message(Code::RunTime, format!("cannot answer: {error}")))
}

/// Closes what whoever started the run had open: if this process hangs, that must not stay locked, nor its pipes open.
fn close_inherited() {
    const FIRST: libc::c_int = 3;
    // SAFETY: nothing of this process's own is open yet but standard input, output and error, which are left.
    unsafe {
        // Before Linux 5.9 there is no such call.
        if libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) != 0 {
            for fd in FIRST..1024 {
                libc::close(fd);
            }
        }
    }
}

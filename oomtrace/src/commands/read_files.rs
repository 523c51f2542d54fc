//! `oomtrace read-files`: the child of a run that reads what a user can slow down. Standard input is a
//! socket, for requests and answers.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
};

use crate::{
    failure::{Code, Failure},
    host::{files, protection},
};

/// Reads files until the socket is closed.
///
/// # Errors
/// If standard input is not a socket, or the parent ends during an answer.
pub fn read_files() -> Result<(), Failure> {
    close_inherited();
    protection::no_core_dumps();
    let served = || {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        files::serve(&socket, &socket)
    };
    served().map_err(|error| Failure::message(Code::RunTime, format!("cannot answer: {error}")))
}

/// Closes inherited descriptors: if this process hangs, no lock may stay held and no pipe open.
fn close_inherited() {
    const FIRST: libc::c_int = 3;
    // SAFETY: this process has opened nothing yet but standard input, output and error, which stay open.
    unsafe {
        // Linux before 5.9 does not have this call.
        if libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) != 0 {
            for fd in FIRST..1024 {
                libc::close(fd);
            }
        }
    }
}

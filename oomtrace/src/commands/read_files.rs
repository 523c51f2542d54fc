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
    protection::no_core_dumps();
    let served = || {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        files::serve(&socket, &socket)
    };
    served().map_err(|error| Failure::message(Code::RunTime, format!("cannot answer: {error}")))
}

//! The address of the endpoint: parses it, and opens the listening socket.

use std::{
    env, fmt, fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
        sockopt::{socket_acceptconn, socket_type},
    },
};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 16;
/// The first descriptor that a service manager passes (sd_listen_fds(3)).
const FIRST_HANDED_IN: RawFd = 3;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and port of this host.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
    /// The socket that the service manager passes.
    HandedIn,
}

impl FromStr for Address {
    type Err = String;

    /// A port alone means loopback. Any other address must be given in full.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LIKE: &str = "an address is 127.0.0.1:9469, [::1]:9469, a port on loopback, unix:/PATH, or fd";
        if text == "fd" {
            return Ok(Self::HandedIn);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err("the path after unix: must be absolute".into());
            }
            return Ok(Self::Unix(path.into()));
        }
        let address = match text.parse::<u16>() {
            Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Err(_) => text.parse().ok().or_else(|| unbracketed(text)).ok_or(LIKE)?,
        };
        if address.port() == 0 {
            return Err("a port is 1 to 65535".into());
        }
        Ok(Self::Tcp(address))
    }
}

/// An address of IPv6 and a port without brackets: Kubernetes puts a pod's address into an argument as it is.
fn unbracketed(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    Some(SocketAddr::from((address.parse::<Ipv6Addr>().ok()?, port.parse().ok()?)))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::HandedIn => f.write_str("the socket that the service manager hands in"),
        }
    }
}

impl Address {
    /// Opens the listening socket, which does not block.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub(super) fn listen(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener.into())
            }
            Self::Unix(path) => listen_at(path),
            Self::HandedIn => handed_in(),
        }
    }

    /// A hint for the operator.
    pub fn hint(&self, error: &io::Error) -> &'static str {
        match (self, error.kind()) {
            (_, io::ErrorKind::AddrInUse) => {
                "another process uses this address: end it, or choose another address"
            }
            (Self::Unix(_), io::ErrorKind::AlreadyExists) => {
                "a file that is no socket has this name: remove it, or choose another path"
            }
            (Self::Tcp(_), io::ErrorKind::AddrNotAvailable) => "this host has no such address",
            (Self::HandedIn, _) => "start it with oomtrace-metrics.socket, and with --metrics-listen fd",
            (Self::Tcp(_), _) => {
                "the unit's sandbox allows no address: use oomtrace-metrics.socket and --metrics-listen fd"
            }
            (Self::Unix(_), _) => "its directory must be there and writable, and the name free",
        }
    }
}

/// Takes over a name that a dead process left. The name of a running process is in use.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    if let Ok(there) = fs::symlink_metadata(path) {
        let refused =
            || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if !there.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !refused() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Set before anybody can connect: only its owner and its group may.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The one socket that the service manager passes.
fn handed_in() -> io::Result<OwnedFd> {
    let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok();
    let other = |why: &str| io::Error::other(why.to_owned());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS").unwrap_or(0) == 0 {
        return Err(other("the service manager passed no socket"));
    }
    if number("LISTEN_FDS") != Some(1) {
        return Err(other("the service manager passed more than one socket"));
    }
    // SAFETY: by that protocol the descriptor belongs to this process, and nothing else here uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST_HANDED_IN) };
    if socket_type(&socket)? != SocketType::STREAM || !socket_acceptconn(&socket)? {
        return Err(other("the passed descriptor is not a listening stream socket"));
    }
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for (text, address) in [
            ("9469", tcp("127.0.0.1:9469")),
            ("127.0.0.1:9469", tcp("127.0.0.1:9469")),
            ("[::1]:9469", tcp("[::1]:9469")),
            ("fd00::1:9469", tcp("[fd00::1]:9469")),
            ("0.0.0.0:9469", tcp("0.0.0.0:9469")),
            ("unix:/run/m.sock", Address::Unix("/run/m.sock".into())),
            ("fd", Address::HandedIn),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), address, "{text}");
        }
        for text in
            ["", "0", "localhost:9469", ":9469", "127.0.0.1", "127.0.0.1:0", "unix:m.sock", "99999", "::1"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_of_a_dead_process_is_taken_over_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        let address = Address::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        let live = address.listen().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        assert_eq!(address.listen().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = address.listen().unwrap_err();
        assert!(address.hint(&error).starts_with("a file that is no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}

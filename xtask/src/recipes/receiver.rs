//! The receiver of a shipper: a port on loopback that keeps what arrives.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Result;

/// Messages that arrived, in order.
#[derive(Clone, Default)]
pub struct Arrived(Arc<Mutex<Vec<String>>>);

impl Arrived {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn add(&self, message: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }
}

/// Listens until the test ends. `read` takes one connection.
pub fn listen(read: fn(TcpStream, &Arrived) -> Result<()>) -> Result<(u16, Arrived)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let arrived = Arrived::default();
    let kept = arrived.clone();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let kept = kept.clone();
            // If the connection breaks, what has arrived so far is kept.
            thread::spawn(move || read(connection, &kept));
        }
    });
    Ok((port, arrived))
}

/// Syslog over TCP (RFC 6587): a length, a space, that many bytes. Keeps what follows the header of RFC 5424.
pub fn octet_counted(connection: TcpStream, arrived: &Arrived) -> Result<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let mut length = Vec::new();
        if reader.read_until(b' ', &mut length)? == 0 {
            return Ok(());
        }
        let length: u64 = String::from_utf8(length)?.trim().parse()?;
        let mut frame = String::new();
        (&mut reader).take(length).read_to_string(&mut frame)?;
        // Priority and version, time, host, program, process, type, data.
        arrived.add(frame.splitn(8, ' ').nth(7).unwrap_or_default().trim_end_matches('\n').to_owned());
    }
}

/// Elasticsearch's bulk interface: an action, a document, an action, … Always answers with success.
pub fn bulk(connection: TcpStream, arrived: &Arrived) -> Result<()> {
    requests(connection, "{\"errors\":false,\"items\":[]}", &|body| {
        for (place, line) in body.lines().enumerate() {
            let is_action = line == "{\"create\":{\"_index\":\"logs-oomtrace-default\"}}";
            match (place % 2 == 0, is_action) {
                (true, true) => {}
                (false, false) => arrived.add(line.to_owned()),
                _ => arrived.add(format!("out of step: {line}")),
            }
        }
    })
}

/// A webhook of Alertmanager's: each message as it came.
pub fn webhook(connection: TcpStream, arrived: &Arrived) -> Result<()> {
    requests(connection, "", &|body| arrived.add(body))
}

/// The bodies of HTTP requests with a length, each answered with success.
fn requests(connection: TcpStream, answer: &str, take: &dyn Fn(String)) -> Result<()> {
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        take(String::from_utf8(body)?);
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
}

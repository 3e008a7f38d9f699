//! A client of the daemon's own server.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::SOON;

/// Sends these bytes and gives all that comes back until the server hangs up.
pub fn exchange(mut stream: impl Read + Write, request: &[u8]) -> String {
    // A server that refuses early hangs up before all is written: that is its right.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// A connection to an address, that gives up after a while.
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Status, headers (in lower case) and body of an answer to GET; `more` are header lines.
pub fn get(address: &str, path: &str, more: &str) -> (u16, String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}\r\n");
    parse(&exchange(connect(address), request.as_bytes()))
}

/// The parts of an answer.
pub fn parse(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

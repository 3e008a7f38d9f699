//! An endpoint that costs as little as one can, a plain thread for each connection, and knows what came twice.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What stands before a download's number, in its path.
const BEFORE_NUMBER: &str = "/files/";

/// What has come.
#[derive(Debug, Default)]
pub struct Counts {
    posts: u64,
    events: u64,
    doubled: u64,
    seen: Vec<bool>,
    /// When the first and the last POST were answered.
    between: Option<(Instant, Instant)>,
}

/// What has come, shared, and who is told of each number.
#[derive(Clone, Default)]
pub struct Tally {
    counts: Arc<Mutex<Counts>>,
    /// Told the number of each download.
    told: Option<Sender<usize>>,
}

/// Prints the port and serves until it is killed.
pub fn serve(tally: &Tally) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let (stream, tally) = (stream?, tally.clone());
        // A peer that hangs up in the middle is counted for what it sent.
        std::thread::spawn(move || drop(converse(stream, &tally)));
    }
    Ok(())
}

fn converse(stream: TcpStream, tally: &Tally) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::with_capacity(64 * 1024, stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        line.clear();
        if requests.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let is_post = line.starts_with("POST ");
        let mut len = 0;
        loop {
            line.clear();
            requests.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                len = value.trim().parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case("expect") {
                answers.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
        }
        body.resize(len, 0);
        requests.read_exact(&mut body)?;
        if is_post {
            tally.take(&String::from_utf8_lossy(&body));
            answers.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")?;
        } else {
            let text = tally.text();
            write!(answers, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
        }
    }
}

impl Tally {
    /// One that tells what has come.
    pub fn telling(told: Sender<usize>) -> Self {
        Self { told: Some(told), ..Self::default() }
    }

    fn take(&self, body: &str) {
        let mut numbers: Vec<usize> = Vec::new();
        for (at, before) in body.match_indices(BEFORE_NUMBER) {
            let digits = body.get(at + before.len()..at + before.len() + 7);
            let Some(number) = digits.and_then(|digits| digits.parse().ok()) else { continue };
            // An event's URL is that of its page, too.
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
        if let Some(told) = &self.told {
            // Whoever measured has gone.
            numbers.iter().for_each(|number| told.send(*number).unwrap_or_default());
        }
        let now = Instant::now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.posts += 1;
        let first = counts.between.map_or(now, |(first, _)| first);
        counts.between = Some((first, now));
        for number in numbers {
            if counts.seen.len() <= number {
                counts.seen.resize(number + 1, false);
            }
            match std::mem::replace(&mut counts.seen[number], true) {
                true => counts.doubled += 1,
                false => counts.events += 1,
            }
        }
    }

    /// POSTs, distinct events, events that came again, and seconds from the first POST to the last.
    fn text(&self) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = counts.between.map_or(0.0, |(first, last)| last.duration_since(first).as_secs_f64());
        format!("{} {} {} {seconds:.3}\n", counts.posts, counts.events, counts.doubled)
    }
}

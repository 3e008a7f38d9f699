//! A web server's writing, and how long a line takes from there to the endpoint.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::log::{self, Random};
use crate::sink::{self, Tally};

const PIECE: usize = 64 * 1024;

/// Appends a file to another, so many bytes a second.
pub fn feed(from: &str, to: &str, rate: u64) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut to = OpenOptions::new().append(true).create(true).open(to)?;
    let mut piece = vec![0; PIECE];
    let (began, mut fed) = (Instant::now(), 0);
    loop {
        let len = from.read(&mut piece)?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&piece[..len])?;
        fed += len as u64;
        let due = Duration::from_secs_f64(fed as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

/// Serves as the endpoint, and measures with each line on standard input.
pub fn latency(log: &str, count: usize) -> io::Result<()> {
    let (told, arrived) = channel();
    std::thread::spawn(|| sink::serve(&Tally::telling(told)));
    let mut random = Random(1);
    let mut number = 0;
    for go in io::stdin().lock().lines() {
        go?;
        // The first one opens the connection.
        one(log, number, &arrived, &mut random)?;
        number += 1;
        let mut took = Vec::new();
        for _ in 0..count {
            took.push(one(log, number, &arrived, &mut random)?);
            number += 1;
            std::thread::sleep(Duration::from_millis(2 + random.below(10)));
        }
        took.sort_unstable();
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_micros();
        println!("{} lines: median {} us, 99 % {} us, longest {} us", took.len(), at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}

fn one(log: &str, number: u64, arrived: &Receiver<usize>, random: &mut Random) -> io::Result<Duration> {
    let mut line = Vec::new();
    log::download(
        &mut line,
        number * 100,
        number,
        &["Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Firefox/144.0"],
        random,
    )?;
    let mut file = OpenOptions::new().append(true).open(log)?;
    let began = Instant::now();
    file.write_all(&line)?;
    loop {
        let came = arrived.recv_timeout(Duration::from_secs(30)).map_err(io::Error::other)?;
        if came as u64 == number {
            return Ok(began.elapsed());
        }
    }
}

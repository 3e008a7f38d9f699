//! What the scripts beside it measure with: a log from a fixed seed, an endpoint that costs little and counts what comes
//! twice, and a web server's writing.
//!
//! It needs nothing but the standard library: `rustc -O --edition 2024 benches/tool/main.rs`.

mod live;
mod log;
mod sink;

use std::process::ExitCode;

const USAGE: &str = "\
tool generate SIZE             a log of that many bytes (64M, 1G) on standard output; how much is in it, on standard error
tool sink                      an endpoint: prints its port, answers every POST, GET /counts says what has come
tool feed FROM TO RATE         appends one file to another, so many bytes a second, 64 KiB at a time
tool latency LOG COUNT         an endpoint, too: prints its port, and with each line on standard input measures COUNT lines
                               from their appending to LOG until their POST is here";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["generate", size] => bytes(size).map(log::generate),
        ["sink"] => Some(sink::serve(&sink::Tally::default())),
        ["feed", from, to, rate] => bytes(rate).map(|rate| live::feed(from, to, rate)),
        ["latency", log, count] => count.parse().ok().map(|count| live::latency(log, count)),
        _ => None,
    };
    match done {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// A number of bytes, with or without a unit of 1,024.
fn bytes(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[number.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_shl(shift)
}

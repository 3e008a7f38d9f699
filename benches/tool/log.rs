//! A log in the `combined` format, the same every time: one line in a hundred is a download that counts, each by another
//! visitor, and two in a thousand come near to one.

use std::io::{self, Write};

/// Requests of a day at 52 a second.
const LINES_A_SECOND: u64 = 52;
/// The line in each hundred that counts.
const COUNTABLE: u64 = 37;

const BROWSERS: &str = include_str!("../../data/bots/fixtures/browsers.txt");
const CRAWLERS: [&str; 3] = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
];
const EXTENSIONS: [&str; 8] = ["pdf", "pdf", "pdf", "PDF", "docx", "xlsx", "zip", "csv"];
const PLACES: [&str; 6] = ["products", "support/articles", "blog/2026", "about", "research/publications", "services"];
const ASSETS: [(&str, &str); 6] = [
    ("/assets/css/main.", "css"),
    ("/assets/js/vendor.", "js"),
    ("/assets/js/app.", "js"),
    ("/media/cache/teaser/", "jpg"),
    ("/media/cache/gallery/", "webp"),
    ("/assets/fonts/inter-", "woff2"),
];

/// Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Writes a log of so many bytes, in whole lines, to standard output.
pub fn generate(size: u64) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let (bytes, lines, countable) = write(size, &mut out)?;
    out.flush()?;
    eprintln!("{bytes} bytes, {lines} lines, {countable} countable");
    Ok(())
}

/// The same to anywhere; says how many bytes, lines and countable lines these are.
pub fn write(size: u64, out: &mut impl Write) -> io::Result<(u64, u64, u64)> {
    // The long ones are rare: with the others a line is as long as on most servers.
    let browsers: Vec<&str> = BROWSERS.lines().filter(|agent| agent.len() <= 120).collect();
    let mut random = Random(20_261_110);
    let (mut written, mut lines, mut countable) = (0, 0, 0);
    let mut buffer = Vec::new();
    while written < size {
        buffer.clear();
        if lines % 100 == COUNTABLE {
            download(&mut buffer, lines, countable, &browsers, &mut random)?;
            countable += 1;
        } else {
            other(&mut buffer, lines, &browsers, &mut random)?;
        }
        out.write_all(&buffer)?;
        written += buffer.len() as u64;
        lines += 1;
    }
    Ok((written, lines, countable))
}

/// A download that counts; its path has its number, which the sink looks for.
pub fn download(out: &mut Vec<u8>, line: u64, number: u64, browsers: &[&str], random: &mut Random) -> io::Result<()> {
    // 198.18.0.0/15 is set aside for benchmarks (RFC 2544): a visitor for each of 131,072 downloads.
    write!(out, "198.{}.{}.{}", 18 + (number >> 16 & 1), number >> 8 & 255, number & 255)?;
    time(out, line)?;
    let (place, extension) = (random.of(&PLACES), random.of(&EXTENSIONS));
    write!(
        out,
        "\"GET /files/{number:07}/{place}/annual-report.{extension} HTTP/1.1\" 200 {}",
        random.below(5_000_000)
    )?;
    out.extend_from_slice(b" \"https://www.google.com/\" \"");
    end(out, random.of(browsers))
}

fn other(out: &mut Vec<u8>, line: u64, browsers: &[&str], random: &mut Random) -> io::Result<()> {
    write!(out, "192.0.2.{}", random.below(256))?;
    time(out, line)?;
    let page = random.below(3_000);
    let place = random.of(&PLACES);
    let browser = random.of(browsers);
    match random.below(1_000) {
        // What comes near: asked for and not sent, or not asked for as a whole, or not there.
        0 => write!(out, "\"HEAD /files/report-{page}.pdf HTTP/1.1\" 200 0 \"-\" \"")?,
        1 => write!(out, "\"GET /files/report-{page}.pdf HTTP/1.1\" 404 1432 \"-\" \"")?,
        2..100 => {
            write!(out, "\"GET /en/{place}/page-{page} HTTP/1.1\" 200 {} \"-\" \"", 8_000 + random.below(90_000))?;
            return end(out, random.of(&CRAWLERS));
        }
        100..150 => write!(out, "\"POST /api/v1/session HTTP/1.1\" 204 0 \"https://docs.example.org/en/\" \"")?,
        150..170 => write!(out, "\"GET /en/{place}/gone-{page} HTTP/1.1\" 404 1432 \"https://www.google.com/\" \"")?,
        170..450 => write!(
            out,
            "\"GET /en/{place}/page-{page}?utm_source=newsletter HTTP/1.1\" 200 {} \"https://www.google.com/\" \"",
            8_000 + random.below(90_000)
        )?,
        kind => {
            let (start, extension) = random.of(&ASSETS);
            let hash = random.below(1 << 32);
            let status = if kind < 600 { "304 0" } else { "200 48213" };
            write!(
                out,
                "\"GET {start}{hash:08x}.{extension} HTTP/1.1\" {status} \"https://docs.example.org/en/{place}/page-{page}\" \""
            )?;
        }
    }
    end(out, browser)
}

fn time(out: &mut Vec<u8>, line: u64) -> io::Result<()> {
    let seconds = line / LINES_A_SECOND;
    let (day, hour, minute, second) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    write!(out, " - - [{:02}/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] ", 10 + day % 20)
}

fn end(out: &mut Vec<u8>, user_agent: &str) -> io::Result<()> {
    out.extend_from_slice(user_agent.as_bytes());
    out.extend_from_slice(b"\"\n");
    Ok(())
}

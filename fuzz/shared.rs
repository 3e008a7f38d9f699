//! What the fuzz targets call, and what the corpus is run through by an ordinary test: anything goes in, nothing panics.

use jiff::tz::TimeZone;
use silktail::format::{BUILTIN, Format, Reading, detect};
use silktail::setup::{Dump, apache, configuration, nginx};

fn split(data: &[u8]) -> (String, &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (String::from_utf8_lossy(&data[..at]).into_owned(), data.get(at + 1..).unwrap_or_default())
}

fn read(format: &Format, log: &[u8]) {
    let mut reading = Reading::default();
    for line in log.split(|byte| *byte == b'\n') {
        if let Some(entry) = format.parse_in(&mut reading, line) {
            for field in silktail::entry::FIELDS {
                let _ = entry.text(field);
            }
        }
        let _ = format.misfit(line);
        let _ = format.is_ambiguous(line);
    }
}

/// Lines of a log, by every built-in format.
pub fn lines(data: &[u8]) {
    let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap_or(TimeZone::UTC);
    let formats: Vec<Format> = BUILTIN.iter().filter_map(|name| Format::builtin(name, &berlin)).collect();
    for format in &formats {
        read(format, data);
    }
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let _ = detect(&formats, &lines);
}

/// A format in the first line, in each notation, and lines to read by it.
pub fn log_format(data: &[u8]) {
    let (text, log) = split(data);
    let made = [
        Format::nginx("fuzzed", &text, TimeZone::UTC),
        Format::apache("fuzzed", &text, TimeZone::UTC),
        Format::regex("fuzzed", &text, None, TimeZone::UTC),
        Format::json(
            "fuzzed",
            &[("ip".to_owned(), text.clone()), ("request".to_owned(), "r".to_owned())],
            None,
            TimeZone::UTC,
        ),
        Format::json(
            "fuzzed",
            &[
                ("ip".to_owned(), "i".to_owned()),
                ("request".to_owned(), "r".to_owned()),
                ("time".to_owned(), "t".to_owned()),
            ],
            Some(&text),
            TimeZone::UTC,
        ),
    ];
    for format in made.iter().flatten() {
        read(format, log);
    }
}

/// A configuration; its report is rendered, too.
pub fn config(data: &[u8], folder: &std::path::Path) {
    let path = folder.join("config.toml");
    // What the fuzzer asks for must not reach out of its folder.
    let text = String::from_utf8_lossy(data).replace("include", "exclude").replace("_file", "_f1le").replace('/', "_");
    if std::fs::write(&path, text).is_ok() {
        match silktail::config::load(&path, &|_| None) {
            Ok(loaded) => drop(loaded.warnings.render(false)),
            Err(report) => drop(report.render(false)),
        }
    }
}

/// What a web server's configuration may be.
pub fn server_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let files = Dump::new([("/etc/nginx/nginx.conf", &*text)]);
    let main = std::path::Path::new("/etc/nginx/nginx.conf");
    if let Ok(setup) = nginx(main, &files) {
        drop(configuration(&[setup]));
    }
    if let Ok(setup) = apache(main, &files) {
        drop(configuration(&[setup]));
    }
    drop(Dump::of_nginx(&text));
}

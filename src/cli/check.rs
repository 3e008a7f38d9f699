//! `silktail check`: the configuration, and, as far as it can be seen from here, the logs.

use std::path::Path;

use super::{Failure, load, print, printable, say};
use crate::daemon::format_choice;
use crate::follow::source::Recall;
use crate::follow::{decide_format, discover, file};

/// The arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Logs that are missing, unreadable or don't fit are failures too
    #[arg(long)]
    strict: bool,
}

/// How many lines at a log's end are looked at.
const RECENT_LINES: usize = 1_000;
/// Bytes at a log's end in which those lines are looked for.
const RECENT_BYTES: usize = 1024 * 1024;

/// Checks the configuration and the logs.
pub fn run(config_path: &Path, args: &Args) -> Result<(), Failure> {
    let config = load(config_path)?;
    let mut warnings = 0;
    let mut warn = |text: String| {
        warnings += 1;
        say(&format!("warning: {text}"));
    };
    let mut out = String::new();
    for site in &config.sites {
        out.push_str(&format!("site {}\n", site.name));
        let choice = format_choice(site, &config.formats);
        for pattern in &site.logs {
            let paths = discover::expand(pattern);
            if paths.is_empty() {
                warn(format!("site `{}`: no file matches `{}` yet", site.name, printable(pattern)));
            }
            for path in paths {
                let shown = printable(&path.display().to_string());
                match look(&path, &choice) {
                    Ok(Looked::Empty) => out.push_str(&format!("  {shown}: no complete line yet\n")),
                    Ok(Looked::Lines { format, fit, of, misfit }) => {
                        out.push_str(&format!("  {shown}: `{format}`, {fit} of {of} recent lines fit\n"));
                        if let Some(line) = misfit {
                            let line: String = printable(&line).chars().take(300).collect();
                            warn(format!(
                                "{shown}: {} of {of} recent lines don't fit `{format}`; the first: {line}",
                                of - fit
                            ));
                        }
                    }
                    Err(error) => warn(format!("site `{}`: cannot read {shown}: {error}", site.name)),
                }
            }
        }
    }
    out.push_str(&format!("{}: the configuration is right\n", printable(&config_path.display().to_string())));
    print(&out)?;
    if args.strict && warnings > 0 { Err(Failure::Said(1)) } else { Ok(()) }
}

enum Looked {
    Empty,
    Lines { format: String, fit: usize, of: usize, misfit: Option<String> },
}

fn look(path: &Path, choice: &crate::follow::FormatChoice) -> std::io::Result<Looked> {
    let opened = file::open(path)?;
    let end = file::after_last_newline(&opened.file, opened.size)?;
    let recent = file::read_before(&opened.file, end, RECENT_BYTES)?;
    // The first line of the piece may have lost its beginning.
    let whole = if recent.len() as u64 == end { 0 } else { memchr::memchr(b'\n', &recent).map_or(0, |at| at + 1) };
    let lines: Vec<&[u8]> = recent[whole..].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    let lines = &lines[lines.len().saturating_sub(RECENT_LINES)..];
    let first = crate::follow::first_bytes(&opened)?;
    let Some(decided) = decide_format(choice, None, &first).filter(|_| !lines.is_empty()) else {
        return Ok(Looked::Empty);
    };
    let length: u64 = lines.iter().map(|line| line.len() as u64 + 1).sum();
    let mut recall = Recall::at(&opened.file, &decided.format, end - length)?;
    let fits: Vec<bool> =
        lines.iter().map(|line| decided.format.parse_in(&mut recall.reading, line).is_some()).collect();
    let fit = fits.iter().filter(|fits| **fits).count();
    let misfit = lines.iter().zip(&fits).find(|(_, fits)| !**fits);
    let misfit = misfit.map(|(line, _)| String::from_utf8_lossy(line).into_owned());
    Ok(Looked::Lines { format: decided.format.name().to_owned(), fit, of: lines.len(), misfit })
}

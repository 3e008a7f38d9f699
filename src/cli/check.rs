//! `silktail check`: the configuration, and, as far as it can be seen from here, the logs.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::owner::{self, Reach};
use super::test::expectations;
use super::{Failure, load, print, printable, say};
use crate::config::{Config, Lack, lacks};
use crate::daemon::{WINDOW_ENTRIES, format_choice, pipeline_site};
use crate::follow::scan::Recall;
use crate::follow::{FormatChoice, decide_format, discover, file};
use crate::lines::{Cut, Line};
use crate::oddities::{FrontProxy, Proxied};
use crate::offsets::{LogId, SiteId, Span};
use crate::pipeline::{Outcome, Pipeline, Site};
use crate::visitor::repeats::Repeats;

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
    let shared = shared(&config);
    let owner = owner::of_state(&config.state_dir);
    let unreadable = |path: &Path| {
        let owner = owner.as_ref()?;
        let Reach::No(at) = owner.reach(path) else { return None };
        Some(format!(
            "{}: `{}`, who owns the state and runs the service, can't read {}",
            printable(&path.display().to_string()),
            owner.name(),
            printable(&at.display().to_string())
        ))
    };
    config.files.iter().filter_map(|path| unreadable(path)).for_each(&mut warn);
    for site in &config.sites {
        out.push_str(&format!("site {}\n", site.name));
        let choice = format_choice(site, &config.formats);
        let judge = Arc::new(pipeline_site(site.clone(), SiteId(0)));
        let mut seen = HashSet::new();
        for pattern in &site.logs {
            let mut paths = discover::expand(pattern);
            if paths.is_empty() {
                warn(format!("site `{}`: no file matches `{}` yet", site.name, printable(pattern)));
            }
            // Two patterns may fit one file.
            paths.retain(|path| seen.insert(path.clone()));
            for path in paths {
                let shown = printable(&path.display().to_string());
                unreadable(&path).into_iter().for_each(&mut warn);
                let sharing = shared.get(&real(&path)).map(Vec::as_slice).unwrap_or_default();
                if let Some((other, name)) =
                    sharing.first().filter(|(other, name)| *other != site.name && *name != path)
                    && (site.hosts.is_none()
                        || config.sites.iter().any(|one| one.name == *other && one.hosts.is_none()))
                {
                    warn(format!(
                        "{shown}: it is {}, which is site `{other}`'s, too, by another name: give both sites `hosts`, so \
                         that each line can be given to one of them",
                        printable(&name.display().to_string())
                    ));
                }
                match look(&path, &choice, &judge) {
                    Ok(Looked::Packed) => out.push_str(&format!("  {shown}: an archive, which is read once\n")),
                    Ok(Looked::Empty) => out.push_str(&format!("  {shown}: no complete line yet\n")),
                    Ok(Looked::Lines { known: false, format, fit, of, misfit, .. }) => {
                        out.push_str(&format!(
                            "  {shown}: no known format, {fit} of {of} recent lines fit `{format}`\n"
                        ));
                        let line: String = printable(&misfit.unwrap_or_default()).chars().take(300).collect();
                        warn(format!(
                            "{shown}: none of the known formats fits: {} of {of} recent lines don't fit `{format}`; paste \
                             the server's own format line into [formats] and name it in the site's `format`; the \
                             first: {line}",
                            of - fit
                        ));
                    }
                    Ok(Looked::Lines { format, fit, of, misfit, proxied, host, lacks, .. }) => {
                        for Lack { what, so, help } in lacks {
                            warn(format!("site `{}`, {shown}: {what}: {so}; {help}", site.name));
                        }
                        if !host && sharing.len() > 1 {
                            warn(format!(
                                "{shown}: sites share it, and `{format}` has no host: its lines can be given to none of \
                                 them; log the host, as vhost_combined does"
                            ));
                        }
                        out.push_str(&format!("  {shown}: `{format}`, {fit} of {of} recent lines fit\n"));
                        if let Some(line) = misfit {
                            let line: String = printable(&line).chars().take(300).collect();
                            warn(format!(
                                "{shown}: {} of {of} recent lines don't fit `{format}`; the first: {line}",
                                of - fit
                            ));
                        }
                        if let Some(found) = proxied {
                            warn(format!("{shown}: {}: {}", found.what(), Proxied::HINT));
                        }
                    }
                    Err(error) => warn(format!("site `{}`: cannot read {shown}: {error}", site.name)),
                }
            }
        }
    }
    let failed = expectations(&config)?;
    if !config.tests.is_empty() {
        out.push_str(&format!("{} of {} expectations hold\n", config.tests.len() - failed, config.tests.len()));
    }
    if failed == 0 {
        out.push_str(&format!("{}: the configuration is right\n", printable(&config_path.display().to_string())));
    }
    print(&out)?;
    if failed > 0 || args.strict && warnings > 0 { Err(Failure::Said(1)) } else { Ok(()) }
}

/// The sites that read each log, and what they call it: all names of a file are one log.
fn shared(config: &Config) -> HashMap<PathBuf, Vec<(&str, PathBuf)>> {
    let mut logs: HashMap<PathBuf, Vec<(&str, PathBuf)>> = HashMap::new();
    for site in &config.sites {
        for path in site.logs.iter().flat_map(|pattern| discover::expand(pattern)) {
            let sites = logs.entry(real(&path)).or_default();
            if sites.iter().all(|(name, _)| *name != site.name) {
                sites.push((&site.name, path));
            }
        }
    }
    logs
}

/// A file's name without links, where that can be told.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

enum Looked {
    Packed,
    Empty,
    /// `known`: by its first lines, the log is in a format that is known.
    Lines {
        known: bool,
        /// Its format has the host.
        host: bool,
        /// What the site asks for and it doesn't have; where the configuration names the format, that has said so.
        lacks: Vec<Lack>,
        format: String,
        fit: usize,
        of: usize,
        misfit: Option<String>,
        proxied: Option<Proxied>,
    },
}

fn look(path: &Path, choice: &FormatChoice, site: &Arc<Site>) -> std::io::Result<Looked> {
    let opened = file::open(path)?;
    if opened.file.is_packed() {
        return Ok(Looked::Packed);
    }
    let end = file::after_last_newline(&opened.file, opened.size)?;
    let recent = file::read_before(&opened.file, end, RECENT_BYTES)?;
    // The first line of the piece may have lost its beginning.
    let whole = if recent.len() as u64 == end { 0 } else { memchr::memchr(b'\n', &recent).map_or(0, |at| at + 1) };
    let lines: Vec<&[u8]> = recent[whole..].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    let lines = &lines[lines.len().saturating_sub(RECENT_LINES)..];
    let first = crate::follow::deciding_bytes(&opened.file)?;
    let Some(decided) = decide_format(choice, None, &first).filter(|_| !lines.is_empty()) else {
        return Ok(Looked::Empty);
    };
    let format = decided.format.name().to_owned();
    let lacks = match choice {
        FormatChoice::Auto(_) => lacks(&decided.format, &site.rules, site.bots.as_deref(), &site.trusted_proxies),
        FormatChoice::Fixed(_) => Vec::new(),
    };
    let (decided_by_fit, host) = (decided.fits, decided.format.gives("host"));
    let length: u64 = lines.iter().map(|line| line.len() as u64 + 1).sum();
    let mut recall = Recall::at(&opened.file, &decided.format, end - length)?;
    let pipeline = Pipeline::new(decided.format, vec![Arc::clone(site)]);
    let mut repeats = Repeats::new([0; 16], WINDOW_ENTRIES);
    let mut clients = FrontProxy::default();
    let (mut fit, mut misfit, mut proxied) = (0, None, None);
    for (index, line) in (0_u64..).zip(lines) {
        let cut = Cut::Line(Line { bytes: line, span: Span { start: index, end: index + 1 } });
        let taken = pipeline.take(cut, LogId(0), &mut recall.reading, &mut repeats);
        if taken.outcome == Outcome::Unparsed {
            misfit.get_or_insert_with(|| String::from_utf8_lossy(line).into_owned());
        } else {
            fit += 1;
        }
        proxied = proxied.or(taken.client.and_then(|client| clients.see(client)));
    }
    let proxied = proxied.or_else(|| clients.finding().filter(|_| clients.is_enough()));
    // The first lines may be another format's than the recent ones.
    let known = decided_by_fit || fit * 2 > lines.len();
    Ok(Looked::Lines { known, host, lacks, format, fit, of: lines.len(), misfit, proxied })
}

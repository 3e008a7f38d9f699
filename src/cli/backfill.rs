//! `silktail backfill`: which files, which sites, the question before the first POST, the summary.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Failure, load, print, print_json, printable, say, say_json};
use crate::backfill::{
    self, BackfillError, Counted, End, Extent, Input, Job, Kept, Moment, Options, Outlet, Period, Progress,
};
use crate::background::Background;
use crate::config::{self, Config};
use crate::daemon::{WINDOW_ENTRIES, delivery_site, format_choice, pipeline_site};
use crate::deliver::Delivery;
use crate::follow::{discover, file};
use crate::journal;
use crate::ledger::{self, Ledger, Role};
use crate::offsets::SiteId;
use crate::outbox::{Rooms, Settler};
use crate::pipeline::Site;
use crate::report;
use crate::summary::Summary;
use crate::visitor::repeats::Repeats;

/// The arguments of `backfill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Logs to read, or `-` for standard input; without one, every site's logs with their rotated siblings
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The site whose events these are; required where a PATH belongs to no site's `logs`
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Print each POST's JSON body instead of sending it; record nothing
    ///
    /// The state isn't looked at: what earlier runs have sent is shown as well.
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
    /// Only lines from this moment on: RFC 3339, or a date (its midnight in the log's time zone)
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Only lines before this moment
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// Nothing older than this: 12h, 30d
    ///
    /// What is older stays unread, and can be sent by a later backfill.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
    /// Send what was sent already, too
    ///
    /// Each of those events is then counted twice or more. Stopped, or ended by --limit, it begins anew the next time.
    #[arg(long)]
    again: bool,
    /// Stop after N POSTs; the same command goes on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// POSTs a second at most
    ///
    /// Without it: `max_in_flight`, and slowing down when the endpoint answers 429 or 503.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Threads that read at most [default: the cores]
    ///
    /// The POSTs are the same for any number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How it shows where it is, on standard error
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    progress: How,
    /// Run at the usual priority
    ///
    /// Without it the web server comes first: CPU and disk are taken as they are left over (nice 19).
    #[arg(long)]
    full_priority: bool,
    /// Write the summary as a page, with plots
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Don't ask before sending
    ///
    /// The API has no time field: everything is recorded as happening now. Needed without a terminal and when reading
    /// standard input.
    #[arg(long)]
    yes: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum How {
    /// A bar on a terminal, else a line every 30 s; nothing with `--json`
    #[default]
    Auto,
    /// A JSON object a second
    Json,
    /// Not at all
    Off,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "write a number and a unit, ten years at most: 30s, 12h, 30d".to_owned())
}

/// Reads old logs.
pub fn run(config_path: &Path, args: &Args) -> Result<(), Failure> {
    let config = load(config_path)?;
    journal::start(journal::Form::Text);
    let chosen = choose(&config, args)?;
    if chosen.is_empty() {
        return Err(Failure::Failed("no log to read: no file matches any site's `logs`".to_owned()));
    }
    if !args.full_priority {
        // The disk's priority follows the CPU's (ioprio_set(2)). Where it isn't allowed, it is no worse than before.
        let _ = rustix::process::nice(19);
    }
    let oldest = args.max_age.and_then(|age| jiff::Timestamp::now().checked_sub(age).ok());
    if args.since.zip(args.until).is_some_and(|(since, until)| !until.may_follow(since)) {
        return Err(Failure::Usage("--until is not after --since: nothing lies between them".to_owned()));
    }
    let period = Period { since: args.since, until: args.until, oldest };
    let mut chosen = in_order(chosen, &config, args.paths.is_empty())?;
    let found = chosen.len();
    chosen.retain(|(_, extent)| period.may_hold(extent));
    if chosen.len() < found {
        say(&format!("{} files are outside this period, as their ends show, and not read", found - chosen.len()));
    }
    if !args.dry_run {
        confirm(&chosen, args)?;
    }
    let report = args.report.as_deref().map(open_report).transpose()?;
    let bytes = chosen.iter().map(|(_, extent)| extent.bytes).sum();
    let stops = Arc::new(AtomicUsize::new(0));
    count_stops(&stops, args.again).map_err(|error| Failure::Failed(format!("cannot handle signals: {error}")))?;
    let stop = || stops.load(Ordering::Relaxed) > 0;

    let ledger = if args.dry_run {
        None
    } else {
        Some(Ledger::open(&config.state_dir, Role::Beside).map_err(|error| Failure::from_error(&error))?)
    };
    let mut ids = HashMap::new();
    for (index, site) in config.sites.iter().enumerate() {
        let id = match &ledger {
            Some(ledger) => ledger.site(&site.name).map_err(|error| Failure::from_error(&error))?,
            None => SiteId(i64::try_from(index).unwrap_or(i64::MAX)),
        };
        ids.insert(site.name.clone(), id);
    }
    let id_of = |site: &config::Site| ids.get(&site.name).copied().unwrap_or(SiteId(0));
    let progress = Arc::new(Progress::default());
    let options = Options {
        linger: config.sites.iter().map(|site| (id_of(site), site.endpoint.linger)).collect(),
        max_events: config.endpoint.max_events,
        max_line: config.follow.max_line,
        limit: args.limit,
        again: args.again,
        period,
        jobs: args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from),
        followed: config.sites.iter().flat_map(|site| site.logs.iter().cloned()).collect(),
        progress: Arc::clone(&progress),
    };
    let mut deliveries: Vec<_> = config.sites.iter().map(|site| delivery_site(site, id_of(site))).collect();
    for settings in &mut deliveries {
        // `max_age` is of `run`; here `--max-age` is.
        settings.endpoint.max_age = Duration::ZERO;
        settings.endpoint.max_rate = args.rate.unwrap_or(settings.endpoint.max_rate);
    }
    let keys = config.sites.iter().map(|site| (id_of(site), site.property_key.clone())).collect();
    let choices: Vec<_> = config.sites.iter().map(|site| format_choice(site, &config.formats)).collect();
    let sites: Vec<Arc<Site>> = config
        .sites
        .into_iter()
        .map(|site| {
            let id = ids.get(&site.name).copied().unwrap_or(SiteId(0));
            Arc::new(pipeline_site(site, id))
        })
        .collect();
    let only = args.site.as_ref().and_then(|name| ids.get(name).copied());
    let jobs: Vec<Job> = chosen
        .into_iter()
        .filter_map(|(chosen, extent)| {
            let first = chosen.sites.iter().find(|index| only.is_none_or(|only| sites[**index].id == only));
            let format = choices.get(*first?)?.clone();
            let sites = chosen.sites.iter().filter_map(|index| sites.get(*index).map(Arc::clone)).collect();
            Some(Job { input: chosen.input, sites, only, format, first: extent.first })
        })
        .collect();

    let shown = Shown::start(&progress, bytes, args.progress, args.json);
    let failed = |error: &dyn std::error::Error| Failure::from_error(error);
    let (summary, end) = match ledger {
        None => {
            let repeats = Repeats::new([0; 16], WINDOW_ENTRIES);
            let done = backfill::run(jobs, &Outlet::DryRun(keys), repeats, &options, &stop);
            done.map_err(|error| match error {
                // `| head`
                BackfillError::Write(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Failure::Said(0),
                error => failed(&error),
            })?
        }
        Some(ledger) => {
            ledger.has_room().map_err(|error| failed(&error))?;
            let mut repeats = Repeats::new(ledger.secret(), WINDOW_ENTRIES);
            repeats.restore(ledger.touches().map_err(|error| failed(&error))?.into_iter());
            let background = Background::start().map_err(|error| failed(&error))?;
            let rooms = Arc::new(Rooms::default());
            let counts = Arc::new(Mutex::new((0, 0)));
            let settler = Settler { ledger: ledger.clone(), rooms: Arc::clone(&rooms), wakes: None };
            let delivery = {
                let _inside = background.enter();
                let counted =
                    Arc::new(Counted { settler, counts: Arc::clone(&counts), progress: Arc::clone(&progress) });
                Arc::new(Delivery::start(deliveries, counted).map_err(|error| failed(&error))?)
            };
            let outlet = Outlet::Send { delivery: Arc::clone(&delivery), rooms, ledger: ledger.clone() };
            let done = backfill::run(jobs, &outlet, repeats, &options, &stop);
            // What waits is read again by the run that goes on; what is under way gets its answer, whatever has ended this.
            background.block_on(delivery.stop(Duration::ZERO, crate::daemon::STOP_GRACE));
            let (mut summary, end) = done.map_err(|error| failed(&error))?;
            ledger.sync().map_err(|error| failed(&error))?;
            summary.requests = delivery.requests();
            (summary.delivered, summary.rejected) = *counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (summary, end)
        }
    };
    shown.finish();
    let concluded = conclude(&summary, &end, args);
    if let Some((path, mut file)) = report {
        let page = report::page(&summary, args.dry_run);
        let written = file.set_len(0).and_then(|()| file.write_all(page.as_bytes()));
        return concluded.and(written.map_err(|error| cannot_write(path, &error)));
    }
    concluded
}

/// Opens the report's file: what can't be written is to be known before anything is sent.
fn open_report(path: &Path) -> Result<(&Path, std::fs::File), Failure> {
    // It quotes lines of logs.
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).write(true).truncate(false).mode(0o640).open(path);
    file.map(|file| (path, file)).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot write `{}`: {error}", printable(&path.display().to_string())))
}

/// Shows on standard error how far it is: a bar on a terminal, else a line every 30 s.
struct Shown {
    bar: Option<indicatif::ProgressBar>,
    ended: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Shown {
    fn start(progress: &Arc<Progress>, bytes: u64, how: How, quiet: bool) -> Self {
        let quiet = how == How::Off || how == How::Auto && quiet;
        let terminal = std::io::stderr().is_terminal() && !quiet && how == How::Auto;
        let bar = terminal.then(|| {
            let bar = indicatif::ProgressBar::new(bytes);
            let looks = "{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left\n{msg}";
            if let Ok(style) = indicatif::ProgressStyle::with_template(looks) {
                bar.set_style(style);
            }
            bar
        });
        let (end, ended) = std::sync::mpsc::channel();
        let (progress, drawn) = (Arc::clone(progress), bar.clone());
        let watch = move || {
            let every = Duration::from_millis(match how {
                How::Json => 1_000,
                _ if drawn.is_some() => 100,
                _ => 30_000,
            });
            let began = Instant::now();
            loop {
                let over = ended.recv_timeout(every) != Err(RecvTimeoutError::Timeout);
                if !quiet {
                    show(&progress, bytes, began, how, drawn.as_ref(), over);
                }
                if over {
                    return;
                }
            }
        };
        // Without the thread there is no picture, and nothing else is missing.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(watch).ok();
        Self { bar, ended: thread.map(|thread| (end, thread)) }
    }

    fn finish(self) {
        if let Some((end, thread)) = self.ended {
            drop(end);
            let _ = thread.join();
        }
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows once where it is; `over`: for the last time.
fn show(progress: &Progress, total: u64, began: Instant, how: How, bar: Option<&indicatif::ProgressBar>, over: bool) {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (bytes, lines, events, posts) =
        (of(&progress.bytes), of(&progress.lines), of(&progress.events), of(&progress.posts));
    let seconds = began.elapsed().as_secs_f64();
    let finished = progress.finished.lock().map(|mut finished| std::mem::take(&mut *finished)).unwrap_or_default();
    let finished = finished.iter().map(|path| printable(&path.display().to_string()));
    if how == How::Json {
        let finished: Vec<String> = finished.collect();
        say(&serde_json::json!({
            "bytes": bytes, "total_bytes": total, "lines": lines, "events": events, "posts": posts,
            "seconds": seconds, "finished": finished,
        })
        .to_string());
        return;
    }
    let a_second = |count: u64| count as f64 / seconds.max(0.001);
    match bar {
        Some(bar) => {
            finished.for_each(|path| bar.println(format!("{path}: done")));
            bar.set_position(bytes.min(total));
            bar.set_message(format!(
                "{lines} lines, {:.0} a second; {events} events; {posts} POSTs, {:.0} a second",
                a_second(lines),
                a_second(posts)
            ));
        }
        None => {
            finished.for_each(|path| say(&format!("{path}: done")));
            if !over {
                say(&format!(
                    "at {bytes} of {total} bytes, {lines} lines, {events} events, {posts} POSTs ({:.0} a second)",
                    a_second(posts)
                ));
            }
        }
    }
}

fn conclude(summary: &Summary, end: &End, args: &Args) -> Result<(), Failure> {
    let text = if args.json {
        let json = serde_json::to_string(summary).map_err(|error| Failure::Failed(error.to_string()))?;
        format!("{json}\n")
    } else {
        summary.text(args.dry_run, printable)
    };
    // The POSTs of a dry run are the data; the summary then stands beside them.
    match (args.dry_run, args.json) {
        (true, true) => say_json(text.trim_end()),
        (true, false) => say(text.trim_end()),
        (false, true) => print_json(&text)?,
        (false, false) => print(&text)?,
    }
    match end {
        End::Left(why) => Err(Failure::Failed(why.clone())),
        End::Done if summary.rejected > 0 => {
            Err(Failure::Failed(format!("the endpoint refused {} events for good", summary.rejected)))
        }
        End::Done => Ok(()),
    }
}

/// An input with the sites (indices into the configuration) that read it.
struct Chosen {
    input: Input,
    sites: Vec<usize>,
}

fn choose(config: &Config, args: &Args) -> Result<Vec<Chosen>, Failure> {
    let only = match &args.site {
        None => None,
        Some(name) => Some(config.sites.iter().position(|site| site.name == *name).ok_or_else(|| {
            let names: Vec<&str> = config.sites.iter().map(|site| site.name.as_str()).collect();
            Failure::Usage(format!("no site is named `{}`; there are: {}", printable(name), names.join(", ")))
        })?),
    };
    let mut chosen = Vec::new();
    let mut of_stdin = None;
    if args.paths.is_empty() {
        let mut paths: Vec<(PathBuf, Vec<usize>)> = Vec::new();
        // There may be thousands of both: none is looked for among all others, and each directory is listed once.
        let mut places: HashMap<PathBuf, usize> = HashMap::new();
        let mut inodes: HashMap<(u64, u64), PathBuf> = HashMap::new();
        let mut directories = discover::Directories::default();
        for (index, site) in config.sites.iter().enumerate() {
            let mut names: Vec<PathBuf> = site.logs.iter().flat_map(|pattern| discover::expand(pattern)).collect();
            names.extend(site.logs.iter().flat_map(|pattern| discover::absent(pattern)));
            for path in names {
                // Two names of one file are one log, as `run` has it.
                let inode = file::inode(&path).ok();
                let path = inode.map_or(path.clone(), |inode| inodes.entry(inode).or_insert(path).clone());
                let place = *places.entry(path).or_insert_with_key(|path| {
                    paths.push((path.clone(), Vec::new()));
                    paths.len() - 1
                });
                let sites = &mut paths[place].1;
                if !sites.contains(&index) {
                    sites.push(index);
                }
            }
        }
        for (path, sites) in paths {
            // Who else reads it says which of its lines are this site's.
            if only.is_some_and(|only| !sites.contains(&only)) {
                continue;
            }
            for sibling in directories.siblings(&path).into_iter().map(|sibling| sibling.path) {
                // Other logs lie beside it, too, whose visitors are nobody's business here.
                if places.contains_key(&sibling) || !discover::is_rotated(&sibling, &path) {
                    continue;
                }
                chosen.push(Chosen { input: Input::File { path: sibling, live: false }, sites: sites.clone() });
            }
            if path.exists() {
                chosen.push(Chosen { input: Input::File { path, live: true }, sites });
            }
        }
        return Ok(chosen);
    }
    let paths: Vec<PathBuf> = args.paths.iter().flat_map(|path| spread(path)).collect();
    if let (true, [pattern, ..]) = (paths.is_empty(), args.paths.as_slice()) {
        return Err(Failure::Failed(format!("no file matches `{}`", printable(&pattern.display().to_string()))));
    }
    let logs = Logs::of(config);
    for path in &paths {
        let stdin = path.as_os_str() == "-";
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        // As the configuration calls it, however it was called here.
        let log = if stdin { None } else { logs.find(path, &absolute) };
        let absolute = log.map_or(absolute, Path::to_path_buf);
        let readers = |index: usize| logs.are_read_by(index, &absolute);
        let readers: Vec<usize> =
            if stdin { Vec::new() } else { (0..config.sites.len()).filter(|index| readers(*index)).collect() };
        let sites: Vec<usize> = match only {
            Some(only) if readers.contains(&only) => readers,
            Some(only) => logs.shared_with(only),
            None if stdin => {
                if config.sites.len() == 1 {
                    vec![0]
                } else {
                    Vec::new()
                }
            }
            None => readers,
        };
        if sites.is_empty() {
            let shown = printable(&path.display().to_string());
            if let (false, Err(error)) = (stdin, path.metadata()) {
                return Err(Failure::Usage(format!("cannot read `{shown}`: {error}")));
            }
            return Err(Failure::Usage(format!(
                "`{shown}` belongs to no site's `logs`: say whose it is with --site NAME"
            )));
        }
        if stdin {
            if of_stdin.replace(sites).is_some() {
                return Err(Failure::Usage("standard input can be read once: `-` stands here twice".to_owned()));
            }
            continue;
        }
        if !path.is_file() {
            let shown = printable(&path.display().to_string());
            return Err(Failure::Failed(format!("cannot read `{shown}`: not a file")));
        }
        chosen.push(Chosen { input: Input::File { path: absolute, live: log.is_some() }, sites });
    }
    if let Some(sites) = of_stdin {
        if !args.yes && !args.dry_run {
            return Err(nobody_to_ask());
        }
        chosen.push(Chosen { input: Input::Stdin(Arc::new(kept(&config.state_dir)?)), sites });
    }
    Ok(chosen)
}

/// Standard input, in a file that has no name: beside the state, or where that can't be written to, where temporary files
/// may be large.
fn kept(state_dir: &Path) -> Result<Kept, Failure> {
    let places = [state_dir, Path::new("/var/tmp")];
    let place = places.into_iter().find(|place| tempfile::tempfile_in(place).is_ok()).unwrap_or(state_dir);
    Kept::of(std::io::stdin(), place).map_err(|error| {
        Failure::Failed(format!(
            "cannot keep standard input in `{}` while it is read: {error}; make room there, or name the files themselves",
            printable(&place.display().to_string())
        ))
    })
}

fn nobody_to_ask() -> Failure {
    Failure::Usage("nobody can be asked here: say --yes, or look first with --dry-run".to_owned())
}

/// A log's name, and its device and inode, if it is there.
type Named = (PathBuf, Option<(u64, u64)>);

/// The logs that the configuration names, by site.
struct Logs(Vec<Vec<Named>>);

impl Logs {
    fn of(config: &Config) -> Self {
        let with_inode = |log: PathBuf| {
            let inode = file::inode(&log).ok();
            (log, inode)
        };
        let of_site = |site: &config::Site| {
            site.logs.iter().flat_map(|pattern| discover::expand(pattern)).map(with_inode).collect()
        };
        Self(config.sites.iter().map(of_site).collect())
    }

    /// Which of them a path is: by another spelling, or through a link, it is the same one, to which a server writes.
    fn find(&self, path: &Path, absolute: &Path) -> Option<&Path> {
        let all = || self.0.iter().flatten();
        let by_name = all().find(|(log, _)| *log == *absolute || *log == *path);
        let inode = || file::inode(path).ok();
        let found = by_name.or_else(|| inode().and_then(|inode| all().find(|(_, known)| *known == Some(inode))));
        found.map(|(log, _)| log.as_path())
    }

    /// The sites that read a log of this one's, itself among them.
    fn shared_with(&self, site: usize) -> Vec<usize> {
        let own: HashSet<&Path> = self.0.get(site).into_iter().flatten().map(|(log, _)| log.as_path()).collect();
        let shares =
            |index: &usize| *index == site || self.0[*index].iter().any(|(log, _)| own.contains(log.as_path()));
        (0..self.0.len()).filter(shares).collect()
    }

    /// Whether a path is one of a site's logs, or a rotated one beside it.
    fn are_read_by(&self, site: usize, path: &Path) -> bool {
        let inode = file::inode(path).ok();
        let is_its = |(log, known): &Named| {
            log == path || (known.is_some() && *known == inode) || discover::siblings(log).iter().any(|one| one == path)
        };
        self.0.get(site).is_some_and(|logs| logs.iter().any(is_its))
    }
}

/// A directory's files; what a pattern that the shell left alone matches; else the path itself.
fn spread(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        return files;
    }
    let pattern = path.display().to_string();
    if !path.exists() && discover::is_glob(&pattern) {
        return discover::expand(&pattern);
    }
    vec![path.to_path_buf()]
}

/// The inputs with what their ends show: oldest first, but for the order of what was named on the command line.
fn in_order(chosen: Vec<Chosen>, config: &Config, by_age: bool) -> Result<Vec<(Chosen, Extent)>, Failure> {
    let mut all = Vec::new();
    for chosen in chosen {
        let site = chosen.sites.first().and_then(|index| config.sites.get(*index));
        let Some(choice) = site.map(|site| format_choice(site, &config.formats)) else { continue };
        let extent = backfill::extent(&chosen.input, &choice).map_err(|error| {
            Failure::Failed(format!("cannot read `{}`: {error}", printable(&chosen.input.path().display().to_string())))
        })?;
        all.push((chosen, extent));
    }
    if by_age {
        // Stable: what has no time stays where it was found.
        all.sort_by_key(|(_, extent)| extent.first);
    }
    Ok(all)
}

/// Says what will be recorded as happening now, and asks.
fn confirm(chosen: &[(Chosen, Extent)], args: &Args) -> Result<(), Failure> {
    let shown = |time: Option<jiff::Timestamp>| {
        let zone = jiff::tz::TimeZone::system();
        time.map_or_else(|| "?".to_owned(), |time| time.to_zoned_datetime(zone).strftime("%F %T %Z").to_string())
    };
    // The end of an archive isn't looked at: its last line was written before the archive was.
    let until = |extent: &Extent| {
        let before = if extent.is_packed { "before " } else { "" };
        format!("{before}{}", shown(extent.last))
    };
    let mut bytes = 0;
    for (chosen, extent) in chosen {
        bytes += extent.given;
        let name = match &chosen.input {
            Input::File { path, .. } => printable(&path.display().to_string()),
            Input::Stdin(_) => "standard input".to_owned(),
        };
        say(&format!("  {name}: {} bytes, {} to {}", extent.given, shown(extent.first), until(extent)));
    }
    let first = chosen.iter().filter_map(|(_, extent)| extent.first).min();
    let last = chosen.iter().map(|(_, extent)| extent).max_by_key(|extent| extent.last);
    let inputs = if chosen.len() == 1 { "1 input".to_owned() } else { format!("{} inputs", chosen.len()) };
    say(&format!(
        "{inputs}, {bytes} bytes, {} to {}: their events will be recorded as happening now (the API has no time field)",
        shown(first),
        last.map_or_else(|| "?".to_owned(), until)
    ));
    if args.again {
        say("--again: what was sent already is sent again, and counts again");
    }
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(nobody_to_ask());
    }
    let _ = write!(std::io::stderr(), "Send them? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::Failed(format!("cannot read the answer: {error}")))?;
    if answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(Failure::Failed("nothing was sent".to_owned()))
}

/// The first signal finishes what is in flight, the second ends the process. A terminal that is closed is one; whoever
/// says `nohup` wants to be spared that.
fn count_stops(stops: &Arc<AtomicUsize>, again: bool) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    let all = [SIGTERM, SIGINT, SIGQUIT, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP));
    let mut signals = signal_hook::iterator::Signals::new(all)?;
    let stops = Arc::clone(stops);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            ledger::hurry();
            if stops.fetch_add(1, Ordering::Relaxed) > 0 {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            say(match again {
                false => "stopping: what is in flight is finished; the same command goes on from here",
                true => "stopping: what is in flight is finished; with --again the same command begins anew",
            });
        }
    })?;
    Ok(())
}

/// Whether whoever started this process has it ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored >> (signal - 1) & 1 == 1
}

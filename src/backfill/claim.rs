//! Opens an input: which log it is, and what of it is left to read, for whom.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::ahead::Bytes;
use super::collect::Outlet;
use super::stream::{self, Part, Stream};
use super::{Job, Trouble, Work};
use crate::follow::file::{self, Opened};
use crate::follow::identity::{self, Who};
use crate::follow::known::Known;
use crate::follow::source::{self, Reader};
use crate::follow::{self, rewritten};
use crate::format::{Format, Reading};
use crate::ledger::{Fingerprint, Ledger, LedgerError, LogRow, overlaps};
use crate::lines::{Cut, Cutter};
use crate::offsets::{LogId, SiteId};
use crate::pipeline::{Pipeline, Site};

/// Readers that begin at the same place, and where they end.
pub(super) type Ranges = BTreeMap<(u64, u64), Vec<(Option<usize>, BTreeSet<u64>)>>;

/// What became of an input that was to be opened.
pub(super) enum Opening {
    Stream(Box<Stream>),
    /// It has no line yet.
    Empty,
    /// A log that is being read begins alike. Whether it is the same is known once that has been read.
    Later,
}

impl Work<'_> {
    /// Up to where this run has read a log for a site.
    fn seen_to(&self, site: Option<SiteId>, log: LogId) -> u64 {
        self.seen.get(&(site, log)).copied().unwrap_or(0)
    }

    /// Which of the known logs an input is.
    fn known(&mut self, job: &Job, opened: &Opened) -> Result<Option<Arc<LogRow>>, Trouble> {
        let known = self.identified(job.input.path(), opened)?;
        match known {
            Some(row) if self.is_another_sites(job, opened, &row)? => Ok(None),
            known => Ok(known),
        }
    }

    /// Whether a site's own log only has the same lines as another site's: one client may have asked both for the same. The
    /// daemon follows them as two, too.
    fn is_another_sites(&self, job: &Job, opened: &Opened, row: &LogRow) -> Result<bool, Trouble> {
        let inode = (row.dev, row.ino);
        if !job.input.is_live()
            || inode == (opened.dev, opened.ino)
            || !file::inode(&row.path).is_ok_and(|at| at == inode)
        {
            return Ok(false);
        }
        for site in job.wanted().map(|site| site.id) {
            let is_known = match self.ledger() {
                Some(ledger) => ledger.has_read(site, row.id)?,
                None => self.seen.contains_key(&(Some(site), row.id)),
            };
            if is_known {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which of the known logs a file is, by its content.
    fn identified(&mut self, path: &Path, opened: &Opened) -> Result<Option<Arc<LogRow>>, Trouble> {
        for asked in [false, true] {
            let rows = self.known.rows();
            match identity::identify(path, opened, rows, |_| true, &HashMap::new())? {
                Who::New | Who::Copy => return Ok(None),
                // Its content says so, and what more a daemon may know of it by now can't contradict that.
                Who::Known(index) if asked || rows[index].fingerprint.head_len > 0 || opened.size == 0 => {
                    return Ok(Some(Arc::clone(&rows[index])));
                }
                Who::CutBack(index, _) if asked => return Ok(Some(Arc::clone(&rows[index]))),
                Who::Known(_) | Who::CutBack(..) => self.ask_again()?,
            }
        }
        Ok(None)
    }

    /// Takes over what a daemon has learnt of logs meanwhile.
    fn ask_again(&mut self) -> Result<(), LedgerError> {
        if let Outlet::Send { ledger, .. } = self.collector.outlet {
            self.known = Known::of(ledger)?;
        }
        Ok(())
    }

    /// Opens an input, and claims what is left to read of it.
    pub(super) fn open<'s>(
        &mut self,
        job: &Job,
        mut others: impl Iterator<Item = &'s Stream>,
    ) -> Result<Opening, Trouble> {
        let mut job = Cow::Borrowed(job);
        let live = job.input.is_live();
        let path = job.input.path().to_path_buf();
        let opened = job.input.open()?;
        let head = identity::head(&opened)?;
        if others.any(|other| other.row.fingerprint.head_len > 0 && other.row.fingerprint.agrees_head(&head)) {
            return Ok(Opening::Later);
        }
        let mut first_lines = follow::deciding_bytes(&opened.file)?;
        if !live && !first_lines.contains(&b'\n') {
            first_lines.push(b'\n');
        }
        let (mut row, decided) = loop {
            let known = self.known(&job, &opened)?;
            let stored = known.as_ref().and_then(|row| row.format.as_deref());
            let Some(decided) = follow::decide_format(&job.format, stored, &first_lines) else {
                return Ok(Opening::Empty);
            };
            if let (Some(only), false) = (job.only, decided.format.gives("host")) {
                // Whoever names the site says whose all of these lines are: they don't.
                job.to_mut().sites.retain(|site| site.id == only);
            }
            if let Some(known) = known {
                // With what a daemon has learnt of it since: all of it is stored again.
                let newer = match self.ledger() {
                    Some(ledger) if !self.seen.contains_key(&(None, known.id)) => ledger.log(known.id)?,
                    _ => None,
                };
                break (newer.unwrap_or_else(|| LogRow::clone(&known)), decided);
            }
            if self.was_changed(&job, &path, &opened, (&decided.format, &first_lines))? {
                return Ok(Opening::Empty);
            }
            // Of few lines `run` decides again.
            let format = (decided.is_final || opened.file.is_packed()).then(|| decided.format.name());
            if let Some(row) = self.add(&path, &opened, format)? {
                if let Some(ledger) = self.ledger() {
                    let first = rewritten::first_requests(&decided.format, &first_lines, ledger.secret());
                    ledger.keep_first(row.id, &first)?;
                }
                self.known.put(row.clone());
                break (row, decided);
            }
            // A daemon has taken a log in meanwhile, and it may be this one.
            self.ask_again()?;
        };
        stream::complete_head(&mut row, &opened.file)?;
        let live = live && !opened.file.is_packed();
        let size = if live { file::after_last_newline(&opened.file, opened.size)? } else { opened.size };
        let meant = self.meant(&opened, &decided.format, size)?;
        let timeless = meant.is_none().then(|| {
            let path = path.display();
            format!("no line of `{path}` has a time that its format knows: --since, --until and --max-age leave it out")
        });
        let meant = meant.unwrap_or_default();
        let ranges = self.ranges(&row, &job, size, &meant, &decided.format)?;
        let repeated = if self.options.again { self.covered(&row, &job, size, &meant)? } else { Ranges::new() };
        let passed = ranges.keys().chain(repeated.keys()).copied().collect();
        self.count_passed_over(&opened, passed, &meant, (&row, &job))?;
        let new = ranges.into_iter().map(|range| (true, range));
        let again = repeated.into_iter().map(|range| (false, range));
        let max_line = self.options.max_line;
        let parts = new.chain(again).map(|(recording, (bounds, readers))| {
            let reader = |(site, settled)| Reader::new(site, Cutter::new(bounds.0, max_line), settled);
            Part { recording, bounds, readers: readers.into_iter().map(reader).collect() }
        });
        Ok(Opening::Stream(Box::new(Stream {
            parts: parts.collect(),
            file: stream::witness(&opened.file)?,
            on_disk: stream::on_disk(&opened.file),
            bytes: Some(Bytes::of(opened.file)),
            read_to: 0,
            size,
            row,
            path,
            pipeline: Arc::new(Pipeline::new(decided.format, job.sites.clone())),
            max_line,
            shown: 0,
            current: None,
            waiting: Vec::new(),
            left: timeless,
            is_damaged: false,
        })))
    }

    /// Whether a file that nobody knows is a log that these sites' readers have read, and whose bytes were changed since.
    fn was_changed(
        &mut self,
        job: &Job,
        path: &Path,
        opened: &Opened,
        lines: (&Format, &[u8]),
    ) -> Result<bool, Trouble> {
        let Outlet::Send { ledger, .. } = self.collector.outlet else { return Ok(false) };
        if self.options.again || path == Path::new("-") {
            return Ok(false);
        }
        let related = self.known.related(path);
        let Some((_, row)) = rewritten::which(path, opened, lines, ledger, None, related)? else {
            return Ok(false);
        };
        for site in job.wanted() {
            if !ledger.has_read(site.id, row.id)? {
                return Ok(false);
            }
        }
        // What isn't sent yet may be nowhere else.
        if !rewritten::is_settled(ledger, row.id, job.wanted().map(|site| site.id))? {
            return Ok(false);
        }
        tracing::warn!(
            path = %path.display(), log = %row.path.display(),
            hint = "`--again` sends it all; `--again --until` what is older than what was read",
            "a log was changed after it was read, passing it over"
        );
        Ok(true)
    }

    /// Takes a new log in; `None`: there is a newer one than the newest that was known.
    fn add(&mut self, path: &Path, opened: &Opened, format: Option<&str>) -> Result<Option<LogRow>, Trouble> {
        let mut row = LogRow {
            id: LogId(0),
            path: path.into(),
            dev: opened.dev,
            ino: opened.ino,
            fingerprint: Fingerprint::of_head(&identity::head(opened)?),
            format: format.map(Arc::from),
            last_read: None,
            // Nobody writes to standard input's any more, and nobody will find it.
            ended: path == Path::new("-"),
        };
        row.id = match self.ledger() {
            Some(ledger) => match ledger.add_log(&row, self.known.newest(), None)? {
                Some(id) => id,
                None => return Ok(None),
            },
            None => {
                self.ids += 1;
                LogId(self.ids)
            }
        };
        Ok(Some(row))
    }

    /// The stretches of whole lines that the period holds; `None`: it has lines, and none of them a time. A line without one
    /// belongs to the one before it.
    fn meant(&self, opened: &Opened, format: &Format, size: u64) -> Result<Option<Vec<(u64, u64)>>, Trouble> {
        let period = &self.options.period;
        if period.is_all() {
            return Ok(Some(vec![(0, size)]));
        }
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut cutter = Cutter::new(0, self.options.max_line);
        let mut buffer = vec![0; source::BLOCK.max(self.options.max_line.saturating_add(2))];
        let mut inside = None;
        let mut leading = 0;
        let mut is_timeless = false;
        let mut reading = Reading::default();
        let mut take = |cut: Cut<'_>| {
            let entry = match cut {
                Cut::Line(line) => format.parse_in(&mut reading, line.bytes),
                Cut::TooLong(_) => None,
            };
            if let (Some(entry), Cut::Line(line)) = (&entry, cut) {
                is_timeless |= entry.time.is_none() && !format.is_directive(line.bytes);
            }
            let holds = entry.and_then(|entry| {
                let offset = entry.offset.and_then(|seconds| jiff::tz::Offset::from_seconds(seconds).ok());
                let zone = offset.map(TimeZone::fixed);
                Some(period.holds(entry.time?, zone.as_ref().unwrap_or(format.zone())))
            });
            let Some(holds) = holds.or(inside) else { return };
            let span = cut.span();
            let first = inside.is_none();
            inside = Some(holds);
            if holds {
                // What stands before the first time (a header) goes with it.
                let start = if first { leading } else { span.start };
                match runs.last_mut() {
                    Some(last) if last.1 == start => last.1 = span.end,
                    _ => runs.push((start, span.end)),
                }
            } else {
                leading = span.end;
            }
        };
        loop {
            let at = cutter.wants();
            let want = usize::try_from(size.saturating_sub(at)).unwrap_or(buffer.len()).min(buffer.len());
            let filled = file::read_at(&opened.file, &mut buffer[..want], at)?;
            let mut bytes = &buffer[..filled];
            while let Some(cut) = cutter.next_line(&mut bytes) {
                take(cut);
            }
            if filled == 0 || cutter.wants() == at {
                if let Some(cut) = cutter.last_line(bytes) {
                    take(cut);
                }
                return Ok((inside.is_some() || !is_timeless).then_some(runs));
            }
        }
    }

    /// What is left to read, and for whom; the claims on it are in the ledger when this returns.
    fn ranges(
        &self,
        row: &LogRow,
        job: &Job,
        size: u64,
        meant: &[(u64, u64)],
        format: &Format,
    ) -> Result<Ranges, Trouble> {
        let mut ranges = Ranges::new();
        let sites = &job.sites;
        for index in job.readers() {
            let seen_to = self.seen_to(index.map(|index| sites[index].id), row.id);
            let Some(ledger) = self.ledger() else {
                for stretch in overlaps(meant, seen_to, u64::MAX) {
                    ranges.entry(stretch).or_default().push((index, BTreeSet::new()));
                }
                continue;
            };
            let site = index.map(|index| sites[index].id);
            let digest = index.map(|index| digest(format, &sites[index]));
            if let (Some(site), Some(digest)) = (site, digest) {
                let reopened = ledger.reopen(site, row.id, digest)?;
                self.collector.state.borrow_mut().summary.read_again += reopened as u64;
            }
            // Most were never followed, and nobody need be asked; of what a daemon begins with now nothing is taken over.
            let is_followed = ledger.position(site, row.id)?.is_none() || self.is_followed(row, ledger)?;
            for range in ledger.claim((site, row.id), is_followed, size, meant, digest)? {
                let start = range.from.max(seen_to);
                for (from, until) in overlaps(meant, start, range.until) {
                    if range.resumed && from != start {
                        // Its lines are settled in their order; what lies before these must come first.
                        tracing::warn!(
                            path = %row.path.display(), offset = range.from,
                            hint = "run the earlier command again, then this one",
                            "an earlier backfill of this log isn't finished, and what it has left is not in this period"
                        );
                        continue;
                    }
                    let settled = range.settled.iter().copied().collect();
                    ranges.entry((from, until)).or_default().push((index, settled));
                }
            }
        }
        Ok(ranges)
    }

    /// Whether what `run` has begun of a log is its own: it will go on with it, or is there now, and may have read what it
    /// hasn't sent, also of a log that its configuration has no more.
    fn is_followed(&self, row: &LogRow, ledger: &Ledger) -> Result<bool, Trouble> {
        let fits = |pattern: &String| follow::discover::is_for(pattern, &row.path);
        Ok(self.options.followed.iter().any(fits) || ledger.has_a_daemon()?)
    }

    /// What earlier runs have settled, to be sent again.
    fn covered(&self, row: &LogRow, job: &Job, size: u64, meant: &[(u64, u64)]) -> Result<Ranges, Trouble> {
        let mut ranges = Ranges::new();
        let Some(ledger) = self.ledger() else { return Ok(ranges) };
        for index in job.readers() {
            let site = index.map(|index| job.sites[index].id);
            for (from, until) in ledger.covered(site, row.id)? {
                for stretch in overlaps(meant, from.max(self.seen_to(site, row.id)), until.min(size)) {
                    ranges.entry(stretch).or_default().push((index, BTreeSet::new()));
                }
            }
        }
        Ok(ranges)
    }

    /// Counts the lines that are meant and that no site reads again: an earlier run has settled them, or they are a
    /// daemon's, which hasn't yet.
    fn count_passed_over(
        &self,
        opened: &Opened,
        mut read: Vec<(u64, u64)>,
        meant: &[(u64, u64)],
        (row, job): (&LogRow, &Job),
    ) -> Result<(), Trouble> {
        read.sort_unstable();
        let mut settled_to = u64::MAX;
        if let Some(ledger) = self.ledger() {
            for site in job.wanted() {
                let position = ledger.position(Some(site.id), row.id)?;
                settled_to = position.map_or(settled_to, |position| settled_to.min(position.watermark));
            }
        }
        let (mut passed, mut left) = (0, 0);
        for (start, end) in meant {
            let mut at = *start;
            for (from, until) in read.iter().copied().chain([(*end, *end)]) {
                let from = from.min(*end);
                passed += lines_in(opened, at, from.min(settled_to))?;
                left += lines_in(opened, at.max(settled_to), from)?;
                at = at.max(until.min(*end));
            }
        }
        let summary = &mut self.collector.state.borrow_mut().summary;
        summary.already_sent += passed;
        summary.left_to_run += left;
        Ok(())
    }
}

/// How many lines a stretch has; the last of a log that nobody writes any more may lack its newline.
fn lines_in(opened: &Opened, from: u64, until: u64) -> io::Result<u64> {
    let (mut at, mut lines, mut last) = (from, 0, b'\n');
    let mut block = Vec::new();
    while at < until {
        let want = usize::try_from(until - at).unwrap_or(source::BLOCK).min(source::BLOCK);
        block.resize(want, 0);
        let filled = file::read_at(&opened.file, &mut block, at)?;
        if filled == 0 {
            break;
        }
        lines += memchr::memchr_iter(b'\n', &block[..filled]).count() as u64;
        at += filled as u64;
        last = block[filled - 1];
    }
    Ok(lines + u64::from(last != b'\n'))
}

/// What decides which lines become events, as a number: the format, and all of a site but where its events go.
fn digest(format: &Format, site: &Site) -> u64 {
    let Site { context, hosts, rules, bots, exclude_ips, trusted_proxies, respect_dnt, repeat_window, .. } = site;
    let text = format!(
        "{} {} {context:?} {hosts:?} {rules:?} {bots:?} {exclude_ips:?} {trusted_proxies:?} {respect_dnt} {repeat_window:?}",
        format.name(),
        format.text(),
    );
    let mut hasher = siphasher::sip::SipHasher13::new();
    std::hash::Hasher::write(&mut hasher, text.as_bytes());
    std::hash::Hasher::finish(&hasher)
}

//! From virtual hosts to sites: whose log is whose, and which sites can be told apart. Pure.
//!
//! A name on port 80 and on port 443 is one site. A log that several sites write is theirs by `hosts` where its format
//! has the host; where it hasn't, it is left out for sites with a log of their own, and the others become one.

use std::collections::HashMap;

use jiff::tz::TimeZone;

use super::{Form, Log, Piece, Place, Server, Setup, Sink, Trouble, Vhost};
use crate::format::{BUILTIN, Format};

/// What stands where only the user knows the host.
pub(super) const UNKNOWN_HOST: &str = "example.org";

/// What is to be written down.
#[derive(Debug)]
pub(super) struct Plan {
    pub formats: Vec<OwnFormat>,
    pub sites: Vec<Site>,
    /// What was left out or couldn't be read.
    pub troubles: Vec<Trouble>,
}

/// A table of `[formats]`.
#[derive(Debug)]
pub(super) struct OwnFormat {
    pub name: String,
    /// `nginx` or `apache`.
    pub key: &'static str,
    pub text: String,
}

/// A `[[site]]`.
#[derive(Debug)]
pub(super) struct Site {
    pub name: String,
    pub server: Server,
    pub places: Vec<Place>,
    /// The host of `base_url`; `None`: to be filled in.
    pub host: Option<String>,
    pub tls: bool,
    /// Patterns; none: to be filled in.
    pub logs: Vec<String>,
    /// `auto`, or a name.
    pub format: String,
    /// Empty where every line is the site's.
    pub hosts: Vec<String>,
    pub notes: Vec<String>,
}

/// A character of a log's pattern; `None` stands for any number of them.
type Pattern = Vec<Option<char>>;

/// A site in the making.
struct Draft<'s> {
    name: String,
    server: Server,
    names: Vec<String>,
    tls: bool,
    vhosts: Vec<&'s Vhost>,
    entries: Vec<Entry>,
    notes: Vec<String>,
}

/// A log of a draft.
struct Entry {
    pattern: Pattern,
    /// Index of its form; `None`: nothing can read it.
    form: Option<usize>,
    /// Whether it has the requests of all virtual hosts, and not only of those that write no other.
    is_everybodys: bool,
}

/// The forms of all logs, each once.
#[derive(Default)]
struct Forms {
    known: Vec<(Form, Result<Format, String>)>,
}

impl Forms {
    fn add(&mut self, form: &Form) -> usize {
        if let Some(at) = self.known.iter().position(|(known, _)| known == form) {
            return at;
        }
        let zone = TimeZone::UTC;
        let read = match form {
            Form::Builtin(name) => Format::builtin(name, &zone).ok_or_else(|| format!("there is no format `{name}`")),
            Form::Nginx { name, text } => {
                Format::nginx(name, text, zone).map_err(|error| format!("the format `{name}` can't be used: {error}"))
            }
            Form::Apache { name, text } => Format::apache(name, text, zone).map_err(|error| {
                format!(
                    "the format `{name}` can't be used: \
                 {error}"
                )
            }),
            Form::Unknown(name) => Err(format!("nothing defines the format `{name}`")),
        };
        self.known.push((form.clone(), read));
        self.known.len() - 1
    }

    fn format(&self, form: usize) -> Option<&Format> {
        self.known.get(form)?.1.as_ref().ok()
    }

    fn gives_host(&self, form: Option<usize>) -> bool {
        form.and_then(|form| self.format(form)).is_some_and(|format| format.gives("host"))
    }
}

/// Plans sites for what was found.
pub(super) fn plan(setups: &[Setup]) -> Plan {
    let mut troubles: Vec<Trouble> = Vec::new();
    for trouble in setups.iter().flat_map(|setup| &setup.troubles) {
        if !troubles.contains(trouble) {
            troubles.push(trouble.clone());
        }
    }
    let all: Vec<(Server, &Vhost)> =
        setups.iter().flat_map(|setup| setup.vhosts.iter().map(|vhost| (setup.server, vhost))).collect();
    let counts = |vhost: &Vhost| !vhost.only_redirects && vhost.logs.iter().any(|level| !level.is_empty());
    // Where nothing is left, the user shall at least see what there is.
    let keep_all = !all.iter().any(|(_, vhost)| counts(vhost));
    let mut kept = Vec::new();
    let mut left = Vec::new();
    for (server, vhost) in all {
        if keep_all || counts(vhost) { kept.push((server, vhost)) } else { left.push(vhost) }
    }
    let mut drafts = drafts(&kept, &mut troubles);
    for vhost in left {
        let name = vhost.names.first().map_or("the server without a name", String::as_str);
        // The same name on another port is a site, so nothing is missing.
        if !drafts.iter().any(|draft| vhost.names.first().is_some_and(|name| draft.names.contains(name))) {
            let why = if vhost.only_redirects { "only redirects or refuses" } else { "isn't logged" };
            troubles.push(Trouble {
                place: Some(vhost.place.clone()),
                text: format!(
                    "no site for {name}: it \
             {why}"
                ),
            });
        }
    }
    let mut forms = Forms::default();
    enter(&mut drafts, &mut forms, &mut troubles);
    let drafts = tell_apart(drafts, &forms, &mut troubles);
    // Of sites that a host fits, the first wins: those that take whatever comes stand last.
    let mut drafts = in_precedence(drafts);
    drafts.sort_by_key(|draft| draft.names.is_empty());
    // As one would go through the files; what has no place is about several.
    troubles.sort_by_key(|trouble| (trouble.place.is_none(), trouble.place.clone()));
    write(drafts, &forms, troubles)
}

/// As nginx chooses a server: by an exact name before a wildcard, and by a longer wildcard before a shorter one
/// (`ngx_http_core_module`, `server_name`); else as they stood. Apache goes by their order anyway.
fn in_precedence(mut left: Vec<Draft<'_>>) -> Vec<Draft<'_>> {
    let covers = |wildcard: &str, name: &str| {
        let Some(domain) = wildcard.strip_prefix('*') else { return false };
        name != wildcard && name.strip_prefix('*').unwrap_or(name).ends_with(domain)
    };
    let goes_before = |one: &Draft<'_>, other: &Draft<'_>| {
        let both_nginx = one.server == Server::Nginx && other.server == Server::Nginx;
        let wildcards = || other.names.iter().filter(|name| name.starts_with("*."));
        both_nginx && wildcards().any(|wildcard| one.names.iter().any(|name| covers(wildcard, name)))
    };
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_next = |at: &usize| {
            let others = left.iter().enumerate().filter(|(other, _)| other != at);
            !others.into_iter().any(|(_, other)| goes_before(other, &left[*at]))
        };
        // Where each has a wildcard for the other's name there is no order that is right for both.
        let next = (0..left.len()).find(is_next).unwrap_or(0);
        ordered.push(left.remove(next));
    }
    ordered
}

/// Virtual hosts of one name are one site; its main name is that of the TLS one.
fn drafts<'s>(vhosts: &[(Server, &'s Vhost)], troubles: &mut Vec<Trouble>) -> Vec<Draft<'s>> {
    let mut order: Vec<usize> = (0..vhosts.len()).collect();
    order.sort_by_key(|&index| (vhosts[index].0 == Server::Apache, !vhosts[index].1.tls));
    let mut drafts: Vec<(usize, Draft<'s>)> = Vec::new();
    let mut owner: HashMap<String, usize> = HashMap::new();
    let mut nameless: HashMap<&'static str, usize> = HashMap::new();
    let both = vhosts.iter().any(|(server, _)| *server == Server::Nginx);
    for index in order {
        let (server, vhost) = vhosts[index];
        // The primary name is one that a URL can have.
        let primary = vhost.names.iter().find(|name| !name.starts_with("*.")).or(vhost.names.first());
        let at = match primary {
            Some(primary) => match owner.get(primary) {
                Some(&at) if drafts[at].1.server != server => {
                    let text = format!(
                        "{primary} is a site of nginx's already, and a request that nginx hands on stands in both \
                         servers' logs: Apache's are left out"
                    );
                    troubles.push(Trouble { place: Some(vhost.place.clone()), text });
                    continue;
                }
                Some(&at) => at,
                None => {
                    drafts.push((index, Draft::new(primary.clone(), server)));
                    drafts.len() - 1
                }
            },
            None if vhost.is_unnameable => {
                drafts.push((index, Draft::new("unnamed".to_owned(), server)));
                drafts.len() - 1
            }
            None => {
                let name = if both && server == Server::Apache { "default-apache" } else { "default" };
                *nameless.entry(name).or_insert_with(|| {
                    drafts.push((index, Draft::new(name.to_owned(), server)));
                    drafts.len() - 1
                })
            }
        };
        // What it logs is also that of the other sites whose names it answers to.
        let mut owners = vec![at];
        for name in &vhost.names {
            match owner.get(name) {
                Some(&other) if drafts[other].1.server == server => owners.push(other),
                Some(_) => {}
                None => {
                    owner.insert(name.clone(), at);
                    drafts[at].1.names.push(name.clone());
                }
            }
        }
        owners.sort_unstable();
        owners.dedup();
        for at in owners {
            drafts[at].1.vhosts.push(vhost);
        }
        let (first, draft) = &mut drafts[at];
        *first = (*first).min(index);
        draft.tls |= vhost.tls;
    }
    drafts.sort_by_key(|(first, _)| *first);
    let mut drafts: Vec<Draft<'s>> = drafts.into_iter().map(|(_, draft)| draft).collect();
    // A site's name is its identity; a server may well be called `default`.
    let mut taken: Vec<String> = Vec::new();
    for draft in &mut drafts {
        draft.name = unique(&draft.name, &taken);
        taken.push(draft.name.clone());
    }
    drafts
}

impl Draft<'_> {
    fn new(name: String, server: Server) -> Self {
        Self { name, server, names: Vec::new(), tls: false, vhosts: Vec::new(), entries: Vec::new(), notes: Vec::new() }
    }

    fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

/// A name that is not taken: with a number behind it where it is.
fn unique(name: &str, taken: &[String]) -> String {
    let free = |name: &String| !taken.contains(name);
    let numbered = (2..).map(|number: usize| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(free).unwrap_or_default()
}

/// Gives each draft its logs.
fn enter(drafts: &mut [Draft<'_>], forms: &mut Forms, troubles: &mut Vec<Trouble>) {
    // In how many sites a path is named: of two logs that hold the same, the site's own is better than a common one.
    let mut uses: HashMap<Vec<Piece>, usize> = HashMap::new();
    for draft in drafts.iter() {
        for log in draft.vhosts.iter().flat_map(|vhost| &vhost.logs).flatten() {
            if let Sink::File(pieces) = &log.sink {
                *uses.entry(pieces.clone()).or_default() += 1;
            }
        }
    }
    for draft in drafts.iter_mut() {
        let vhosts = draft.vhosts.clone();
        for vhost in vhosts {
            for level in &vhost.logs {
                let (chosen, others) = choose(level, forms, &uses);
                for other in others {
                    draft.note(format!(
                        "not followed: {}, which holds the same requests once more ({})",
                        shown(&other.sink),
                        other.place
                    ));
                }
                for log in chosen {
                    enter_log(draft, vhost, log, forms, troubles);
                }
            }
        }
    }
}

/// Of logs in which each request stands, those to follow, and those that hold the same once more.
fn choose<'l>(level: &'l [Log], forms: &mut Forms, uses: &HashMap<Vec<Piece>, usize>) -> (Vec<&'l Log>, Vec<&'l Log>) {
    let files: Vec<(&Log, usize)> =
        level.iter().filter(|log| log.sink != Sink::Lost).map(|log| (log, forms.add(&log.form))).collect();
    let merit = |log: &Log, form: usize| {
        let format = forms.format(form)?;
        let gives = |field: &str| usize::from(format.gives(field));
        let own = match &log.sink {
            Sink::File(pieces) => uses.get(pieces).map_or(0, |uses| usize::MAX - uses),
            Sink::Lost => 0,
        };
        Some((log.condition.is_none(), gives("user_agent"), own, gives("host") + gives("referer") + gives("time")))
    };
    // The first of equals.
    let mut best = None;
    for &(log, form) in &files {
        if let Some(merit) = merit(log, form)
            && best.as_ref().is_none_or(|(_, held)| merit > *held)
        {
            best = Some((log, merit));
        }
    }
    match best {
        Some((best, _)) if best.condition.is_none() => {
            let others = files.iter().map(|(log, _)| *log).filter(|log| *log != best).collect();
            (vec![best], others)
        }
        // Under conditions each holds what the others don't.
        Some(_) => {
            (files.iter().filter(|(_, form)| forms.format(*form).is_some()).map(|(log, _)| *log).collect(), vec![])
        }
        None => (files.first().map(|(log, _)| *log).into_iter().collect(), Vec::new()),
    }
}

fn enter_log(draft: &mut Draft<'_>, vhost: &Vhost, log: &Log, forms: &mut Forms, troubles: &mut Vec<Trouble>) {
    let Sink::File(pieces) = &log.sink else { return };
    let index = forms.add(&log.form);
    let mut form = Some(index);
    if let Some((_, Err(why))) = forms.known.get(index) {
        form = None;
        draft.note(format!("{}: {why}; silktail will try the formats it knows", shown(&log.sink)));
        let trouble = Trouble { place: Some(log.place.clone()), text: format!("{}: {why}", shown(&log.sink)) };
        if !troubles.contains(&trouble) {
            troubles.push(trouble);
        }
    }
    for note in &log.notes {
        draft.note(note);
    }
    if let Some(condition) = &log.condition {
        draft.note(format!("{} holds only the requests for which `{condition}` holds", shown(&log.sink)));
    }
    let unknown = [UNKNOWN_HOST.to_owned()];
    let names = if draft.names.is_empty() { &unknown[..] } else { &draft.names };
    let primary = vhost.names.first().map_or(UNKNOWN_HOST, String::as_str);
    let mut patterns: Vec<Pattern> = Vec::new();
    // The requested host is any of the site's names.
    let hosts: &[String] = if pieces.contains(&Piece::Host) { names } else { &names[..1] };
    for host in hosts {
        let mut pattern: Pattern = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => text.chars().for_each(|c| push(&mut pattern, Some(c))),
                Piece::Any => push(&mut pattern, None),
                Piece::Host | Piece::ServerName => {
                    let name = if *piece == Piece::Host { host.as_str() } else { primary };
                    let rest = name.strip_prefix('*');
                    if rest.is_some() {
                        push(&mut pattern, None);
                    }
                    rest.unwrap_or(name).chars().for_each(|c| push(&mut pattern, Some(c)));
                }
            }
        }
        trim(&mut pattern);
        patterns.push(pattern);
    }
    if draft.names.is_empty() && pieces.iter().any(|piece| matches!(piece, Piece::Host | Piece::ServerName)) {
        draft.note(format!("FILL IN: the log's path has the host in it, `{UNKNOWN_HOST}` stands for it"));
    } else if pieces.contains(&Piece::Any) {
        draft.note(format!("the log's path has variables in it ({}): see whether the pattern fits", log.place));
    }
    for pattern in patterns {
        if !draft.entries.iter().any(|entry| entry.pattern == pattern && entry.form == form) {
            draft.entries.push(Entry { pattern, form, is_everybodys: log.is_everybodys });
        }
    }
}

/// Paths are compared as they are written, so they are written in one way; two wildcards are one.
fn push(pattern: &mut Pattern, c: Option<char>) {
    let last = pattern.last().copied();
    let doubled = (c.is_none() && last == Some(None)) || (c == Some('/') && last == Some(Some('/')));
    if !doubled {
        pattern.push(c);
        if pattern.ends_with(&[Some('/'), Some('.'), Some('/')]) {
            pattern.truncate(pattern.len() - 2);
        }
    }
}

/// What stands at a path's end without meaning.
fn trim(pattern: &mut Pattern) {
    while pattern.len() > 1 && (pattern.ends_with(&[Some('/')]) || pattern.ends_with(&[Some('/'), Some('.')])) {
        pattern.pop();
    }
}

/// How a log is called in notes.
fn shown(sink: &Sink) -> String {
    let Sink::File(pieces) = sink else { return "a log".to_owned() };
    let part = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Host => "$host".to_owned(),
        Piece::ServerName => "$server_name".to_owned(),
        Piece::Any => "*".to_owned(),
    };
    pieces.iter().map(part).collect()
}

/// A log whose path has variables in it is written as a pattern, and where that fits other sites' logs, too, it isn't theirs
/// that makes these lines impossible to tell apart.
fn leave_out_what_fits_others(drafts: &mut [Draft<'_>], forms: &Forms, troubles: &mut Vec<Trouble>) {
    for index in 0..drafts.len() {
        let fits_others = |entry: &Entry| {
            let others =
                drafts.iter().enumerate().filter(|(other, _)| *other != index).flat_map(|(_, one)| &one.entries);
            let of_others = others.filter(|theirs| {
                let told = forms.gives_host(entry.form) && forms.gives_host(theirs.form);
                !told && !theirs.pattern.contains(&None) && overlap(&entry.pattern, &theirs.pattern)
            });
            of_others.map(|theirs| render(&theirs.pattern)).next().filter(|_| entry.pattern.contains(&None))
        };
        let fits: Vec<Option<String>> = drafts[index].entries.iter().map(fits_others).collect();
        let draft = &mut drafts[index];
        let entries = std::mem::take(&mut draft.entries);
        for (entry, fits) in entries.into_iter().zip(fits) {
            let Some(theirs) = fits else {
                draft.entries.push(entry);
                continue;
            };
            let text = format!(
                "not followed: {}, for the variables in its path stand for {theirs}, too, which is another site's; list the \
                 files in `logs`",
                render(&entry.pattern)
            );
            draft.note(format!("FILL IN: {text}"));
            troubles.push(Trouble { place: None, text: format!("{}: {text}", draft.name) });
        }
    }
}

/// Makes one site of those that no log tells apart.
fn tell_apart<'s>(drafts: Vec<Draft<'s>>, forms: &Forms, troubles: &mut Vec<Trouble>) -> Vec<Draft<'s>> {
    let mut drafts = drafts;
    leave_out_what_fits_others(&mut drafts, forms, troubles);
    let places: Vec<(usize, usize)> = drafts
        .iter()
        .enumerate()
        .flat_map(|(draft, one)| (0..one.entries.len()).map(move |entry| (draft, entry)))
        .collect();
    // Logs that share lines with another site's and don't say whose each is, joined to groups.
    let mut groups = Groups::new(places.len());
    for (a, &(draft_a, entry_a)) in places.iter().enumerate() {
        for (b, &(draft_b, entry_b)) in places.iter().enumerate().skip(a + 1) {
            let (one, other) = (&drafts[draft_a].entries[entry_a], &drafts[draft_b].entries[entry_b]);
            let told = forms.gives_host(one.form) && forms.gives_host(other.form);
            if draft_a != draft_b && !told && overlap(&one.pattern, &other.pattern) {
                groups.join(a, b);
            }
        }
    }
    let mut sets: HashMap<usize, Vec<usize>> = HashMap::new();
    for place in 0..places.len() {
        sets.entry(groups.root(place)).or_default().push(place);
    }
    let mut sets: Vec<Vec<usize>> = sets.into_values().filter(|set| set.len() > 1).collect();
    sets.sort();
    let shared: Vec<(usize, usize)> = sets.iter().flatten().map(|&place| places[place]).collect();
    let has_own = |draft: usize, one: &Draft<'_>| (0..one.entries.len()).any(|entry| !shared.contains(&(draft, entry)));
    let own: Vec<bool> = drafts.iter().enumerate().map(|(index, draft)| has_own(index, draft)).collect();
    let mut dropped: Vec<(usize, usize)> = Vec::new();
    let mut merged = Groups::new(drafts.len());
    let mut is_merged: Vec<bool> = vec![false; drafts.len()];
    for set in &sets {
        let mut paths: Vec<String> = Vec::new();
        for &place in set {
            let (draft, entry) = places[place];
            let path = render(&drafts[draft].entries[entry].pattern);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let paths = paths.join(", ");
        let mut members: Vec<usize> = set.iter().map(|&place| places[place].0).collect();
        members.sort_unstable();
        members.dedup();
        let (with, without): (Vec<usize>, Vec<usize>) = members.iter().partition(|&&draft| own[draft]);
        dropped.extend(set.iter().map(|&place| places[place]).filter(|(draft, _)| own[*draft]));
        for &draft in &with {
            let fix = fix(drafts[draft].server);
            drafts[draft].note(format!(
                "not followed: {paths}, which other sites write too and whose format doesn't tell the host; to count \
                 from it, add the host to its format: {fix}"
            ));
        }
        let names: Vec<&str> = members.iter().map(|&draft| drafts[draft].name.as_str()).collect();
        let list = names.join(", ");
        let Some(&first) = without.first() else {
            troubles.push(Trouble {
                place: None,
                text: format!("{paths} isn't followed: {list} write it, and its format doesn't tell the host"),
            });
            continue;
        };
        for &draft in &without {
            merged.join(first, draft);
            is_merged[draft] |= without.len() > 1;
        }
        let what = if without.len() > 1 { "these sites are written as one" } else { "its lines count for one site" };
        let note = format!(
            "{paths} holds the requests of {list}, and its format doesn't tell the host, so {what}. To tell them \
             apart, add the host to its format: {}; then run `silktail init` again",
            fix(drafts[first].server)
        );
        drafts[first].note(&note);
        troubles.push(Trouble { place: None, text: note });
    }
    for (index, draft) in drafts.iter_mut().enumerate() {
        let mut entry = 0;
        draft.entries.retain(|_| {
            entry += 1;
            !dropped.contains(&(index, entry - 1))
        });
    }
    // The first that has a name leads.
    let roots: Vec<usize> = (0..drafts.len()).map(|draft| merged.root(draft)).collect();
    let mut out: Vec<(usize, Draft<'s>)> = Vec::new();
    for (index, draft) in drafts.into_iter().enumerate() {
        match out.iter_mut().find(|(root, _)| *root == roots[index]) {
            Some((_, lead)) => lead.absorb(draft),
            None => out.push((roots[index], draft)),
        }
    }
    out.into_iter().map(|(_, draft)| draft).collect()
}

impl Draft<'_> {
    /// Takes another's names, logs and notes over.
    fn absorb(&mut self, other: Self) {
        if self.names.is_empty() && !other.names.is_empty() {
            self.name.clone_from(&other.name);
            self.tls = false;
        }
        // Names that stand in no URL, like those of the default server, say nothing about TLS.
        if !other.names.is_empty() {
            self.tls |= other.tls;
        }
        self.names.extend(other.names);
        self.vhosts.extend(other.vhosts);
        for entry in other.entries {
            if !self.entries.iter().any(|known| known.pattern == entry.pattern && known.form == entry.form) {
                self.entries.push(entry);
            }
        }
        for note in other.notes {
            self.note(note);
        }
    }
}

fn fix(server: Server) -> &'static str {
    match server {
        Server::Nginx => "put $host into its log_format",
        Server::Apache => "use vhost_combined, or put %v into its LogFormat",
    }
}

/// Which of some numbered things belong together.
struct Groups(Vec<usize>);

impl Groups {
    fn new(len: usize) -> Self {
        Self((0..len).collect())
    }

    fn root(&self, mut at: usize) -> usize {
        while let Some(&up) = self.0.get(at).filter(|&&up| up != at) {
            at = up;
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The smallest number is the root.
        let (low, high) = (a.min(b), a.max(b));
        if let Some(up) = self.0.get_mut(high) {
            *up = low;
        }
    }
}

/// Whether some path fits both patterns.
fn overlap(a: &[Option<char>], b: &[Option<char>]) -> bool {
    if !a.contains(&None) && !b.contains(&None) {
        return a == b;
    }
    // reach[j]: the part of `a` that has been passed and the first j of `b` fit a common text.
    let mut reach = vec![false; b.len() + 1];
    reach[0] = true;
    for j in 0..b.len() {
        reach[j + 1] = reach[j] && b[j].is_none();
    }
    for step in a {
        let mut next = vec![false; b.len() + 1];
        next[0] = reach[0] && step.is_none();
        for j in 0..b.len() {
            next[j + 1] = match (step, b[j]) {
                (None, None) => reach[j + 1] || next[j],
                // A wildcard takes any character but the slash, or nothing.
                (None, Some(c)) => reach[j + 1] || (next[j] && c != '/'),
                (Some(c), None) => next[j] || (reach[j + 1] && *c != '/'),
                (Some(c), Some(d)) => reach[j] && *c == d,
            };
        }
        reach = next;
    }
    reach[b.len()]
}

/// A pattern as `logs` has it.
fn render(pattern: &[Option<char>]) -> String {
    let is_literal = pattern.iter().all(|c| c.is_some_and(|c| !matches!(c, '*' | '?' | '[')));
    let mut out = String::new();
    for c in pattern {
        match c {
            None => out.push('*'),
            Some(c @ ('*' | '?' | '[' | ']')) if !is_literal => out.extend(['[', *c, ']']),
            Some(c) => out.push(*c),
        }
    }
    out
}

fn write(drafts: Vec<Draft<'_>>, forms: &Forms, mut troubles: Vec<Trouble>) -> Plan {
    let mut formats: Vec<OwnFormat> = Vec::new();
    let mut names: Vec<Option<String>> = vec![None; forms.known.len()];
    let mut taken: Vec<String> = BUILTIN.iter().chain(&["auto"]).map(|name| (*name).to_owned()).collect();
    for form in drafts.iter().flat_map(|draft| &draft.entries).filter_map(|entry| entry.form) {
        if names[form].is_some() {
            continue;
        }
        let (key, name, text) = match &forms.known[form].0 {
            Form::Builtin(name) => {
                names[form] = Some((*name).to_owned());
                continue;
            }
            Form::Nginx { name, text } => ("nginx", name, text),
            Form::Apache { name, text } => ("apache", name, text),
            Form::Unknown(_) => continue,
        };
        let name = unique(&slug(name), &taken);
        taken.push(name.clone());
        names[form] = Some(name.clone());
        formats.push(OwnFormat { name, key, text: text.clone() });
    }
    let shares = |index: usize| {
        drafts.iter().enumerate().any(|(other, draft)| {
            other != index
                && draft
                    .entries
                    .iter()
                    .any(|theirs| drafts[index].entries.iter().any(|mine| overlap(&mine.pattern, &theirs.pattern)))
        })
    };
    let shared: Vec<bool> = (0..drafts.len()).map(shares).collect();
    let mut sites = Vec::new();
    for (mut draft, is_shared) in drafts.into_iter().zip(shared) {
        let everybodys = draft.entries.iter().filter(|entry| entry.is_everybodys);
        let (told, untold): (Vec<&Entry>, Vec<&Entry>) = everybodys.partition(|entry| forms.gives_host(entry.form));
        let is_shared = is_shared || !told.is_empty();
        if let Some(path) = untold.first().map(|entry| render(&entry.pattern)) {
            let text = format!(
                "{path} holds the requests of all virtual hosts, and its format doesn't tell the host: all count for {}. To \
                 tell them apart, add the host to its format: {}; then run `silktail init` again",
                draft.name,
                fix(draft.server)
            );
            draft.note(&text);
            troubles.push(Trouble { place: None, text });
        }
        sites.push(site(draft, is_shared, &names));
    }
    Plan { formats, sites, troubles }
}

fn site(mut draft: Draft<'_>, is_shared: bool, formats: &[Option<String>]) -> Site {
    let exact = draft.names.iter().find(|name| !name.starts_with("*."));
    let host = exact.or(draft.names.first()).map(|name| name.trim_start_matches("*.").to_owned());
    let base = host.as_deref().unwrap_or(UNKNOWN_HOST);
    let other = base.strip_prefix("www.").map_or_else(|| format!("www.{base}"), str::to_owned);
    // Without `hosts`, these two are the site's anyway.
    let has_more = draft.names.iter().any(|name| name != base && *name != other);
    let mut hosts = Vec::new();
    if is_shared || has_more {
        hosts = if draft.names.is_empty() { vec![base.to_owned()] } else { draft.names.clone() };
    }
    if is_shared {
        draft.note("other sites write a log of this one too: its lines are told apart by `hosts`");
        if draft.names.is_empty() {
            draft.note("FILL IN: the hosts that this server answers to");
        }
    }
    let mut used: Vec<Option<&str>> =
        draft.entries.iter().map(|entry| entry.form.and_then(|form| formats.get(form)?.as_deref())).collect();
    used.sort_unstable();
    used.dedup();
    let format = match used.as_slice() {
        [Some(name)] => (*name).to_owned(),
        _ => "auto".to_owned(),
    };
    let mut logs: Vec<String> = Vec::new();
    for entry in &draft.entries {
        let path = render(&entry.pattern);
        if !logs.contains(&path) {
            logs.push(path);
        }
    }
    let mut places: Vec<Place> = Vec::new();
    for vhost in &draft.vhosts {
        if !places.contains(&vhost.place) {
            places.push(vhost.place.clone());
        }
    }
    // A wildcard is no host that a URL could have.
    let host = host.filter(|host| draft.names.contains(host));
    let name = draft.name;
    Site { name, server: draft.server, places, host, tls: draft.tls, logs, format, hosts, notes: draft.notes }
}

/// A format's name as a bare key.
fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let out: String = name.chars().map(plain).collect();
    if out.is_empty() { "format".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Dump, apache, nginx};
    use super::*;

    fn of_nginx(text: &str) -> Plan {
        plan(&[nginx(Path::new("/n"), &Dump::new([("/n", text)])).unwrap()])
    }

    fn rows(plan: &Plan) -> Vec<String> {
        let row = |site: &Site| {
            let host = site.host.as_deref().unwrap_or("?");
            let scheme = if site.tls { "https" } else { "http" };
            format!(
                "{} {scheme}://{host} [{}] {} [{}]",
                site.name,
                site.logs.join(" "),
                site.format,
                site.hosts.join(" ")
            )
        };
        plan.sites.iter().map(row).collect()
    }

    const HOST: &str = r#"log_format v '$host $remote_addr [$time_local] "$request" $status "$http_user_agent"';"#;

    #[test]
    fn sites_are_told_apart_where_their_logs_do_so() {
        for (name, text, want) in [
            (
                "80 and 443 are one",
                "server { server_name a.example; access_log /l/a; } server { listen 443 ssl; server_name \
                 a.example www.a.example; access_log /l/as; }",
                vec!["a.example https://a.example [/l/as /l/a] combined []"],
            ),
            (
                "a redirecting server is none",
                "server { server_name a.example; return 301 https://a.example; } \
                 server { server_name b.example a.example; return 301 x; } server { listen 443; server_name \
                 a.example; }",
                vec!["a.example https://a.example [/var/log/nginx/access.log] combined []"],
            ),
            (
                "further names are hosts",
                "server { server_name a.example b.example *.c.example; access_log /l/a; }",
                vec!["a.example http://a.example [/l/a] combined [a.example b.example *.c.example]"],
            ),
            (
                "names before wildcards, long ones before short ones",
                &format!(
                    "{HOST} access_log /l/s v; server {{ server_name *.example.org; }} server {{ server_name \
                     *.docs.example.org; }} server {{ server_name docs.example.net docs.example.org; }}"
                ),
                vec![
                    "*.docs.example.org http://? [/l/s] v [*.docs.example.org]",
                    "docs.example.net http://docs.example.net [/l/s] v [docs.example.net docs.example.org]",
                    "*.example.org http://? [/l/s] v [*.example.org]",
                ],
            ),
            (
                "a shared log with the host",
                &format!(
                    "{HOST} access_log /l/s v; server {{ server_name a.example; }} server {{ server_name \
                     b.example; }} server {{ }}"
                ),
                vec![
                    "a.example http://a.example [/l/s] v [a.example]",
                    "b.example http://b.example [/l/s] v [b.example]",
                    "default http://? [/l/s] v [example.org]",
                ],
            ),
            (
                "a shared log without the host",
                "access_log /l/s; server { } server { server_name a.example; } server { listen 443; server_name \
                 b.example; }",
                vec!["a.example https://a.example [/l/s] combined [a.example b.example]"],
            ),
            (
                "the shared log of those that have their own elsewhere",
                "access_log /l/s; server { server_name a.example; } server { listen 443; server_name a.example; \
                 access_log /l/a; } \
                 server { server_name b.example; } server { listen 443; server_name b.example; access_log /l/b; }",
                vec![
                    "a.example https://a.example [/l/a] combined []",
                    "b.example https://b.example [/l/b] combined []",
                ],
            ),
            (
                "one log of two that hold the same",
                &format!(
                    "{HOST} server {{ server_name a.example; access_log /l/s v; access_log /l/a; }} server {{ \
                     server_name b.example; access_log /l/s v; }}"
                ),
                vec!["a.example http://a.example [/l/a] combined []", "b.example http://b.example [/l/s] v []"],
            ),
            (
                "each of those under conditions",
                "server { server_name a.example; access_log /l/a combined if=$x; access_log /l/b combined if=$y; }",
                vec!["a.example http://a.example [/l/a /l/b] combined []"],
            ),
            (
                "a log for each host",
                "access_log /l/$host.log; server { server_name a.example www.a.example; } server { server_name \
                 b.example; } server { }",
                vec![
                    "a.example http://a.example [/l/a.example.log /l/www.a.example.log] combined []",
                    "b.example http://b.example [/l/b.example.log] combined []",
                    "default http://? [/l/example.org.log] combined []",
                ],
            ),
            (
                "a pattern that takes another's log",
                "server { server_name a.example; access_log /l/$x.log; } server { server_name b.example; \
                 access_log /l/b.log; }",
                vec!["a.example http://a.example [] auto []", "b.example http://b.example [/l/b.log] combined []"],
            ),
            (
                "two formats",
                &format!(
                    "{HOST} server {{ server_name a.example; access_log /l/a v; location /b {{ access_log /l/b; }} }}"
                ),
                vec!["a.example http://a.example [/l/a /l/b] auto []"],
            ),
            (
                "a format that can't be read",
                "log_format x '$status'; server { server_name a.example; access_log /l/a x; }",
                vec!["a.example http://a.example [/l/a] auto []"],
            ),
            (
                "nothing to follow",
                "server { server_name a.example; access_log syslog:server=x; } server { server_name b.example; \
                 access_log off; }",
                vec!["a.example http://a.example [] auto []"],
            ),
            (
                "only a wildcard",
                "server { server_name *.a.example; access_log /l/a; }",
                vec!["*.a.example http://? [/l/a] combined [*.a.example]"],
            ),
            (
                "a server that is called default",
                "server { server_name default; access_log /l/a; } server { access_log /l/b; } server { \
                 server_name ~x; access_log /l/c; }",
                vec![
                    "default http://default [/l/a] combined []",
                    "default-2 http://? [/l/b] combined []",
                    "unnamed http://? [/l/c] combined []",
                ],
            ),
        ] {
            assert_eq!(rows(&of_nginx(&format!("http {{ {text} }}"))), want, "{name}");
        }
    }

    #[test]
    fn a_log_of_all_virtual_hosts_is_told_apart_by_host() {
        let vhosts = "<VirtualHost *>\nServerName one.example\n</VirtualHost>\n<VirtualHost *>\nServerName two.example\n\
                      CustomLog /l/two CLF\n</VirtualHost>";
        let host = "LogFormat \"%v %h %t \\\"%r\\\" %>s\" v\nGlobalLog /l/all v\n";
        for (name, global, one, troubles) in [
            ("with the host", host, "one.example http://one.example [/l/all] v [one.example]", 0),
            ("without", "GlobalLog /l/all CLF\n", "one.example http://one.example [/l/all] common []", 1),
        ] {
            let text = format!("{global}{vhosts}");
            let plan = plan(&[apache(Path::new("/a"), &Dump::new([("/a", text.as_str())])).unwrap()]);
            assert_eq!(rows(&plan), [one, "two.example http://two.example [/l/two] common []"], "{name}");
            assert_eq!(plan.troubles.len(), troubles, "{name}: {:?}", plan.troubles);
        }
    }

    #[test]
    fn apache_behind_nginx_is_not_counted_twice() {
        let front = nginx(
            Path::new("/n"),
            &Dump::new([("/n", "http { server { server_name a.example; access_log /n/a; } server { } }")]),
        );
        let back = apache(
            Path::new("/a"),
            &Dump::new([(
                "/a",
                "<VirtualHost *:8080>\nServerName a.example\nCustomLog /a/a CLF\n</VirtualHost>\n\
              <VirtualHost *:8080>\nServerName b.example\nServerAlias a.example\nCustomLog /a/b CLF\n</VirtualHost>\n\
              <VirtualHost *>\nCustomLog /a/d CLF\n</VirtualHost>",
            )]),
        );
        let plan = plan(&[front.unwrap(), back.unwrap()]);
        assert_eq!(
            rows(&plan),
            [
                "a.example http://a.example [/n/a] combined []",
                "b.example http://b.example [/a/b] common []",
                "default http://? [/var/log/nginx/access.log] combined []",
                "default-apache http://? [/a/d] common []",
            ]
        );
        assert!(plan.troubles.iter().any(|trouble| trouble.text.contains("Apache's are left out")));
    }

    #[test]
    fn patterns_overlap_where_one_path_fits_both() {
        let pattern = |text: &str| {
            let mut out = Pattern::new();
            text.chars().for_each(|c| push(&mut out, (c != '*').then_some(c)));
            out
        };
        for (a, b, want) in [
            ("/l/a.log", "/l/a.log", true),
            ("/l//a.log", "/l/./a.log", true),
            ("/l/*.log", "/l/a.log", true),
            ("/l/*.log", "/l/a/b.log", false),
            ("/l/*.log", "/l/a.txt", false),
            ("/l/a*", "/l/*b", true),
            ("/l/a*c", "/l/b*c", false),
            ("/l/*", "/l/", true),
            ("/*/a", "/l/*", true),
            ("/*/a", "/l/m/*", false),
        ] {
            assert_eq!(overlap(&pattern(a), &pattern(b)), want, "{a} {b}");
            assert_eq!(overlap(&pattern(b), &pattern(a)), want, "{b} {a}");
        }
        assert_eq!(render(&pattern("/l/a[1]?")), "/l/a[[]1[]][?]");
        assert_eq!(render(&pattern("/l/a]")), "/l/a]");
    }
}

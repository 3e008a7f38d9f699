//! Whether a user agent is a bot's. In: the user agent as sent. Out: why it is one, or nothing.
//!
//! The lists are in `data/bots`, with their origin. Nearly all of their patterns are plain words, which one automaton
//! finds in one pass. It also finds the words without which the other patterns can't match: each of those is a regex, which
//! is compiled when such a word is found for the first time. The automaton is made once for the whole program.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use hashbrown::DefaultHashBuilder;
use regex::bytes::{Regex, RegexSet};
use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Hir, HirKind, Look};

use crate::entry::as_bytes_or_text;

/// Kinds of clients that aren't visitors, as `bots` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Search engines, monitors, previews, AI: whatever comes on its own.
    Crawlers,
    /// HTTP libraries: a program that someone wrote.
    Libraries,
    /// `curl`, `wget`, package and download managers: someone wanted the file.
    Tools,
}

impl Group {
    /// By its name in the lists.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "crawlers" => Group::Crawlers,
            "libraries" => Group::Libraries,
            "tools" => Group::Tools,
            _ => return None,
        })
    }

    /// What outcomes are counted under.
    fn reason(self) -> &'static str {
        match self {
            Group::Crawlers => "crawler",
            Group::Libraries => "library",
            Group::Tools => "tool",
        }
    }

    /// Who matches patterns of several groups is of the one that ranks first: a crawler written with a library is a
    /// crawler, and `curl/7.19 libcurl/7.19` is `curl`.
    const RANKED: [Group; 3] = [Group::Crawlers, Group::Tools, Group::Libraries];
}

/// What a site takes for bots.
#[derive(Debug, Clone)]
pub struct Bots {
    groups: Vec<Group>,
    extra: RegexSet,
    allow: RegexSet,
}

impl Bots {
    /// The groups that are bots, further regexes that are, and regexes that take back. The error names the pattern.
    pub fn new(groups: &[Group], extra: &[String], allow: &[String]) -> Result<Bots, (String, String)> {
        Ok(Bots { groups: groups.to_vec(), extra: own_set(extra)?, allow: own_set(allow)? })
    }

    /// Whether it takes the shipped lists to tell.
    pub fn asks_the_lists(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Why a user agent is a bot's: `crawler`, `library`, `tool`, `extra` or `no user agent`; `None` if it isn't.
    ///
    /// An absent or empty one goes with the crawlers. `allow` goes before everything.
    pub fn reason(&self, user_agent: Option<&[u8]>) -> Option<&'static str> {
        let user_agent = user_agent.unwrap_or_default().trim_ascii();
        if matches(&self.allow, user_agent) {
            return None;
        }
        if matches(&self.extra, user_agent) {
            return Some("extra");
        }
        if self.groups.is_empty() {
            return None;
        }
        if user_agent.is_empty() || user_agent == b"-" {
            return self.groups.contains(&Group::Crawlers).then_some("no user agent");
        }
        known_group(user_agent).filter(|group| self.groups.contains(group)).map(Group::reason)
    }
}

/// A user's regexes; of the first one that is wrong, the regex and what is wrong with it.
fn own_set(patterns: &[String]) -> Result<RegexSet, (String, String)> {
    for pattern in patterns {
        if let Err(error) = Regex::new(pattern) {
            return Err((pattern.clone(), error.to_string()));
        }
    }
    RegexSet::new(patterns).map_err(|error| (patterns.join("|"), error.to_string()))
}

fn matches(own: &RegexSet, user_agent: &[u8]) -> bool {
    let is_one = |bytes: &[u8]| own.is_match(bytes).then_some(());
    !own.is_empty() && as_bytes_or_text(user_agent, is_one).is_some()
}

/// The shipped lists, compiled.
#[derive(Debug)]
struct Lists {
    /// Of words in lower case: user agents are lower-cased before they are looked up.
    automaton: AhoCorasick,
    /// By the automaton's number of the word.
    words: Vec<Word>,
    regexes: Vec<Pattern>,
    /// Those of the regexes that no word tells of.
    always: Vec<usize>,
}

/// What it means that a word was found.
#[derive(Debug)]
enum Word {
    /// A pattern matches.
    Is {
        group: Group,
        /// As it must be written; `None` if in any case.
        exact: Option<Vec<u8>>,
        /// Whether nothing may stand before it, and behind it.
        whole: (bool, bool),
    },
    /// This regex may match.
    Hints(usize),
}

/// A pattern that isn't a word.
#[derive(Debug)]
struct Pattern {
    group: Group,
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn matches(&self, user_agent: &[u8]) -> bool {
        // A test compiles them all.
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(user_agent))
    }
}

/// The lists, and whether each is case-sensitive.
const SHIPPED: [(&str, bool); 3] = [
    (include_str!("../../data/bots/crawler-user-agents.tsv"), true),
    (include_str!("../../data/bots/counter-robots.tsv"), false),
    (include_str!("../../data/bots/own.tsv"), false),
];

static LISTS: LazyLock<Lists> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the lists are part of the program, and a test compiles them")]
    Lists::compile(SHIPPED).expect("the shipped bot lists are valid")
});

/// Compiles the shipped lists, which takes some 10 ms, beside what the caller does meanwhile.
pub fn prepare() {
    let compile = || {
        LazyLock::force(&LISTS);
    };
    // Else the first user agent waits for it.
    let _ = std::thread::Builder::new().name("lists".into()).spawn(compile);
}

/// A pattern that is a plain word, and whether nothing may stand before and behind it.
fn word_of(pattern: &Hir) -> Option<(Vec<u8>, (bool, bool))> {
    let parts = match pattern.kind() {
        HirKind::Concat(parts) => &parts[..],
        _ => std::slice::from_ref(pattern),
    };
    let is = |part: &Hir, look| matches!(part.kind(), HirKind::Look(found) if *found == look);
    let begins = parts.first().is_some_and(|part| is(part, Look::Start));
    let ends = parts.last().is_some_and(|part| is(part, Look::End));
    match parts.get(usize::from(begins)..parts.len() - usize::from(ends))? {
        [word] => match word.kind() {
            HirKind::Literal(word) => Some((word.0.to_vec(), (begins, ends))),
            _ => None,
        },
        _ => None,
    }
}

/// Words of a regex's hints that are shorter would be found in nearly every user agent.
const HINT_MIN: usize = 3;

/// Words of which one is in whatever a pattern matches, the longer the better. Case is that of ASCII, as it is for words: no
/// user agent writes its name with a Kelvin sign.
fn hints_of(pattern: &Hir) -> Option<Vec<Vec<u8>>> {
    let words = [ExtractKind::Prefix, ExtractKind::Suffix].into_iter().filter_map(|kind| {
        let found = Extractor::new().kind(kind).extract(pattern);
        let words: Vec<Vec<u8>> = found.literals()?.iter().map(|word| word.as_bytes().to_ascii_lowercase()).collect();
        let shortest = words.iter().map(Vec::len).min().filter(|len| *len >= HINT_MIN)?;
        Some((shortest, words))
    });
    let (_, mut words) = words.max_by_key(|(shortest, _)| *shortest)?;
    words.sort_unstable();
    words.dedup();
    Some(words)
}

/// User agents that a thread remembers, and the longest that is worth it, in bytes.
const REMEMBERED: usize = 1_024;
const REMEMBERED_MAX: usize = 256;

/// A user agent and its group.
type Known = (Box<[u8]>, Option<Group>);

thread_local! {
    /// What the lists said of user agents, by their hash: a few hundred browsers send nearly all requests, and the
    /// automaton takes a microsecond for each when it isn't in the processor's caches.
    static KNOWN: RefCell<(DefaultHashBuilder, Vec<Option<Known>>)> = RefCell::default();
}

/// The group of a user agent by the shipped lists.
fn known_group(user_agent: &[u8]) -> Option<Group> {
    if user_agent.len() > REMEMBERED_MAX {
        return LISTS.group(user_agent);
    }
    KNOWN.with_borrow_mut(|(hasher, known)| {
        if known.is_empty() {
            known.resize(REMEMBERED, None);
        }
        // Two places for each: the last that was asked for, and the one before.
        let place = hasher.hash_one(user_agent) as usize % REMEMBERED / 2 * 2;
        let [last, before] = &mut known[place..place + 2] else { return LISTS.group(user_agent) };
        let is_it = |known: &Option<Known>| known.as_ref().is_some_and(|(agent, _)| **agent == *user_agent);
        if !is_it(last) {
            std::mem::swap(last, before);
            if !is_it(last) {
                *last = Some((user_agent.into(), LISTS.group(user_agent)));
            }
        }
        last.as_ref().and_then(|(_, group)| *group)
    })
}

impl Lists {
    /// Compiles lists, each with whether it is case-sensitive.
    fn compile(lists: [(&str, bool); 3]) -> Result<Lists, String> {
        let (mut texts, mut words, mut regexes, mut always) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (list, case_sensitive) in lists {
            for line in list.lines() {
                let (group, pattern) = line.split_once('\t').ok_or_else(|| format!("no group: {line}"))?;
                let group = Group::named(group).ok_or_else(|| format!("unknown group: {line}"))?;
                // Most are words, and parsing all of them takes as long as making the automaton.
                let parsed = match pattern.chars().any(regex_syntax::is_meta_character) {
                    true => regex_syntax::parse(pattern).map_err(|error| error.to_string())?,
                    false => Hir::literal(pattern.as_bytes()),
                };
                if let Some((word, whole)) = word_of(&parsed) {
                    words.push(Word::Is { group, exact: case_sensitive.then(|| word.clone()), whole });
                    texts.push(word.to_ascii_lowercase());
                    continue;
                }
                let number = regexes.len();
                let text = if case_sensitive { pattern.to_owned() } else { format!("(?i:{pattern})") };
                regexes.push(Pattern { group, text, compiled: OnceLock::new() });
                match hints_of(&parsed) {
                    Some(hints) => {
                        words.extend(hints.iter().map(|_| Word::Hints(number)));
                        texts.extend(hints);
                    }
                    None => always.push(number),
                }
            }
        }
        // Of words in lower case: one for both cases takes half as long again to make, and more memory.
        let automaton = AhoCorasick::new(texts);
        Ok(Lists { automaton: automaton.map_err(|error| error.to_string())?, words, regexes, always })
    }

    /// The group of a user agent: that of the patterns it matches which ranks first.
    fn group(&self, user_agent: &[u8]) -> Option<Group> {
        let rank = |group| Group::RANKED.into_iter().position(|ranked| ranked == group);
        let mut found: Option<usize> = None;
        // Whether a pattern of that group could still change the answer.
        let matters = |found: Option<usize>, group| found.is_none_or(|found| rank(group) < Some(found));
        for &number in &self.always {
            let pattern = &self.regexes[number];
            if matters(found, pattern.group) && pattern.matches(user_agent) {
                found = rank(pattern.group);
            }
        }
        for hit in self.automaton.find_overlapping_iter(&user_agent.to_ascii_lowercase()) {
            let group = match &self.words[hit.pattern().as_usize()] {
                Word::Is { group, exact, whole: (begins, ends) } => {
                    let is_it = exact.as_ref().is_none_or(|exact| user_agent[hit.range()] == **exact)
                        && (!begins || hit.start() == 0)
                        && (!ends || hit.end() == user_agent.len());
                    is_it.then_some(*group)
                }
                Word::Hints(number) => {
                    let pattern = &self.regexes[*number];
                    (matters(found, pattern.group) && pattern.matches(user_agent)).then_some(pattern.group)
                }
            };
            let Some(group) = group.filter(|group| matters(found, *group)) else { continue };
            found = rank(group);
            if found == Some(0) {
                break;
            }
        }
        found.map(|rank| Group::RANKED[rank])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Group] = &[Group::Crawlers, Group::Libraries, Group::Tools];

    fn bots(groups: &[Group], extra: &[&str], allow: &[&str]) -> Bots {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Bots::new(groups, &owned(extra), &owned(allow)).unwrap()
    }

    #[test]
    fn no_browser_is_taken_for_a_bot() {
        let bots = bots(ALL, &[], &[]);
        let browsers = include_str!("../../data/bots/fixtures/browsers.txt");
        assert!(browsers.lines().count() >= 200);
        let taken: Vec<_> =
            browsers.lines().filter_map(|line| Some((bots.reason(Some(line.as_bytes()))?, line))).collect();
        assert!(taken.is_empty(), "{taken:#?}");
    }

    #[test]
    fn every_instance_that_the_list_ships_is_recognised() {
        let bots = bots(ALL, &[], &[]);
        let instances = include_str!("../../data/bots/fixtures/instances.txt");
        assert!(instances.lines().count() > 2000);
        let missed: Vec<_> = instances.lines().filter(|line| bots.reason(Some(line.as_bytes())).is_none()).collect();
        assert!(missed.is_empty(), "{missed:#?}");
    }

    #[test]
    fn most_patterns_are_words_and_words_tell_of_the_others() {
        let words = LISTS.words.iter().filter(|word| matches!(word, Word::Is { .. })).count();
        assert!(words > 1650, "{words}");
        assert!(LISTS.regexes.len() < 160, "{}", LISTS.regexes.len());
        assert!(
            LISTS.always.len() < 5,
            "{:?}",
            LISTS.always.iter().map(|at| &LISTS.regexes[*at].text).collect::<Vec<_>>()
        );
        for pattern in &LISTS.regexes {
            assert!(Regex::new(&pattern.text).is_ok(), "{}", pattern.text);
        }
    }

    /// The lists' answer by one set of regexes, each pattern as it is.
    fn group_by_regexes() -> impl Fn(&[u8]) -> Option<Group> {
        let (mut groups, mut texts) = (Vec::new(), Vec::new());
        for (list, case_sensitive) in SHIPPED {
            for line in list.lines() {
                let (group, pattern) = line.split_once('\t').unwrap();
                groups.push(Group::named(group).unwrap());
                texts.push(if case_sensitive { pattern.to_owned() } else { format!("(?i:{pattern})") });
            }
        }
        let set = regex::bytes::RegexSetBuilder::new(texts).size_limit(1 << 28).build().unwrap();
        move |agent| {
            let found: Vec<Group> = set.matches(agent).iter().map(|at| groups[at]).collect();
            Group::RANKED.into_iter().find(|ranked| found.contains(ranked))
        }
    }

    #[test]
    fn words_and_hints_say_what_the_regexes_say() {
        let by_regexes = group_by_regexes();
        let known = [
            include_str!("../../data/bots/fixtures/browsers.txt"),
            include_str!("../../data/bots/fixtures/instances.txt"),
        ];
        let patterns = SHIPPED[1].0.lines().filter_map(|line| Some(line.split_once('\t')?.1));
        for agent in known.iter().flat_map(|text| text.lines()).chain(patterns) {
            for agent in [
                agent.to_owned(),
                agent.to_ascii_uppercase(),
                format!("x{agent}"),
                format!("{agent}x"),
                agent.replace(['\\', '^', '$'], ""),
            ] {
                assert_eq!(LISTS.group(agent.as_bytes()), by_regexes(agent.as_bytes()), "{agent}");
            }
        }
    }

    #[test]
    fn a_user_agent_is_of_one_group() {
        for (name, agent, want) in [
            ("crawler", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "crawler"),
            ("AI", "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", "crawler"),
            ("crawler by a library", "python-requests/2.31 examplebot", "crawler"),
            ("any case of COUNTER's", "EXAMPLE-SPIDER", "crawler"),
            ("curl", "curl/8.5.0", "tool"),
            ("old curl", "curl/7.19.7 (x86_64-redhat-linux-gnu) libcurl/7.19.7 NSS/3.27.1", "tool"),
            ("wget", "Wget/1.21.4", "tool"),
            ("apt", "Debian APT-HTTP/1.3 (2.6.1)", "tool"),
            ("dnf", "libdnf (Fedora Linux 39; workstation; Linux.x86_64)", "tool"),
            ("aria2", "aria2/1.36.0", "tool"),
            ("PowerShell", "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041", "tool"),
            ("requests", "python-requests/2.31.0", "library"),
            ("Go", "Go-http-client/1.1", "library"),
            ("okhttp", "okhttp/4.12.0", "library"),
            ("Java", "Java/17.0.9", "library"),
            ("axios", "axios/1.6.7", "library"),
            ("Guzzle", "GuzzleHttp/7", "library"),
            ("node", "node", "library"),
        ] {
            assert_eq!(bots(ALL, &[], &[]).reason(Some(agent.as_bytes())), Some(want), "{name}");
        }
    }

    #[test]
    fn a_site_chooses_who_is_a_bot() {
        let (curl, google, nobody) = (Some(&b"curl/8.5.0"[..]), Some(&b"Googlebot/2.1"[..]), Some(&b" "[..]));
        for (name, bots, agent, want) in [
            ("tools are counted", bots(&[Group::Crawlers, Group::Libraries], &[], &[]), curl, None),
            ("crawlers are not", bots(&[Group::Crawlers, Group::Libraries], &[], &[]), google, Some("crawler")),
            ("absent", bots(ALL, &[], &[]), None, Some("no user agent")),
            ("empty", bots(ALL, &[], &[]), nobody, Some("no user agent")),
            ("dash", bots(ALL, &[], &[]), Some(b"-"), Some("no user agent")),
            ("absent, but only tools are bots", bots(&[Group::Tools], &[], &[]), None, None),
            ("send", bots(&[], &[], &[]), google, None),
            ("send, absent", bots(&[], &[], &[]), None, None),
            ("extra", bots(&[], &["^Probe/"], &[]), Some(b"Probe/1"), Some("extra")),
            ("allowed", bots(ALL, &[], &["^curl/"]), curl, None),
            ("allowed although extra", bots(ALL, &["curl"], &["^curl/"]), curl, None),
            ("allowed absence", bots(ALL, &[], &["^$"]), None, None),
            ("extra, not UTF-8", bots(&[], &["^Our.*Monitor"], &[]), Some(b"Our \xe9 Monitor"), Some("extra")),
            ("not UTF-8", bots(ALL, &[], &[]), Some(b"\xff\xfe agent"), None),
        ] {
            assert_eq!(bots.reason(agent), want, "{name}");
        }
    }

    #[test]
    fn a_wrong_regex_is_named() {
        let error = Bots::new(ALL, &["a".to_owned(), "(".to_owned()], &[]).unwrap_err();
        assert_eq!(error.0, "(");
        assert!(error.1.contains("unclosed group"), "{}", error.1);
    }
}

//! Whether a user agent is a bot's. In: the user agent as sent. Out: why it is one, or nothing.
//!
//! The lists are in `data/bots`, with their origin. Nearly all of their patterns are plain words, which one automaton
//! finds in one pass; a set of regexes has the rest. They are compiled once for the whole program.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use hashbrown::DefaultHashBuilder;
use regex::bytes::RegexSet;
use regex_syntax::hir::HirKind;

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
        if !self.allow.is_empty() && self.allow.is_match(user_agent) {
            return None;
        }
        if !self.extra.is_empty() && self.extra.is_match(user_agent) {
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
        if let Err(error) = regex::bytes::Regex::new(pattern) {
            return Err((pattern.clone(), error.to_string()));
        }
    }
    RegexSet::new(patterns).map_err(|error| (patterns.join("|"), error.to_string()))
}

/// The shipped lists, compiled.
#[derive(Debug)]
struct Lists {
    words: AhoCorasick,
    /// By the automaton's number of the pattern.
    word_groups: Vec<Word>,
    regexes: RegexSet,
    regex_groups: Vec<Group>,
}

#[derive(Debug)]
struct Word {
    group: Group,
    /// As it must be written; `None` if in any case.
    exact: Option<Vec<u8>>,
}

static LISTS: LazyLock<Lists> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the lists are part of the program, and a test compiles them")]
    Lists::compile([
        (include_str!("../../data/bots/crawler-user-agents.tsv"), true),
        (include_str!("../../data/bots/counter-robots.tsv"), false),
        (include_str!("../../data/bots/own.tsv"), false),
    ])
    .expect("the shipped bot lists are valid")
});

/// Compiles the shipped lists, which takes some 20 ms, beside what the caller does meanwhile.
pub fn prepare() {
    let compile = || {
        LazyLock::force(&LISTS);
    };
    // Else the first user agent waits for it.
    let _ = std::thread::Builder::new().name("lists".into()).spawn(compile);
}

/// What a pattern that is a plain word stands for.
fn literal(pattern: &str) -> Result<Option<Vec<u8>>, String> {
    // Most are, and parsing all of them takes as long as making the automaton.
    if !pattern.chars().any(regex_syntax::is_meta_character) {
        return Ok(Some(pattern.as_bytes().to_vec()));
    }
    match regex_syntax::parse(pattern).map_err(|error| error.to_string())?.kind() {
        HirKind::Literal(word) => Ok(Some(word.0.to_vec())),
        _ => Ok(None),
    }
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
        let (mut words, mut word_groups) = (Vec::new(), Vec::new());
        let (mut regexes, mut regex_groups) = (Vec::new(), Vec::new());
        for (list, case_sensitive) in lists {
            for line in list.lines() {
                let (group, pattern) = line.split_once('\t').ok_or_else(|| format!("no group: {line}"))?;
                let group = match group {
                    "crawlers" => Group::Crawlers,
                    "libraries" => Group::Libraries,
                    "tools" => Group::Tools,
                    _ => return Err(format!("unknown group: {line}")),
                };
                match literal(pattern)? {
                    Some(word) => {
                        word_groups.push(Word { group, exact: case_sensitive.then(|| word.clone()) });
                        words.push(word);
                    }
                    None => {
                        regexes.push(if case_sensitive { pattern.to_owned() } else { format!("(?i:{pattern})") });
                        regex_groups.push(group);
                    }
                }
            }
        }
        Ok(Lists {
            words: AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(words)
                .map_err(|error| error.to_string())?,
            word_groups,
            regexes: RegexSet::new(regexes).map_err(|error| error.to_string())?,
            regex_groups,
        })
    }

    /// The group of a user agent: that of the patterns it matches which ranks first.
    fn group(&self, user_agent: &[u8]) -> Option<Group> {
        let mut found = [false; 3];
        let mut note = |group| {
            for (found, ranked) in found.iter_mut().zip(Group::RANKED) {
                *found |= group == ranked;
            }
        };
        for hit in self.words.find_overlapping_iter(user_agent) {
            let Word { group, exact } = &self.word_groups[hit.pattern().as_usize()];
            if exact.as_ref().is_none_or(|exact| user_agent[hit.range()] == **exact) {
                if *group == Group::Crawlers {
                    // None ranks higher.
                    return Some(Group::Crawlers);
                }
                note(*group);
            }
        }
        for at in self.regexes.matches(user_agent) {
            note(self.regex_groups[at]);
        }
        Group::RANKED.into_iter().zip(found).find_map(|(group, found)| found.then_some(group))
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
    fn most_patterns_are_words() {
        assert!(LISTS.word_groups.len() > 1600, "{}", LISTS.word_groups.len());
        assert!(LISTS.regex_groups.len() < 200, "{}", LISTS.regex_groups.len());
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

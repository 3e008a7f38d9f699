//! Whether a user agent is a program's. The list is crawler-user-agents: see `data/bots/README.md`.

use aho_corasick::AhoCorasick;
use regex::bytes::RegexSet;

/// What the list is made of: a group, a tab, a regex.
const LIST: &str = include_str!("../../data/bots/crawler-user-agents.tsv");

/// Kinds of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Robots that come by themselves.
    Crawlers,
    /// HTTP libraries in somebody's program.
    Libraries,
    /// Download tools in somebody's hand: curl, wget.
    Tools,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Crawlers => "crawler",
            Group::Libraries => "library",
            Group::Tools => "tool",
        }
    }
}

/// The compiled lists.
#[derive(Debug)]
pub struct Bots {
    literals: AhoCorasick,
    literal_groups: Vec<&'static str>,
    patterns: RegexSet,
    pattern_groups: Vec<&'static str>,
    allow: RegexSet,
}

impl Bots {
    /// Compiles the groups to skip, with more regexes and with those that take back.
    ///
    /// # Errors
    /// The first bad regex, and what is wrong with it.
    pub fn new(groups: &[Group], extra: &[String], allow: &[String]) -> Result<Self, (String, String)> {
        let listed = LIST.lines().filter_map(|line| line.split_once('\t')).filter_map(|(group, pattern)| {
            let group = groups.iter().find(|known| known.name() == group)?;
            Some((group.name(), pattern))
        });
        let own = extra.iter().map(|pattern| ("extra", pattern.as_str()));
        let (mut literals, mut literal_groups) = (Vec::new(), Vec::new());
        let (mut patterns, mut pattern_groups) = (Vec::new(), Vec::new());
        for (group, pattern) in listed.chain(own) {
            let parsed = regex_syntax::parse(pattern).map_err(|error| (pattern.to_owned(), last_line(&error)))?;
            // Most patterns are plain words: one automaton finds all of them in one pass.
            match parsed.kind() {
                regex_syntax::hir::HirKind::Literal(literal) => {
                    literals.push(literal.0.to_vec());
                    literal_groups.push(group);
                }
                _ => {
                    patterns.push(pattern);
                    pattern_groups.push(group);
                }
            }
        }
        let wrong = |pattern: &str, error: &dyn std::fmt::Display| (pattern.to_owned(), last_line(error));
        for pattern in allow {
            regex::bytes::Regex::new(pattern).map_err(|error| wrong(pattern, &error))?;
        }
        Ok(Self {
            literals: AhoCorasick::new(literals).map_err(|error| wrong("", &error))?,
            literal_groups,
            patterns: RegexSet::new(patterns).map_err(|error| wrong("", &error))?,
            pattern_groups,
            allow: RegexSet::new(allow).map_err(|error| wrong("", &error))?,
        })
    }

    /// Why a user agent is a bot's: its group, `extra`, or `no user agent`.
    pub fn reason(&self, user_agent: Option<&[u8]>) -> Option<&'static str> {
        let Some(user_agent) = user_agent.filter(|bytes| !bytes.trim_ascii().is_empty()) else {
            return Some("no user agent");
        };
        let group = match self.literals.find(user_agent) {
            Some(found) => self.literal_groups.get(found.pattern().as_usize()).copied(),
            None => {
                let found = self.patterns.matches(user_agent).iter().next();
                found.and_then(|index| self.pattern_groups.get(index).copied())
            }
        };
        group.filter(|_| !self.allow.is_match(user_agent))
    }
}

fn last_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Group; 3] = [Group::Crawlers, Group::Libraries, Group::Tools];

    #[test]
    fn programs_are_told_from_browsers() {
        let bots = Bots::new(&ALL, &["^Intranet".to_owned()], &["Friendlybot/1".to_owned()]).unwrap();
        for (name, user_agent, want) in [
            ("none", None, Some("no user agent")),
            ("blank", Some(" "), Some("no user agent")),
            (
                "crawler",
                Some("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
                Some("crawler"),
            ),
            ("tool", Some("curl/8.5.0"), Some("tool")),
            ("library", Some("python-requests/2.32.3"), Some("library")),
            ("extra", Some("Intranet search 3"), Some("extra")),
            ("taken back", Some("Friendlybot/1 Googlebot/2.1"), None),
            (
                "Chrome",
                Some(
                    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
                ),
                None,
            ),
            ("Firefox", Some("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0"), None),
            (
                "Safari",
                Some(
                    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
                ),
                None,
            ),
        ] {
            assert_eq!(bots.reason(user_agent.map(str::as_bytes)), want, "{name}");
        }
    }

    #[test]
    fn a_group_can_be_counted() {
        let bots = Bots::new(&[Group::Crawlers], &[], &[]).unwrap();
        assert_eq!(bots.reason(Some(b"curl/8.5.0")), None);
    }

    #[test]
    fn a_bad_regex_is_said() {
        assert_eq!(Bots::new(&[], &["(".to_owned()], &[]).unwrap_err().0, "(");
    }
}

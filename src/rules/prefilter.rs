//! What bytes a line must hold for any rule to make an event of it, so that whole blocks are searched and only the
//! candidates are cut out and parsed. Pure, and exact: a line that is no candidate can't become an event.
//!
//! Blocks are lower-cased first and searched case-sensitively: several times as fast as a search in any case. Lines with
//! escapes of the log (`\x41`, `\u0041`) are always candidates, for what they hide is only known once they are undone.

use regex::bytes::Regex;
use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::{Conditions, Rules};

/// Literals shorter than this are in too many lines to be worth a search.
const SHORTEST: usize = 3;
/// More literals than this from one regex aren't worth it either.
const MOST: usize = 64;

/// Literals from this length on are searched together, apart from shorter ones: they are what makes a search take many a
/// byte for the beginning of something (with `\\x` among the extensions it takes twice as long).
const LONG: usize = 4;

/// Finds the lines that some rule may make an event of.
#[derive(Debug, Clone)]
pub struct Prefilter {
    /// What candidates have, but for the next two.
    texts: Vec<Regex>,
    /// Lines with a percent sign are candidates.
    percent: bool,
    /// So are those with `\\/`.
    slashes: bool,
}

impl Prefilter {
    /// From the rules of the site that reads the log; `None`: some rule may fit any line. `escaped_slashes`: the format
    /// may write `\/` for `/`.
    pub fn new(rules: &Rules, escaped_slashes: bool) -> Option<Self> {
        let mut texts: Vec<(usize, String)> = Vec::new();
        let mut of_paths = false;
        for rule in rules.0.iter().filter(|rule| rule.event.is_some()) {
            let Conditions { extensions: wanted, path, .. } = &rule.conditions;
            if let Some(wanted) = wanted {
                // What follows a path is no letter or digit, whatever the format: else `.doc` would be in every referer
                // from docs.example.org.
                let text = |wanted: &str| (1 + wanted.len(), format!(r"\.{}(?:[^a-z0-9]|$)", regex::escape(wanted)));
                texts.extend(wanted.iter().map(text));
            } else {
                texts.extend(literals_of(path.as_ref()?.as_str())?);
                // The regex is asked about the decoded path.
                of_paths = true;
            }
        }
        texts.sort();
        texts.dedup();
        let (short, long): (Vec<_>, Vec<_>) = texts.into_iter().partition(|(len, _)| *len < LONG);
        let any = |texts: Vec<(usize, String)>| {
            let texts: Vec<String> = texts.into_iter().map(|(_, text)| text).collect();
            // Literals and classes of one byte always compile, but for a size beyond all reason.
            Regex::new(&format!("(?-u){}", texts.join("|"))).ok()
        };
        let texts = [long, short].into_iter().filter(|texts| !texts.is_empty()).map(any).collect::<Option<_>>()?;
        Some(Self { texts, percent: of_paths, slashes: of_paths && escaped_slashes })
    }

    /// Adds the candidates among whole lines in lower case, in their order: where each begins and ends, if the first line
    /// begins at `base`.
    pub fn find(&self, lower: &[u8], base: usize, found: &mut Vec<(usize, usize)>) {
        let first = found.len();
        for text in &self.texts {
            each_line(lower, base, found, |at| Some(text.find_at(lower, at)?.start()));
        }
        // Each is rare, and looked for by itself that costs next to nothing.
        let is_escape = |at: &usize| match lower.get(at + 1) {
            Some(b'x' | b'u') => true,
            Some(b'/') => self.slashes,
            _ => false,
        };
        each_line(lower, base, found, |from| {
            memchr::memchr_iter(b'\\', &lower[from..]).map(|at| from + at).find(is_escape)
        });
        if self.percent {
            each_line(lower, base, found, |from| Some(from + memchr::memchr(b'%', &lower[from..])?));
        }
        found[first..].sort_unstable();
        found.dedup();
    }
}

/// Adds the lines in which something is found; `next` looks for it from an offset on.
fn each_line(lower: &[u8], base: usize, lines: &mut Vec<(usize, usize)>, next: impl Fn(usize) -> Option<usize>) {
    let mut from = 0;
    while let Some(at) = next(from) {
        let start = memchr::memrchr(b'\n', &lower[from..at]).map_or(from, |before| from + before + 1);
        let end = memchr::memchr(b'\n', &lower[at..]).map_or(lower.len(), |after| at + after + 1);
        lines.push((base + start, base + end));
        from = end;
    }
}

/// Literals, escaped and in lower case, with their lengths, of which one must be in everything that a regex matches.
fn literals_of(pattern: &str) -> Option<Vec<(usize, String)>> {
    let hir = regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern).ok()?;
    [ExtractKind::Prefix, ExtractKind::Suffix].into_iter().find_map(|kind| {
        let found = Extractor::new().kind(kind).limit_total(4_096).extract(&hir);
        let texts = found.literals()?.iter().map(|literal| {
            // What these stand for may be written as an escape: those lines are candidates anyway.
            let text = std::str::from_utf8(literal.as_bytes()).ok()?;
            let plain = text.len() >= SHORTEST && !text.bytes().any(|b| b <= b' ' || b"\"\\%\x7f".contains(&b));
            plain.then(|| (text.len(), regex::escape(&text.to_ascii_lowercase())))
        });
        let mut texts = texts.collect::<Option<Vec<_>>>()?;
        texts.sort();
        texts.dedup();
        (1..=MOST).contains(&texts.len()).then_some(texts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Extensions, Rule};

    fn rules(extensions: &[&str], path: Option<&str>) -> Rules {
        let extensions: Vec<String> = extensions.iter().map(|text| (*text).to_owned()).collect();
        let of = |conditions| Rule {
            event: Some("download".into()),
            conditions,
            url: None,
            properties: Vec::new(),
            repeat_window: None,
        };
        let extensions = Conditions { extensions: Some(Extensions::new(&extensions)), ..Conditions::default() };
        let path = path
            .map(|path| Conditions { path: Some(regex::bytes::Regex::new(path).unwrap()), ..Conditions::default() });
        Rules(std::iter::once(extensions).chain(path).map(of).collect())
    }

    #[test]
    fn candidates_are_whole_lines_each_once_and_in_their_order() {
        let lines = [
            "get /a.pdf http/1.1",
            "get /a.pdfx http/1.1",
            "get /b.7z",
            "get /c\\x2epdf /c.pdf /c.7z",
            "get /d\\\"",
            "get /files/e",
            "get /%66iles/f",
            "get /files\\/g",
            "get /",
            "get /h.xz?x",
        ];
        let block: String = lines.iter().map(|line| format!("{line}\n")).collect();
        for (name, rules, escaped_slashes, want) in [
            ("long and short extensions", rules(&["pdf", "7z", "xz"], None), false, vec![0, 2, 3, 9]),
            ("long ones alone", rules(&["pdf"], None), true, vec![0, 3]),
            ("short ones alone", rules(&["xz"], None), false, vec![3, 9]),
            ("a path, and what may hide it", rules(&["xz"], Some("^/files/")), false, vec![3, 5, 6, 9]),
            ("a path, and slashes are escaped", rules(&["xz"], Some("^/files/")), true, vec![3, 5, 6, 7, 9]),
        ] {
            let mut found = Vec::new();
            Prefilter::new(&rules, escaped_slashes).unwrap().find(block.as_bytes(), 0, &mut found);
            let found: Vec<&str> = found.into_iter().map(|(start, end)| &block[start..end]).collect();
            let want: Vec<String> = want.into_iter().map(|at: usize| format!("{}\n", lines[at])).collect();
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn literals_are_what_every_match_holds() {
        for (pattern, want) in [
            ("^/files/", Some(vec!["/files/"])),
            ("^/(?:files|manuals)/", Some(vec!["/files/", "/manuals/"])),
            ("(?i)^/API/", Some(vec!["/api/"])),
            ("^/.*/download$", Some(vec!["/download"])),
            (".*", None),
            ("^/", None),
            ("^/[0-9a-z]+/", None),
            ("^/übersicht", Some(vec!["/übersicht"])),
            ("(?i)^/(?:api|form)/", Some(vec!["/api/", "/form/"])),
        ] {
            let want: Option<Vec<_>> =
                want.map(|want| want.iter().map(|text| (text.len(), regex::escape(text))).collect());
            assert_eq!(literals_of(pattern), want, "{pattern}");
        }
    }
}

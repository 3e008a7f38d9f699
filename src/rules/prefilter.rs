//! What bytes a line must hold for any rule to make an event of it, so that whole blocks are searched and only the
//! candidates are cut out and parsed. Pure, and exact: a line that is no candidate can't become an event.
//!
//! Extensions are found by one pass that also counts the lines. Where paths are asked for, blocks are lower-cased and
//! searched case-sensitively: several times as fast as a search in any case. Lines with escapes of the log (`\x41`,
//! `\u0041`) are always candidates, for what they hide is only known once they are undone.

use regex::bytes::Regex;
use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::sieve::{Newlines, Sieve};
use super::{Conditions, Rules};

/// Literals shorter than this are in too many lines to be worth a search.
const SHORTEST: usize = 3;
/// More literals than this from one regex aren't worth it either.
const MOST: usize = 64;

/// Bytes that are lower-cased and searched at a time, so that the copy stays in the nearest caches.
const STRETCH: usize = if cfg!(test) { 512 } else { 32 * 1024 };

/// Finds the lines that some rule may make an event of.
#[derive(Debug, Clone)]
pub struct Prefilter {
    /// Extensions that candidates have, and escapes.
    sieve: Sieve,
    /// What other candidates have, in lower case, but for the next two.
    texts: Option<Regex>,
    /// Paths are asked for: lines are candidates with what may be encoded or escaped in one and in no extension, `%` and `\\/`.
    paths: bool,
}

/// What a search has found, and room for it, which is used again.
#[derive(Debug, Default)]
pub struct Finds {
    /// Whole lines that some rule may make an event of, in their order: where each begins and ends.
    pub candidates: Vec<(usize, usize)>,
    newlines: Newlines,
    lower: Vec<u8>,
}

impl Finds {
    /// How many lines end in `from..to` of the lines that were searched last.
    pub fn lines_within(&self, lines: &[u8], from: usize, to: usize) -> u64 {
        self.newlines.within(lines, from, to)
    }
}

impl Prefilter {
    /// From the rules of the site that reads the log; `None`: some rule may fit any line.
    pub fn new(rules: &Rules) -> Option<Self> {
        let (mut extensions, mut texts) = (Vec::new(), Vec::new());
        for rule in rules.0.iter().filter(|rule| rule.event.is_some()) {
            let Conditions { extensions: wanted, path, .. } = &rule.conditions;
            match wanted {
                // What follows a path is no letter or digit, whatever the format: else `.doc` would be in every referer
                // from docs.example.org.
                Some(wanted) if wanted.iter().all(is_plain) => extensions.extend(wanted.iter()),
                Some(_) => return None,
                None => texts.extend(literals_of(path.as_ref()?.as_str())?),
            }
        }
        extensions.sort_unstable();
        extensions.dedup();
        texts.sort();
        texts.dedup();
        // The regex of a path is asked about the decoded path.
        let of_paths = !texts.is_empty();
        let texts = match of_paths {
            // Literals always compile, but for a size beyond all reason.
            true => Some(Regex::new(&format!("(?-u){}", texts.join("|"))).ok()?),
            false => None,
        };
        let sieve = Sieve::new(extensions.into_iter());
        Some(Self { sieve, texts, paths: of_paths })
    }

    /// Finds the candidates among whole lines.
    pub fn find(&self, lines: &[u8], finds: &mut Finds) {
        let Finds { candidates, newlines, lower } = finds;
        candidates.clear();
        let is_escape = |at: usize| match lines.get(at + 1) {
            Some(b'x' | b'X' | b'u' | b'U' | b'\'') => true,
            Some(b'/') => self.paths,
            _ => false,
        };
        let mut behind = 0;
        self.sieve.pass(lines, newlines, |at| {
            if at >= behind && (lines[at] != b'\\' || is_escape(at)) {
                let line = line_at(lines, behind, at);
                behind = line.1;
                candidates.push(line);
            }
        });
        let Some(texts) = &self.texts else { return };
        let mut from = 0;
        while from < lines.len() {
            let rest = &lines[from..];
            let some = &rest[..rest.len().min(STRETCH)];
            let end =
                memchr::memrchr(b'\n', some).or_else(|| memchr::memchr(b'\n', rest)).map_or(rest.len(), |end| end + 1);
            // One pass over the bytes: a copy that is then changed takes two.
            lower.resize(end, 0);
            for (lower, byte) in lower.iter_mut().zip(rest) {
                *lower = byte.to_ascii_lowercase();
            }
            each_line(lower, from, candidates, |at| Some(texts.find_at(lower, at)?.start()));
            if self.paths {
                each_line(lower, from, candidates, |at| Some(at + memchr::memchr(b'%', &lower[at..])?));
            }
            from += end;
        }
        candidates.sort_unstable();
        candidates.dedup();
    }
}

/// Where the line begins and ends that holds an offset; it doesn't begin before `from`.
fn line_at(lines: &[u8], from: usize, at: usize) -> (usize, usize) {
    let start = memchr::memrchr(b'\n', &lines[from..at]).map_or(from, |before| from + before + 1);
    let end = memchr::memchr(b'\n', &lines[at..]).map_or(lines.len(), |after| at + after + 1);
    (start, end)
}

/// Adds the lines in which something is found; `next` looks for it from an offset on. They stand behind `base` bytes.
fn each_line(lines: &[u8], base: usize, found: &mut Vec<(usize, usize)>, next: impl Fn(usize) -> Option<usize>) {
    let mut from = 0;
    while let Some(at) = next(from) {
        let (start, end) = line_at(lines, from, at);
        found.push((base + start, base + end));
        from = end;
    }
}

/// Whether a text stands in a log as it is, but for escapes by which its line is a candidate anyway.
fn is_plain(text: &str) -> bool {
    !text.bytes().any(|b| b <= b' ' || b"\"\\%\x7f".contains(&b))
}

/// Literals, escaped and in lower case, of which one must be in everything that a regex matches.
fn literals_of(pattern: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern).ok()?;
    [ExtractKind::Prefix, ExtractKind::Suffix].into_iter().find_map(|kind| {
        let found = Extractor::new().kind(kind).limit_total(4_096).extract(&hir);
        let texts = found.literals()?.iter().map(|literal| {
            let text = std::str::from_utf8(literal.as_bytes()).ok()?;
            // What isn't UTF-8 is asked about as text, and that then holds what no line does.
            let stands_in_lines = is_plain(text) && !text.contains(char::REPLACEMENT_CHARACTER);
            (text.len() >= SHORTEST && stands_in_lines).then(|| regex::escape(&text.to_ascii_lowercase()))
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
            "get /it\\'s",
        ];
        let block: String = lines.iter().map(|line| format!("{line}\n")).collect();
        for (name, rules, want) in [
            ("long and short extensions", rules(&["pdf", "7z", "xz"], None), vec![0, 2, 3, 9, 10]),
            ("long ones alone", rules(&["pdf"], None), vec![0, 3, 10]),
            ("short ones alone", rules(&["xz"], None), vec![3, 9, 10]),
            ("a path, and what may hide it", rules(&["xz"], Some("^/files/")), vec![3, 5, 6, 7, 9, 10]),
        ] {
            let mut finds = Finds::default();
            Prefilter::new(&rules).unwrap().find(block.as_bytes(), &mut finds);
            let found: Vec<&str> = finds.candidates.iter().map(|&(start, end)| &block[start..end]).collect();
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
            let want: Option<Vec<_>> = want.map(|want| want.into_iter().map(regex::escape).collect());
            assert_eq!(literals_of(pattern), want, "{pattern}");
        }
    }
}

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

/// Finds the lines that some rule may make an event of.
#[derive(Debug, Clone)]
pub struct Prefilter(Regex);

impl Prefilter {
    /// From the rules of the site that reads the log; `None`: some rule may fit any line. `escaped_slashes`: the format
    /// may write `\/` for `/`.
    pub fn new(rules: &Rules, escaped_slashes: bool) -> Option<Self> {
        let mut extensions: Vec<String> = Vec::new();
        let mut literals: Vec<String> = Vec::new();
        for rule in rules.0.iter().filter(|rule| rule.event.is_some()) {
            let Conditions { extensions: wanted, path, .. } = &rule.conditions;
            if let Some(wanted) = wanted {
                extensions.extend(wanted.iter().map(regex::escape));
            } else {
                literals.extend(literals_of(path.as_ref()?.as_str())?);
                // The regex is asked about the decoded path.
                literals.push("%".to_owned());
                if escaped_slashes {
                    literals.push(r"\\/".to_owned());
                }
            }
        }
        extensions.sort();
        extensions.dedup();
        literals.sort();
        literals.dedup();
        let mut parts = vec![r"\\[xu]".to_owned()];
        if !extensions.is_empty() {
            // What follows a path is no letter or digit, whatever the format: else `.doc` would be in every referer
            // from docs.example.org.
            parts.push(format!(r"\.(?:{})(?:[^a-z0-9]|$)", extensions.join("|")));
        }
        parts.extend(literals);
        let pattern = format!("(?-u){}", parts.join("|"));
        // Literals and classes of one byte always compile, but for a size beyond all reason.
        Regex::new(&pattern).ok().map(Self)
    }

    /// Where in lower-cased bytes something begins that only a candidate has.
    pub fn find(&self, lower: &[u8]) -> Option<usize> {
        self.0.find(lower).map(|found| found.start())
    }
}

/// Literals, escaped and in lower case, of which one must be in everything that a regex matches.
fn literals_of(pattern: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern).ok()?;
    [ExtractKind::Prefix, ExtractKind::Suffix].into_iter().find_map(|kind| {
        let found = Extractor::new().kind(kind).limit_total(4_096).extract(&hir);
        let texts = found.literals()?.iter().map(|literal| {
            // What these stand for may be written as an escape: those lines are candidates anyway.
            let text = std::str::from_utf8(literal.as_bytes()).ok()?;
            let plain = text.len() >= SHORTEST && !text.bytes().any(|b| b <= b' ' || b"\"\\%\x7f".contains(&b));
            plain.then(|| regex::escape(&text.to_ascii_lowercase()))
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
            let want: Option<Vec<String>> = want.map(|want| want.iter().map(|text| regex::escape(text)).collect());
            assert_eq!(literals_of(pattern), want, "{pattern}");
        }
    }
}

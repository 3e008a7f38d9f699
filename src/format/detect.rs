//! `format = "auto"`: which format a log is written in, by its first lines.

use super::Format;

/// Of the formats that fit more than half of the lines, the most specific: `combined` also fits lines of
/// `vhost_combined` with a host that could be a client, and `common` fits both.
pub fn detect(candidates: &[Format], lines: &[&[u8]]) -> Option<Format> {
    let score = |format: &&Format| {
        let fit = lines.iter().filter(|line| format.parse(line).is_some()).count();
        (fit * 2 > lines.len()).then_some((format.specificity(), fit))
    };
    candidates
        .iter()
        .filter_map(|format| Some((score(&format)?, format)))
        // The first of equals: the user's own formats come before the built-in ones.
        .fold(None, |best: Option<((usize, usize), &Format)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        })
        .map(|(_, format)| format.clone())
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::format::BUILTIN;

    #[test]
    fn the_most_specific_format_that_fits_is_taken() {
        let formats: Vec<Format> = BUILTIN.iter().filter_map(|name| Format::builtin(name, &TimeZone::UTC)).collect();
        let common = r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 5"#;
        let combined = format!(r#"{common} "-" "Mozilla/5.0""#);
        let vhost = format!("docs.example.org:80 {combined}");
        for (line, want) in
            [(common, Some("common")), (&combined, Some("combined")), (&vhost, Some("vhost_combined")), ("what", None)]
        {
            let found = detect(&formats, &[line.as_bytes()]);
            assert_eq!(found.as_ref().map(Format::name), want, "{line}");
        }
        assert!(detect(&formats, &[]).is_none());
    }
}

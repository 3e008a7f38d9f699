//! Which format a log is in: formats and some lines in, the format that means most out. Pure.

use super::{Format, Reading};

/// The format that fits most of the lines, and more than half. Of those that fit nearly as many (within a tenth of all)
/// the most specific: `combined` fits the lines of `vhost_combined` too, but understands less of them.
pub fn detect(candidates: &[Format], lines: &[&[u8]]) -> Option<Format> {
    let lines: Vec<&[u8]> = lines.iter().copied().filter(|line| !line.trim_ascii().is_empty()).collect();
    let fits = |format: &Format| {
        let mut reading = Reading::default();
        let fitting = lines.iter().filter(|line| format.parse_in(&mut reading, line).is_some()).count();
        // Lines that begin with `#` may be anybody's.
        if format.directives().is_empty() || reading.columns.is_some() { fitting } else { 0 }
    };
    let fitting: Vec<(usize, &Format)> = candidates
        .iter()
        .map(|format| (fits(format), format))
        .filter(|(fitting, _)| fitting * 2 > lines.len())
        .collect();
    let most = fitting.iter().map(|(fitting, _)| *fitting).max()?;
    let mut best: Option<((usize, usize, usize), &Format)> = None;
    for (fitting, format) in fitting.into_iter().filter(|(fitting, _)| (most - fitting) * 10 <= lines.len()) {
        let (fields, length) = format.specificity();
        let merit = (fields, fitting, length);
        // The first of equals: the user's own formats come before the built-in ones.
        if best.is_none_or(|(held, _)| merit > held) {
            best = Some((merit, format));
        }
    }
    best.map(|(_, format)| format.clone())
}

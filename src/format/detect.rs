//! Which format a log is in: formats and some lines in, the format that means most out. Pure.

use super::Format;

/// Of the formats that fit more than half of the lines, the most specific: `combined` fits the lines of
/// `vhost_combined` too, but understands less of them.
pub fn detect(candidates: &[Format], lines: &[&[u8]]) -> Option<Format> {
    let lines: Vec<&[u8]> = lines.iter().copied().filter(|line| !line.trim_ascii().is_empty()).collect();
    let fits = |format: &Format| lines.iter().filter(|line| format.parse(line).is_some()).count();
    let mut best: Option<((usize, usize, usize), &Format)> = None;
    for format in candidates {
        let fitting = fits(format);
        if fitting * 2 <= lines.len() {
            continue;
        }
        let (fields, length) = format.specificity();
        let merit = (fields, fitting, length);
        if best.is_none_or(|(held, _)| merit > held) {
            best = Some((merit, format));
        }
    }
    best.map(|(_, format)| format.clone())
}

//! A backfill's summary as one page that needs nothing else: lines by fate, events by day and by extension. Pure.

use std::fmt::Write;

use crate::journal::misleads;
use crate::summary::Summary;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --paper: #fff; --line: #e3e6ea; --bar: #2f6fde; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #9aa3ad; --paper: #16191d; --line: #2c3138; --bar: #6ea1ff; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.note { color: var(--soft); margin: 0; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bar, th.bar { width: 30%; } td.bar div { background: var(--bar); height: .8rem; margin-top: .35rem; }
td.why { color: var(--soft); } td.url { word-break: break-all; }
rect { fill: var(--bar); } text { fill: var(--ink); font: 12px system-ui, sans-serif; } .axis { stroke: var(--line); }
svg { overflow: visible; }
@media (max-width: 40rem) { text { font-size: 24px; } text.between { display: none; } }
";

/// Days that one plot shows; of a longer time the last are shown.
const DAYS: usize = 92;
/// Extensions that are shown.
const EXTENSIONS: usize = 12;

/// The page.
pub fn page(summary: &Summary, dry_run: bool) -> String {
    let mut out = String::new();
    let what = if dry_run { "rehearsed, nothing sent" } else { "sent" };
    let title = "silktail backfill";
    let number = |n: u64| grouped(n);
    // Writing to a string can't fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head><body>\n\
         <h1>{title}: {what}</h1>\n<p class=\"note\">{} {}, {} bytes, {} lines in {:.1} s. The API has no time field: \
         what is sent counts as happening when it is sent, whatever day the log says.</p>\n",
        number(summary.files),
        if summary.files == 1 { "file" } else { "files" },
        number(summary.bytes),
        number(summary.lines),
        summary.elapsed_seconds,
    );
    out.push_str("<h2>Lines by fate</h2>\n<table><tr><th>fate</th><th class=\"n\">lines</th><th class=\"n\">share</th><th class=\"bar\" aria-label=\"share, as a bar\"></th><th>why</th></tr>\n");
    for (fate, count) in summary.fates() {
        let share = if summary.lines == 0 { 0.0 } else { count as f64 * 100.0 / summary.lines as f64 };
        let (count, why) = (number(count), escaped(&summary.why(fate)));
        let _ = writeln!(
            out,
            "<tr><td>{fate}</td><td class=\"n\">{count}</td><td class=\"n\">{share:.1} %</td>\
             <td class=\"bar\"><div style=\"width:{share:.1}%\"></div></td><td class=\"why\">{why}</td></tr>"
        );
    }
    out.push_str("</table>\n");
    let mut facts = vec![("POSTs", summary.requests)];
    if !dry_run {
        facts.extend([("events delivered", summary.delivered), ("events rejected", summary.rejected)]);
    }
    facts.push(("lines settled by an earlier run", summary.already_sent));
    if summary.left_to_run > 0 {
        facts.push(("lines left to `run`, which has not sent them yet", summary.left_to_run));
    }
    out.push_str("<table>\n");
    for (name, count) in facts {
        let _ = writeln!(out, "<tr><td>{name}</td><td class=\"n\">{}</td></tr>", number(count));
    }
    out.push_str("</table>\n");

    let skip = summary.plots.days.len().saturating_sub(DAYS);
    let days: Vec<(String, u64)> =
        summary.plots.days.iter().skip(skip).map(|(day, count)| (day.to_string(), *count)).collect();
    if !days.is_empty() {
        out.push_str("<h2>Events by the log's day</h2>\n");
        out.push_str(&columns(&days));
    }
    let mut extensions: Vec<(String, u64)> = summary.plots.extensions().collect();
    extensions.sort_by(|(name, count), (other_name, other)| other.cmp(count).then_with(|| name.cmp(other_name)));
    extensions.truncate(EXTENSIONS);
    if !extensions.is_empty() {
        out.push_str("<h2>Events by extension</h2>\n");
        out.push_str(&bars(&extensions));
    }
    if !summary.top_urls.is_empty() {
        out.push_str("<h2>What was fetched most</h2>\n<table>\n");
        for (url, count) in &summary.top_urls {
            let _ = writeln!(
                out,
                "<tr><td class=\"n\">{}</td><td class=\"url\">{}</td></tr>",
                number(*count),
                escaped(url)
            );
        }
        out.push_str("</table>\n");
    }
    if summary.sites.len() > 1 {
        out.push_str(
            "<h2>Sites</h2>\n<table><tr><th>site</th><th class=\"n\">lines</th><th class=\"n\">events</th>\
             <th class=\"n\">repeats</th><th class=\"n\">bots</th><th class=\"n\">excluded</th></tr>\n",
        );
        for (name, of) in &summary.sites {
            let _ = write!(out, "<tr><td>{}</td>", escaped(name));
            for count in [of.lines, of.event, of.repeat, of.bot, of.excluded] {
                let _ = write!(out, "<td class=\"n\">{}</td>", number(count));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</table>\n");
    }
    if !summary.unparsed_samples.is_empty() {
        out.push_str("<h2>Some lines that don't fit the format</h2>\n<table>\n");
        for sample in &summary.unparsed_samples {
            let _ = writeln!(
                out,
                "<tr><td class=\"url\">{}</td><td class=\"n\">{}</td><td class=\"url\"><code>{}</code></td></tr>",
                escaped(&sample.path),
                number(sample.offset),
                escaped(&sample.line)
            );
        }
        out.push_str("</table>\n");
    }
    out.push_str("</body></html>\n");
    out
}

/// Upright bars over a time.
fn columns(values: &[(String, u64)]) -> String {
    const WIDTH: f64 = 940.0;
    const HEIGHT: f64 = 220.0;
    let most = values.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let step = WIDTH / values.len() as f64;
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" width=\"100%\">\n", HEIGHT + 40.0);
    let _ = writeln!(out, "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{0}\" y2=\"{0}\"/>", HEIGHT + 16.0);
    // As many labels as have room.
    let every = values.len().div_ceil(8).max(1);
    for (index, (name, count)) in values.iter().enumerate() {
        let height = *count as f64 / most as f64 * HEIGHT;
        let (x, y) = (index as f64 * step, HEIGHT + 16.0 - height);
        let (name, shown) = (escaped(name), grouped(*count));
        let width = (step - 1.5).clamp(0.5, 60.0);
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{name}: {shown}</title></rect>"
        );
        if index % every == 0 {
            // On a telephone every second one has room.
            let class = if index / every % 2 == 1 { " class=\"between\"" } else { "" };
            let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{:.1}\"{class}>{name}</text>", HEIGHT + 38.0);
        }
    }
    let _ = writeln!(out, "<text x=\"0\" y=\"12\">most: {}</text>\n</svg>", grouped(most));
    out
}

/// Lying bars with their names.
fn bars(values: &[(String, u64)]) -> String {
    const ROW: f64 = 24.0;
    let most = values.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let mut out = format!("<svg viewBox=\"0 0 940 {}\" role=\"img\" width=\"100%\">\n", ROW * values.len() as f64);
    for (index, (name, count)) in values.iter().enumerate() {
        let (y, width) = (index as f64 * ROW, *count as f64 / most as f64 * 720.0);
        let _ = writeln!(
            out,
            "<text x=\"0\" y=\"{:.1}\">{}</text><rect x=\"80\" y=\"{:.1}\" width=\"{width:.1}\" height=\"16\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            y + 16.0,
            escaped(name),
            y + 4.0,
            88.0 + width,
            y + 16.0,
            grouped(*count)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// `1234567` as `1 234 567`, with spaces that don't break.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Text in HTML. What a log holds comes from strangers.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if misleads(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_strangers_wrote_is_text_on_the_page() {
        let mut summary = Summary { lines: 1_234_567, event: 3, ..Summary::default() };
        summary.sample(Path::new("a.log"), 7, b"<script>alert('x')</script>\x1b[31m");
        summary.top_urls.push(("https://docs.example.org/\"><img src=x>.pdf".to_owned(), 3));
        let page = page(&summary, true);
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\u{1b}'), "{page}");
        assert!(page.contains("1\u{202f}234\u{202f}567"), "{page}");
    }
}

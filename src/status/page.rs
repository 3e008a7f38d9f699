//! The status page: one page that needs nothing else, and shows itself anew every 10 seconds. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::report::{escaped, grouped};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --paper: #fff; --line: #e3e6ea; --bad: #b3261e; --good: #1a7f37; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #9aa3ad; --paper: #16191d; --line: #2c3138; --bad: #ff8a80; --good: #56d364; }
}
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } p { margin: .25rem 0; color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.path { word-break: break-all; } .bad { color: var(--bad); } .good { color: var(--good); }
";

/// The page, from the picture of the state; `notes` say why it isn't ready.
pub fn page(picture: &Value, notes: &[String], uptime_seconds: i64) -> String {
    let number = |value: &Value| value.as_u64().map_or_else(|| "?".to_owned(), grouped);
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>silktail</title>\
         <meta http-equiv=\"refresh\" content=\"10\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>{STYLE}</style></head><body>\n<h1>silktail {}</h1>\n<p>up {} h {} min, state in {}</p>\n",
        env!("CARGO_PKG_VERSION"),
        uptime_seconds / 3600,
        uptime_seconds / 60 % 60,
        text(&picture["state_dir"]),
    );
    if notes.is_empty() {
        out.push_str("<p class=\"good\">ready</p>\n");
    }
    for note in notes {
        let _ = writeln!(out, "<p class=\"bad\">{}</p>", escaped(note));
    }
    out.push_str(
        "<h2>Sites</h2>\n<table><tr><th>site</th><th>state</th><th class=\"n\">waiting</th><th class=\"n\">in flight</th>\
         <th class=\"n\">delivered</th><th class=\"n\">rejected</th><th class=\"n\">lines</th><th class=\"n\">events</th>\
         <th class=\"n\">bots</th><th class=\"n\">repeats</th><th class=\"n\">excluded</th></tr>\n",
    );
    for site in picture["sites"].as_array().into_iter().flatten() {
        let good = site["state"] == "sending";
        let class = if good { "good" } else { "bad" };
        let _ = write!(out, "<tr><td>{}</td><td class=\"{class}\">{}</td>", text(&site["name"]), text(&site["state"]));
        for value in [&site["waiting"], &site["in_flight"], &site["delivered"], &site["rejected"]] {
            let _ = write!(out, "<td class=\"n\">{}</td>", number(value));
        }
        for fate in ["lines", "event", "bot", "repeat", "excluded"] {
            let _ = write!(out, "<td class=\"n\">{}</td>", number(&site["counts"][fate]));
        }
        out.push_str("</tr>\n");
        if site["last_error"].is_string() {
            let _ =
                writeln!(out, "<tr><td></td><td colspan=\"10\" class=\"bad\">{}</td></tr>", text(&site["last_error"]));
        }
    }
    out.push_str(
        "</table>\n<h2>Logs</h2>\n<table><tr><th>log</th><th class=\"n\">at</th><th class=\"n\">of</th><th class=\"n\">behind</th>\
         <th class=\"n\">lines</th><th class=\"n\">unparsed</th><th class=\"n\">too long</th></tr>\n",
    );
    for log in picture["logs"].as_array().into_iter().flatten() {
        let _ = write!(out, "<tr><td class=\"path\">{}</td>", text(&log["path"]));
        for value in [&log["offset"], &log["size"], &log["lag_bytes"]] {
            let _ = write!(out, "<td class=\"n\">{}</td>", number(value));
        }
        for fate in ["lines", "unparsed", "too_long"] {
            let _ = write!(out, "<td class=\"n\">{}</td>", number(&log["counts"][fate]));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n</body></html>\n");
    out
}

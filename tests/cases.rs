//! Cases of configuration and log: exactly which POSTs they become, and what became of the other lines.
//!
//! Each directory of `fixtures/cases` holds `sites.toml` (where `LOGS` is the log's directory), `access.log`, the POSTs'
//! bodies in `events.jsonl` and the summary's counts in `counts.json`. `UPDATE=1 cargo test --test cases` writes the
//! last two anew: read them before you keep them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::Sandbox;
use serde_json::{Map, Value};

const FATES: [&str; 7] = ["too_long", "unparsed", "unmatched", "excluded", "bot", "repeat", "event"];

fn golden(path: &Path, got: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, got).unwrap();
    }
    assert_eq!(got, fs::read_to_string(path).unwrap_or_default(), "{}", path.display());
}

#[test]
fn each_case_becomes_these_posts_and_no_others() {
    let mut cases: Vec<PathBuf> = fs::read_dir("fixtures/cases").unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 4, "the fixtures are there");
    for case in cases {
        let sandbox = Sandbox::new();
        sandbox.configure(1, &fs::read_to_string(case.join("sites.toml")).unwrap());
        fs::copy(case.join("access.log"), sandbox.path("access.log")).unwrap();

        let bodies = sandbox.run(&["backfill", "--dry-run"]).expect_code(0).stdout;
        golden(&case.join("events.jsonl"), &bodies);

        // The bodies have standard output, so the summary is on standard error, and last.
        let summary = sandbox.run(&["backfill", "--dry-run", "--json"]).expect_code(0);
        let summary: Value =
            serde_json::from_str(summary.stderr.lines().last().unwrap_or_default()).expect("the summary is JSON");
        let counts: Map<String, Value> =
            ["lines"].iter().chain(&FATES).map(|fate| ((*fate).to_owned(), summary[*fate].clone())).collect();
        let sum: u64 = FATES.iter().filter_map(|fate| counts[*fate].as_u64()).sum();
        assert_eq!(counts["lines"], sum, "{}: every line has one fate", case.display());
        golden(&case.join("counts.json"), &format!("{}\n", Value::Object(counts)));
    }
}

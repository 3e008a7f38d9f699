//! What the fuzz targets (`fuzz/`) have found worth keeping goes through the same functions in every run of the tests.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "../fuzz/shared.rs"]
mod shared;

use std::fs;

#[test]
fn the_corpus_goes_through_every_parser() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for target in ["lines", "log_format", "config", "server_config"] {
        for file in fs::read_dir(format!("fixtures/fuzz/{target}")).unwrap() {
            let data = fs::read(file.unwrap().path()).unwrap();
            match target {
                "lines" => shared::lines(&data),
                "log_format" => shared::log_format(&data),
                "config" => shared::config(&data, folder.path()),
                _ => shared::server_config(&data),
            }
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen} files");
}

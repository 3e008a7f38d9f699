//! What the documents show works: every configuration loads, every command is one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use silktail::cli::Cli;

fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    all.push(PathBuf::from("README.md"));
    all.sort();
    assert!(all.len() >= 3, "{all:?}");
    all
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    let open = format!("```{language}\n");
    while let Some(at) = rest.find(&open) {
        let block = &rest[at + open.len()..];
        let end = block.find("\n```").expect("a block that ends");
        blocks.push(block[..end + 1].to_owned());
        rest = &block[end + 4..];
    }
    blocks
}

#[test]
fn every_configuration_in_the_documents_loads() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for document in documents() {
        for (index, block) in blocks(&fs::read_to_string(&document).unwrap(), "toml").into_iter().enumerate() {
            let path = folder.path().join("config.toml");
            fs::write(&path, &block).unwrap();
            let loaded = silktail::config::load(&path, &|_| None)
                .unwrap_or_else(|report| panic!("{} {index}:\n{}", document.display(), report.render(false)));
            assert_eq!(loaded.warnings.warnings, 0, "{}: {}", document.display(), loaded.warnings.render(false));
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} configurations");
}

#[test]
fn every_silktail_command_in_the_documents_is_one() {
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for line in blocks(&text, "sh").iter().flat_map(|block| block.lines()) {
            for part in line.split('|') {
                let words: Vec<&str> = part.split_whitespace().skip_while(|word| *word == "sudo").collect();
                if words.first() != Some(&"silktail") {
                    continue;
                }
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{}: `{line}`: {}", document.display(), parsed.unwrap_err());
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "{seen} commands");
}

/// CI runs both as they stand here.
#[test]
fn the_readme_has_the_two_commands_that_do_everything() {
    let commands = blocks(&fs::read_to_string("README.md").unwrap(), "sh").concat();
    for command in ["cargo run --locked --release -- demo", "cargo test --locked"] {
        assert!(commands.lines().any(|line| line == command), "{command}");
    }
}

/// The page on rules shows the case that is tested.
#[test]
fn the_rules_that_are_shown_are_the_rules_that_are_tested() {
    let tested = fs::read_to_string("fixtures/cases/events-beyond-downloads/sites.toml").unwrap();
    let tested = tested.replace("LOGS/access.log", "/var/log/nginx/docs.access.log");
    let shown = fs::read_to_string("docs/rules.md").unwrap();
    assert!(shown.contains(tested.trim()), "docs/rules.md differs from the fixture");
}

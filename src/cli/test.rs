//! `silktail test`: the expectations that the configuration holds.

use std::path::Path;

use super::explain::disagreement;
use super::{Failure, load, print, printable, say};
use crate::config::Config;

/// The arguments of `test`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the expectations.
pub fn run(config_path: &Path, _args: &Args) -> Result<(), Failure> {
    let config = load(config_path)?;
    let failed = expectations(&config)?;
    let all = config.tests.len();
    if all == 0 {
        say("there is no [[test]] in the configuration");
    }
    print(&format!(
        "{}: {} of {all} expectations hold\n",
        printable(&config_path.display().to_string()),
        all - failed
    ))?;
    if failed > 0 { Err(Failure::Said(1)) } else { Ok(()) }
}

/// Says which expectations don't hold, and why, and how many those are.
///
/// # Errors
/// An expectation without a line.
pub(super) fn expectations(config: &Config) -> Result<usize, Failure> {
    let mut failed = 0;
    for expectation in &config.tests {
        if let Some((difference, explanation)) = disagreement(config, expectation)? {
            failed += 1;
            let indented: String = explanation.lines().map(|line| format!("  {line}\n")).collect();
            say(&format!("error: {}: {difference}\n{}", printable(&expectation.place), indented.trim_end()));
        }
    }
    Ok(failed)
}

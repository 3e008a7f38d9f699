//! `silktail run`: the daemon.

use std::path::Path;

use super::{Failure, load};
use crate::{daemon, journal, ledger::Ledger};

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set the state aside and begin anew: for one that cannot be read
    ///
    /// Its file is kept beside the new one. Logs are then begun as `start` says, and what was sent is forgotten.
    #[arg(long)]
    state_reset: bool,
    /// How log lines are written
    ///
    /// They go to standard error; where that is the journal, each line has its priority there.
    #[arg(long, value_name = "FORM", env = "SILKTAIL_LOG_FORMAT", default_value = "text")]
    log_format: journal::Form,

    /// Ends as at SIGTERM when the process that started it ends: for `demo`
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

/// Runs the daemon.
pub fn run(config: &Path, args: &Args) -> Result<(), Failure> {
    // Before anything else, so that a signal that comes early is not the end of the process but of the run.
    let signals =
        daemon::Signals::catch().map_err(|error| Failure::Failed(format!("cannot handle signals: {error}")))?;
    if args.end_with_parent {
        use rustix::process::{Signal, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| Failure::Failed(format!("cannot ask for the parent's end: {error}")))?;
    }
    let config = load(config)?;
    journal::start(args.log_format);
    if args.state_reset {
        match Ledger::reset(&config.state_dir) {
            Ok(Some(aside)) => tracing::warn!(kept_at = %aside.display(), "state set aside, beginning anew"),
            Ok(None) => tracing::info!("there was no state to set aside"),
            Err(error) => return Err(Failure::from_error(&error)),
        }
    }
    daemon::run(config, signals).map_err(|error| Failure::from_error(&error))
}

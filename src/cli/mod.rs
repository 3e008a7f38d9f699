//! The program's face: the command line, and one file for each command.
//!
//! Data goes to standard output, everything else to standard error. Exit status: 0 done; 1 failed; 2 the command line
//! or the configuration is wrong.

mod backfill;
mod check;
mod completions;
mod demo;
mod explain;
mod init;
mod man;
mod owner;
mod receive;
mod rejected;
mod run;
mod status;
mod test;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::journal::{self, misleads, shown_json};

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/silktail/config.toml";

/// Records downloads and other requests from web server logs in Silktide Analytics
///
/// silktail follows nginx and Apache access logs and records the requests that matter as events in Silktide Analytics:
/// above all downloads, which no JavaScript can see when a file is opened straight from a search engine, a mail or a
/// bookmark.
///
/// The API has no time field: an event counts as happening when it is sent.
#[derive(Debug, Parser)]
#[command(name = "silktail", version, max_term_width = 100, propagate_version = false)]
pub struct Cli {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the logs of all sites until SIGTERM (the daemon)
    Run(run::Args),
    /// Read old logs once, to their end, and exit
    Backfill(backfill::Args),
    /// Check the configuration and the logs it names
    ///
    /// Every mistake of the configuration is named at once, with its line and, where there is one, the likely fix. Then
    /// up to 1,000 recent lines of each log are read: how many fit, and the first that doesn't; whether a proxy seems to
    /// stand in front. As root it says what the owner of `state_dir` could not read.
    ///
    /// Exit status: 2 where the configuration is wrong, 1 where an expectation ([[test]]) doesn't hold. What is wrong with
    /// logs is a warning; with --strict it is exit status 1.
    Check(check::Args),
    /// Show what is read from a line, which rule decides, and the POST it becomes
    ///
    /// A line that doesn't fit is shown with a caret under the place, and one under the part of the format. Of several
    /// lines each is judged after those before it: a repeat is shown as one. Nothing is sent or remembered. Of a line that is
    /// longer than `[follow] max_line` the beginning is shown.
    ///
    /// tail -n 20 /var/log/nginx/access.log | silktail explain
    Explain(explain::Args),
    /// Run the expectations that the configuration holds ([[test]])
    ///
    /// Each says of a line what must come of it: a fate (`expect = "bot"`) or an event
    /// (`expect = { event = "download", url = "…" }`). Those that don't hold are named with what came instead, and the
    /// exit status is 1. `silktail check` runs them too.
    Test(test::Args),
    /// Print a configuration made from the nginx or Apache set-up found on this machine
    ///
    /// Without a path it looks at /etc/nginx/nginx.conf, /etc/apache2/apache2.conf and /etc/httpd/conf/httpd.conf.
    /// Elsewhere, or in a container: nginx -T | silktail init --nginx -
    ///
    /// What it could not read is named on standard error, and as comments in what it prints.
    Init(init::Args),
    /// Show sites, logs, offsets, backlog, counts, last error
    ///
    /// It reads the state, whether the daemon runs or not, and changes nothing.
    Status(status::Args),
    /// Look at events that the endpoint refused for good, send them again, forget them
    ///
    /// They are kept for 30 days, and 100,000 of them, or 64 MiB, at most.
    Rejected(rejected::Args),
    /// A local endpoint that checks every POST against the API and prints it
    ///
    /// Put the address that it names into `[endpoint] url` to see what would arrive, without telling Silktide. Bodies go
    /// to standard output, property keys included; what the API doesn't allow in them goes to standard error. It ends at
    /// Ctrl-C or SIGTERM.
    Receive(receive::Args),
    /// See the whole thing work: a local endpoint, a log being written, the events arriving
    ///
    /// It takes a few seconds, needs no configuration, and leaves nothing behind.
    Demo(demo::Args),
    /// Print a shell's completions
    ///
    /// silktail completions bash > /etc/bash_completion.d/silktail
    Completions(completions::CompletionsArgs),
    /// Print the man pages: the commands', or the configuration's
    ///
    /// silktail man | man -l -; silktail man config | man -l -
    Man(man::Args),
}

/// Why a command failed, and with which exit status.
#[derive(Debug)]
pub enum Failure {
    /// Exit status 1.
    Failed(String),
    /// Exit status 2: the command line or the configuration is wrong.
    Usage(String),
    /// Exit status 1 or 2, and everything has been said.
    Said(u8),
}

impl Failure {
    /// A failure with an error's whole chain of causes.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Failure::Failed(text)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    survive_limits();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data, the rest is an error; clap knows the stream, and 2 is its status for errors.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let config = &cli.config;
    let result = match cli.command {
        Command::Run(args) => run::run(config, &args),
        Command::Backfill(args) => backfill::run(config, &args),
        Command::Check(args) => check::run(config, &args),
        Command::Explain(args) => explain::run(config, &args),
        Command::Test(args) => test::run(config, &args),
        Command::Init(args) => init::run(config, &args),
        Command::Status(args) => status::run(config, &args),
        Command::Rejected(args) => rejected::run(config, &args),
        Command::Receive(args) => receive::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::run(&args),
    };
    journal::say_recurring(true);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said(status)) => ExitCode::from(status),
        Err(Failure::Failed(text)) => {
            complain(&text);
            ExitCode::from(1)
        }
        Err(Failure::Usage(text)) => {
            complain(&text);
            ExitCode::from(2)
        }
    }
}

/// A write beyond the limit on the size of files (`ulimit -f`) fails like one to a full disk: by default the kernel ends the
/// program there, without a word.
fn survive_limits() {
    // Any handler will do. Programs that are started from here have the default again, as with a signal that is ignored they
    // wouldn't. Where it can't be set, the kernel does as it always did.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

fn complain(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

/// Prints to standard output; a closed pipe (`| head`) ends the program quietly, as users of pipes expect.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::Said(0)),
        Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints JSON to standard output: byte for byte, but that on a terminal nothing misleads.
pub fn print_json(json: &str) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() { print(&shown_json(json)) } else { print(json) }
}

/// Prints JSON to standard error; the same.
pub fn say_json(json: &str) {
    if std::io::stderr().is_terminal() { say(&shown_json(json)) } else { say(json) }
}

/// Prints to standard error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether to colour what goes to standard error.
pub fn colour() -> bool {
    crate::journal::may_colour(std::io::stderr().is_terminal())
}

/// Loads the configuration; says its warnings, or all its errors.
pub fn load(path: &Path) -> Result<Config, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    match config::load(path, &env) {
        Ok(loaded) => {
            if loaded.warnings.warnings > 0 {
                say(loaded.warnings.render(colour()).trim_end());
            }
            Ok(loaded.config)
        }
        Err(report) => {
            say(report.render(colour()).trim_end());
            Err(Failure::Said(2))
        }
    }
}

/// What misleads in a text of a log or of the network never reaches the terminal as it is.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if misleads(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

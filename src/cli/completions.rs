//! `silktail completions`.

use clap::CommandFactory;

use super::{Cli, Failure, print};

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints a shell's completions.
pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "silktail", &mut out);
    print(&String::from_utf8_lossy(&out))
}

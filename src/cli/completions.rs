//! `silktail completions` and `silktail man`.

use clap::CommandFactory;

use super::{Cli, Failure, print};

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// The arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {}

/// Prints a shell's completions.
pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "silktail", &mut out);
    print(&String::from_utf8_lossy(&out))
}

/// Prints the man page, the commands' pages behind it.
pub fn man(_args: &ManArgs) -> Result<(), Failure> {
    let mut out = Vec::new();
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot make the man page: {error}"));
    let command = Cli::command();
    clap_mangen::Man::new(command.clone()).render(&mut out).map_err(failed)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let page = clap_mangen::Man::new(sub.clone().display_name(format!("silktail-{}", sub.get_name())));
        page.render(&mut out).map_err(failed)?;
    }
    print(&String::from_utf8_lossy(&out))
}

//! `silktail man`: silktail(1) with its commands' pages behind it, and silktail.toml(5), made from the table of keys.

use clap::CommandFactory;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::{Cli, DEFAULT_CONFIG, Failure, print};
use crate::config::keys::{Key, SECTIONS, TOPICS, Unset};

/// What the pages are of.
const SOURCE: &str = concat!("silktail ", env!("CARGO_PKG_VERSION"));
/// An empty argument, as roff writes it: the same sources make the same pages.
const NO_DATE: &str = "\"\"";

/// The arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which page: the program's with its commands' behind it, or the configuration's
    #[arg(default_value = "silktail")]
    page: Page,
}

/// What there is a page of.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Page {
    /// silktail(1)
    Silktail,
    /// silktail.toml(5)
    #[value(alias = "silktail.toml")]
    Config,
}

/// Prints the pages.
pub fn run(args: &Args) -> Result<(), Failure> {
    let pages = match args.page {
        Page::Silktail => commands().map_err(|error| Failure::Failed(format!("cannot make the man page: {error}")))?,
        Page::Config => configuration().render(),
    };
    print(&pages)
}

/// The program's page, and a page for each command.
fn commands() -> std::io::Result<String> {
    let mut out = Vec::new();
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    page_of(&command, "silktail").render(&mut out)?;
    about().to_writer(&mut out)?;
    for sub in command.get_subcommands() {
        with_its_own(sub, "silktail", &mut out)?;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A command's page, and those of its own commands.
fn with_its_own(command: &clap::Command, of: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
    let name = format!("{of}-{}", command.get_name());
    page_of(command, &name).render(out)?;
    command.get_subcommands().try_for_each(|sub| with_its_own(sub, &name, out))
}

fn page_of(command: &clap::Command, name: &str) -> clap_mangen::Man {
    let page = clap_mangen::Man::new(command.clone().display_name(name.to_owned()).disable_help_subcommand(true));
    page.date(NO_DATE).source(SOURCE).manual("User commands")
}

/// What silktail(1) says beyond the command line.
fn about() -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["FILES"]);
    for (path, what) in [
        (DEFAULT_CONFIG, "The configuration: see silktail.toml(5)."),
        ("/var/lib/silktail", "The state, unless `state_dir` or `$STATE_DIRECTORY` say otherwise."),
    ] {
        page.control("TP", []).text([bold(path)]).text(inlines(what));
    }
    page.control("SH", ["SIGNALS"]);
    for (signal, what) in [
        ("SIGTERM, SIGINT", "Stop: what waits is sent, for 20 seconds at most. A second one stops at once."),
        ("SIGHUP", "Of `run`: take the configuration anew, whole or not at all. Of `backfill`: stop, as at SIGTERM."),
    ] {
        page.control("TP", []).text([bold(signal)]).text(inlines(what));
    }
    page.control("SH", ["EXIT STATUS"]);
    for (status, what) in [("0", "Done."), ("1", "Failed."), ("2", "The command line or the configuration is wrong.")] {
        page.control("TP", []).text([bold(status)]).text(inlines(what));
    }
    page.control("SH", ["SEE ALSO"]).text([bold("silktail.toml"), roman("(5)")]);
    page
}

/// The configuration's page.
fn configuration() -> Roff {
    let mut page = Roff::new();
    page.control("TH", ["silktail.toml", "5", NO_DATE, SOURCE, "File formats"]);
    page.control("SH", ["NAME"]).text([roman("silktail.toml - the configuration of silktail")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text(inlines(&format!(
        "The configuration of `silktail` is a TOML file, `{DEFAULT_CONFIG}` unless `--config` names another. `silktail check` \
         says what is wrong with it, `silktail init` makes one."
    )));
    for section in SECTIONS {
        page.control("SH", [section.heading]).text(inlines(section.meaning));
        for key in section.keys {
            page.control("TP", []).text([bold(key.name), roman(" ("), roman(plain(key.kind)), roman(")")]);
            page.text(inlines(key.meaning)).control("br", []).text(inlines(&without(key)));
        }
    }
    for (title, text) in TOPICS {
        page.control("SH", [title.to_uppercase().as_str()]).text(inlines(text));
    }
    page.control("SH", ["SEE ALSO"]).text([bold("silktail"), roman("(1)")]);
    page
}

/// What holds without a key.
fn without(key: &Key) -> String {
    match key.unset {
        Unset::Default(value) => format!("Default: `{value}`"),
        Unset::Needed => "Needed.".to_owned(),
        Unset::Means(words) => format!("Without it: {words}."),
    }
}

fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Markdown's code is bold.
fn inlines(text: &str) -> Vec<Inline> {
    let pieces = text.split('`').enumerate();
    pieces.map(|(index, piece)| if index % 2 == 1 { bold(piece) } else { roman(piece) }).collect()
}

//! What the documents show works: every configuration loads, every command is run, every message is said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{CommandFactory, Parser};
use common::{Endpoint, KEY, Sandbox, combined};
use regex::Regex;
use silktail::cli::Cli;
use silktail::config::keys::{SECTIONS, TOPICS, Unset};

fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    all.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from));
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

/// A line of a shell snippet, and where it stands.
struct Shown {
    document: PathBuf,
    section: String,
    line: String,
}

/// Every line of every shell snippet, comments aside.
fn shell_lines() -> Vec<Shown> {
    let mut lines = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let (mut section, mut language) = (String::new(), None);
        for line in text.lines() {
            match (line.strip_prefix("```"), language) {
                (Some(opened), None) => language = Some(opened),
                (Some(_), Some(_)) => language = None,
                (None, Some("sh")) => {
                    let line = line.split(" #").next().unwrap_or_default().trim_end();
                    assert!(!line.ends_with('\\'), "{}: a command is one line: {line}", document.display());
                    lines.push(Shown { document: document.clone(), section: section.clone(), line: line.to_owned() });
                }
                (None, None) => section = line.strip_prefix("## ").map_or(section, str::to_owned),
                _ => {}
            }
        }
    }
    assert!(lines.len() >= 30, "{} commands", lines.len());
    lines
}

/// Programs that change the machine or ask its systemd: the sections with them are followed in a machine of their own.
const OF_A_MACHINE: [&str; 7] = ["apt", "systemctl", "useradd", "install", "cp", "journalctl", "cargo"];
/// Those that no trial follows to the letter, each with what does the same.
const ELSEWHERE: [(&str, &str); 12] = [
    (".ci/run", "it runs this"),
    ("packaging/build.sh", ".ci/run with SILKTAIL_NSPAWN=1"),
    ("sudo packaging/nspawn-test.sh", ".ci/run with SILKTAIL_NSPAWN=1"),
    ("cargo run --locked --release -- demo", ".ci/run, in the other profile"),
    ("cargo test --locked", ".ci/run"),
    ("cargo build --locked --release", "packaging/build.sh"),
    ("benches/targets.sh", ".ci/run, some of its rows with a small log"),
    ("benches/compare.sh", ".ci/run, with a small log"),
    ("cargo bench", ".ci/run, each once"),
    ("sudo journalctl --unit silktail --lines 50", "packaging/nspawn-test.sh reads the same journal"),
    ("systemd-analyze security silktail.service", "tests/systemd.rs, before the unit is installed"),
    ("silktail backfill --yes --site docs /var/log/cdn/*.gz", "see the_cdns_files_are_read_as_is_shown"),
];

/// The programs that a line runs, without `sudo`.
fn programs(line: &str) -> impl Iterator<Item = &str> {
    line.split('|').filter_map(|part| part.split_whitespace().find(|word| *word != "sudo"))
}

#[test]
fn every_shell_snippet_is_run_here_or_in_the_machine_that_is_booted_for_it() {
    let trial = fs::read_to_string("packaging/nspawn-test.sh").unwrap();
    let mut here = 0;
    let mut elsewhere = Vec::new();
    let mut machine: Option<(PathBuf, Machine)> = None;
    for Shown { document, section, line } in shell_lines() {
        let place = format!("{}, {section}: `{line}`", document.display());
        if ELSEWHERE.iter().any(|(known, _)| *known == line) {
            elsewhere.push(line);
        } else if programs(&line).any(|program| OF_A_MACHINE.contains(&program)) {
            let follows = format!("{} \"{section}\"", document.display());
            assert!(trial.lines().any(|line| line.contains(&follows)), "{place}: nspawn-test.sh has no `{follows}`");
        } else {
            // What one command leaves behind the next may need.
            let (_, machine) = match machine.take() {
                Some(known) if known.0 == document => machine.insert(known),
                _ => machine.insert((document, Machine::new())),
            };
            machine.follow(&line).unwrap_or_else(|said| panic!("{place}: {said}"));
            here += 1;
        }
    }
    assert!(here >= 12, "{here} commands were run");
    for (known, by) in ELSEWHERE {
        assert!(elsewhere.iter().any(|line| line == known), "`{known}` ({by}) is shown nowhere");
    }
}

/// A machine as the documents suppose it, as far as silktail sees it.
struct Machine {
    sandbox: Sandbox,
    endpoint: Endpoint,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { sandbox: Sandbox::new(), endpoint: Endpoint::accepting() };
        let sandbox = &machine.sandbox;
        // Without a terminal nobody can be asked; what is asked elsewhere is answered here.
        let program = format!(
            "#!/bin/sh\nroot={}\ncase $1 in\nbackfill) case \" $* \" in *\" --dry-run \"*) ;; *) set -- \"$@\" --yes ;; esac ;;\n\
             init) set -- \"$@\" --nginx \"$root/etc/nginx/nginx.conf\" ;;\nesac\n\
             exec {} --config \"$root/etc/silktail/config.toml\" \"$@\"\n",
            sandbox.path("").display(),
            env!("CARGO_BIN_EXE_silktail"),
        );
        for (name, text) in [("bin/silktail", program.as_str()), ("bin/sudo", "#!/bin/sh\nexec \"$@\"\n")] {
            sandbox.write(name, text);
            fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let log: String = (0..20).map(|n| combined("192.0.2.7", n * 60, &format!("/{n}.pdf"))).collect();
        sandbox.write("var/log/nginx/access.log", &log);
        sandbox.write("home/silktail/config.toml", "");
        let log = sandbox.path("var/log/nginx/access.log").display().to_string();
        let server = format!("events {{}}\nhttp {{ server {{ server_name docs.example.org; access_log {log}; }} }}\n");
        sandbox.write("etc/nginx/nginx.conf", &server);
        machine
    }

    /// Runs a line as it stands, with the machine's places in the sandbox.
    fn follow(&self, line: &str) -> Result<(), String> {
        let root = self.sandbox.path("").display().to_string();
        let root = root.trim_end_matches('/');
        // As the reader left it, with all that was to be filled in.
        let config = format!(
            "state_dir = \"{root}/var/lib/silktail\"\n[endpoint]\nurl = \"http://127.0.0.1:{}/v1/events\"\n[[site]]\n\
             name = \"docs\"\nbase_url = \"https://docs.example.org\"\nproperty_key = \"{KEY}\"\n\
             logs = [\"{root}/var/log/nginx/access.log\"]\n",
            self.endpoint.port
        );
        self.sandbox.write("etc/silktail/config.toml", &config);
        let mut here = line.to_owned();
        for place in ["/etc/", "/var/"] {
            here = here.replace(&format!(" {place}"), &format!(" {root}{place}"));
        }
        let done = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &here])
            .current_dir(self.sandbox.path("home"))
            .env("HOME", self.sandbox.path("home"))
            .env("PATH", format!("{root}/bin:{}", std::env::var("PATH").unwrap_or_default()))
            .env_remove("STATE_DIRECTORY")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if done.status.success() { Ok(()) } else { Err(format!("{}: {said}", done.status)) }
    }
}

/// The command for a CDN's archives, run twice.
#[test]
fn the_cdns_files_are_read_as_is_shown() {
    let machine = Machine::new();
    let file = fs::File::create(machine.sandbox.path("var/log/1.gz")).unwrap();
    let mut archive = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    archive.write_all(combined("192.0.2.7", 1, "/cdn.pdf").as_bytes()).unwrap();
    archive.finish().unwrap();
    let cdn = machine.sandbox.path("var/log/cdn");
    fs::create_dir(&cdn).unwrap();
    fs::rename(machine.sandbox.path("var/log/1.gz"), cdn.join("1.gz")).unwrap();
    let (line, _) = ELSEWHERE.into_iter().find(|(line, _)| line.contains("/cdn/")).unwrap();
    for _ in 0..2 {
        machine.follow(&line.replace(" --yes", "")).unwrap();
        assert_eq!(machine.endpoint.delivered().len(), 1);
    }
}

#[test]
fn every_silktail_command_in_the_documents_is_one() {
    let mut seen = 0;
    for Shown { document, line, .. } in shell_lines() {
        for part in line.split('|') {
            let part = part.split(" > ").next().unwrap_or_default();
            let words: Vec<&str> = part.split_whitespace().skip_while(|word| *word == "sudo").collect();
            if words.first() != Some(&"silktail") {
                continue;
            }
            let parsed = Cli::try_parse_from(&words);
            assert!(parsed.is_ok(), "{}: `{line}`: {}", document.display(), parsed.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen} commands");
}

/// What stands in fences is of a kind that a test here looks at, or named as one that none does.
#[test]
fn every_snippet_is_of_a_known_kind() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let fences: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("```")).collect();
        for (open, close) in fences.chunks(2).map(|pair| (pair[0], pair.get(1).copied())) {
            // crontab, js and yaml are shown, not tried: cron's line, what only Silktide's script has in the browser, and
            // Prometheus' own configuration.
            let known = ["sh", "toml", "nginx", "apache", "crontab", "js", "yaml", "text"].contains(&open);
            assert!(known && close == Some(""), "{}: a fence of `{open}`", document.display());
        }
    }
}

/// nginx and Apache take their snippets, where they are installed.
#[test]
fn every_servers_snippet_is_taken_by_that_server() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("log")).unwrap();
    let logs = sandbox.path("log").display().to_string();
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let here = |block: &str| block.replace("/var/log/nginx", &logs).replace("/var/log/apache2", &logs);
        for block in blocks(&text, "nginx") {
            let whole = format!("pid {logs}/pid;\nerror_log {logs}/error;\nevents {{}}\nhttp {{\n{}}}\n", here(&block));
            sandbox.write("nginx.conf", &whole);
            seen += usize::from(takes("nginx", &["-t", "-c"], &sandbox.path("nginx.conf")));
        }
        for block in blocks(&text, "apache") {
            let modules = "/usr/lib/apache2/modules";
            let loads =
                ["mpm_event", "authz_core"].map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so\n"));
            let whole = format!(
                "{}ServerName localhost\nListen 127.0.0.1:1\nErrorLog {logs}/error\n{}",
                loads.concat(),
                here(&block)
            );
            sandbox.write("apache.conf", &whole);
            seen += usize::from(takes("apache2", &["-t", "-f"], &sandbox.path("apache.conf")));
        }
    }
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(seen >= 3 || !is_ci, "{seen} snippets were tried: nginx and Apache must be installed where CI=true");
}

/// Whether a server is there; it must then find its configuration right.
fn takes(server: &str, words: &[&str], path: &Path) -> bool {
    let place = format!("/usr/sbin/{server}");
    if !Path::new(&place).exists() {
        eprintln!("SKIPPED: {server} isn't installed");
        return false;
    }
    let done = Command::new(place).args(words).arg(path).output().unwrap();
    assert!(done.status.success(), "{}: {}", fs::read_to_string(path).unwrap(), String::from_utf8_lossy(&done.stderr));
    true
}

/// The last text of each `tracing::warn!` and `tracing::error!` in the code: what is said. One that is put together of
/// other texts alone is none.
fn messages() -> Vec<String> {
    let calls = Regex::new(r"tracing::(warn|error)!\(").unwrap();
    let texts = Regex::new(r#"^"((?:[^"\\]|\\.)*)""#).unwrap();
    let mut all = Vec::new();
    for path in sources(Path::new("src")) {
        let code = fs::read_to_string(&path).unwrap();
        for call in calls.find_iter(&code) {
            let (mut rest, mut depth, mut last) = (&code[call.end()..], 1, None);
            while depth > 0 {
                let mut taken = 1;
                match rest.as_bytes()[0] {
                    b'(' => depth += 1,
                    b')' => depth -= 1,
                    b'"' => {
                        let text = texts.captures(rest).unwrap();
                        (taken, last) = (text[0].len(), Some(text[1].to_owned()));
                    }
                    _ => {}
                }
                // A text is the only place where more than ASCII may stand.
                rest = &rest[taken..];
            }
            let said = last.unwrap_or_else(|| panic!("{}: a line that says nothing", path.display()));
            all.extend(Some(said).filter(|said| said.contains(' ')));
        }
    }
    all
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => all.extend(sources(&path)),
            Some(extension) if extension == "rs" => all.push(path),
            _ => {}
        }
    }
    all
}

#[test]
fn every_warning_and_error_is_explained_and_none_that_is_not_said() {
    let page = fs::read_to_string("docs/troubleshooting.md").unwrap();
    let messages = messages();
    assert!(messages.len() >= 25, "{messages:?}");
    for message in &messages {
        // What is put into it stands before or behind.
        let fixed = message.split(['{', '}', '`']).max_by_key(|piece| piece.len()).unwrap_or_default();
        let fixed = fixed.split(':').next().unwrap_or_default().trim();
        assert!(page.contains(fixed), "docs/troubleshooting.md says nothing about: {message}");
    }
    let code: String = sources(Path::new("src")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let quoted = Regex::new(r"(?:WARN|ERROR) `([^`]+)`").unwrap();
    let mut seen = 0;
    for quote in quoted.captures_iter(&page) {
        assert!(code.contains(&quote[1]), "nothing says: {}", &quote[1]);
        seen += 1;
    }
    assert!(seen >= 20, "{seen} messages");
    // At the start, in the first column.
    let start = page.split("### It doesn't start").nth(1).and_then(|rest| rest.split("###").next()).unwrap();
    for row in start.lines().filter(|line| line.starts_with("| `")) {
        let quote = row.split('`').nth(1).unwrap();
        assert!(code.contains(quote), "nothing says: {quote}");
    }
}

/// The reference as the table of keys gives it. `UPDATE=1 cargo test --test docs` writes it anew.
#[test]
fn the_reference_is_what_the_code_says() {
    let made = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::write("docs/configuration.md", &made).unwrap();
    }
    let shown = fs::read_to_string("docs/configuration.md").unwrap();
    assert!(shown == made, "docs/configuration.md isn't what src/config/keys.rs says: UPDATE=1 cargo test --test docs");
}

fn reference() -> String {
    let mut out = "# Configuration\n\n\
        silktail reads one TOML file, `/etc/silktail/config.toml` unless `--config` names another. `silktail check` says what \
        is wrong with it, `silktail init` makes one, and `config.example.toml` has every key in its place. The same as a \
        man page: `man silktail.toml`, or `silktail man config`.\n\n\
        <!-- Made from src/config/keys.rs by: UPDATE=1 cargo test --test docs -->\n"
        .to_owned();
    let cell = |text: &str| text.replace('|', "\\|");
    for section in SECTIONS {
        let code = section.heading.starts_with('[') || section.heading == "expect";
        let heading = if code { format!("`{}`", section.heading) } else { section.heading.to_owned() };
        out += &format!(
            "\n## {heading}\n\n{}\n\n| key | takes | without it | |\n| --- | --- | --- | --- |\n",
            section.meaning
        );
        for key in section.keys {
            let unset = match key.unset {
                Unset::Default(value) => format!("`{value}`"),
                Unset::Needed => "**needed**".to_owned(),
                Unset::Means(words) => words.to_owned(),
            };
            let example = match key.example {
                "" => String::new(),
                example if example.contains('`') => format!(" Example: ``{example}``"),
                example => format!(" Example: `{example}`"),
            };
            let row = [key.kind, &unset, &format!("{}{example}", key.meaning)].map(cell).join(" | ");
            out += &format!("| `{}` | {row} |\n", key.name);
        }
    }
    for (title, text) in TOPICS {
        out += &format!("\n## {title}\n\n{text}\n");
    }
    out
}

/// The manual, as man itself reads it.
#[test]
fn the_man_pages_have_no_fault_that_man_would_tell() {
    let sandbox = Sandbox::new();
    sandbox.configure(1, "");
    for (page, words) in [("silktail.1", &["man"][..]), ("silktail.toml.5", &["man", "config"])] {
        let made = sandbox.run(words);
        assert_eq!(made.code, 0, "{}", made.stderr);
        sandbox.write(page, &made.stdout);
        let rendered =
            Command::new("groff").args(["-man", "-K", "utf8", "-T", "utf8", "-ww"]).arg(sandbox.path(page)).output();
        match rendered {
            Ok(done) => assert!(done.status.success() && done.stderr.is_empty(), "{page}: {done:?}"),
            Err(error) => {
                let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
                assert!(!is_ci, "groff must be installed where CI=true: {error}");
                eprintln!("SKIPPED: groff isn't installed");
            }
        }
    }
    let program = fs::read_to_string(sandbox.path("silktail.1")).unwrap();
    for command in Cli::command().get_subcommands() {
        let head = format!(".TH silktail-{} 1 ", command.get_name());
        assert!(program.contains(&head), "no page of {}", command.get_name());
    }
    let configuration = fs::read_to_string(sandbox.path("silktail.toml.5")).unwrap();
    for key in SECTIONS.iter().flat_map(|section| section.keys) {
        assert!(configuration.contains(&format!("\\fB{}\\fR", key.name)), "{} isn't explained", key.name);
    }
}

/// Links lead to files that are there, and to headings that they have.
#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let links = Regex::new(r"\]\(([^)#\s]*)(?:#([^)]+))?\)").unwrap();
    let anchor = |heading: &str| -> String {
        let kept =
            heading.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != ' ' && c != '-' && c != '_', "");
        kept.replace(' ', "-")
    };
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links.captures_iter(&text).filter(|link| !link[1].contains("://")) {
            let target = if link[1].is_empty() { document.clone() } else { document.with_file_name("").join(&link[1]) };
            assert!(target.exists(), "{}: {} isn't there", document.display(), target.display());
            if let Some(wanted) = link.get(2) {
                let there = fs::read_to_string(&target).unwrap();
                let mut headings =
                    there.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
                assert!(
                    headings.any(|heading| anchor(heading) == wanted.as_str()),
                    "{}: {}",
                    document.display(),
                    &link[0]
                );
            }
        }
    }
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

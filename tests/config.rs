//! The configuration's messages, to the letter, and the example.
//!
//! `UPDATE=1 cargo test --test config` writes the messages anew: read them before you keep them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use silktail::config::keys::{self, Key, Section, Unset};
use silktail::config::{self, FormatChoice, Start};
use silktail::rules::{KeepQuery, PageSource};

fn no_env(_: &str) -> Option<String> {
    None
}

#[test]
fn every_bad_configuration_is_refused_in_these_words() {
    let folder = Path::new("fixtures/config/bad");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 15, "the fixtures are there");
    for file in files {
        let report = config::load(&file, &no_env).expect_err(&file.display().to_string());
        assert!(report.errors > 0, "{}", file.display());
        let got = report.render(false);
        assert!(!got.contains("8bce2be8c07a84a70e7104634b42878b"), "the key shows: {got}");
        let golden = file.with_extension("stderr");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &got).unwrap();
        }
        assert_eq!(got, fs::read_to_string(&golden).unwrap(), "{}", file.display());
    }
}

#[test]
fn the_example_loads_and_shows_the_codes_defaults() {
    let shown = config::load(Path::new("config.example.toml"), &no_env)
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    assert_eq!(shown.warnings.warnings, 0, "{}", shown.warnings.render(false));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let least = "[endpoint]\nurl = \"https://a.eu.silktide.com/v1/events\"\n[[site]]\nname = \"docs\"\n\
        base_url = \"https://docs.example.org\"\nproperty_key = \"8bce2be8c07a84a70e7104634b42878b\"\n\
        logs = [\"/var/log/nginx/docs.access.log\"]\n";
    fs::write(&path, least).unwrap();
    let default = config::load(&path, &no_env).unwrap();
    let (shown, default) = (shown.config, default.config);
    assert_eq!(shown.state_dir, Path::new("/var/lib/silktail"));
    assert_eq!(shown.state_dir, default.state_dir);
    assert_eq!(shown.endpoint, default.endpoint);
    assert_eq!(shown.follow, default.follow);
    assert_eq!(shown.follow.start, Start::End);
    let (shown, default) = (&shown.sites[0], &default.sites[0]);
    assert!(matches!((&shown.format, &default.format), (FormatChoice::Auto, FormatChoice::Auto)));
    assert_eq!(shown.context.page, default.context.page);
    assert_eq!(shown.context.page, [PageSource::Referer, PageSource::OwnUrl]);
    assert_eq!(shown.context.keep_query, default.context.keep_query);
    assert_eq!(shown.context.keep_query, KeepQuery::Only(Vec::new()));
    assert_eq!(shown.repeat_window, default.repeat_window);
    assert_eq!(shown.repeat_window, Duration::from_secs(30));
    assert_eq!(shown.respect_dnt, default.respect_dnt);
    assert_eq!(shown.bots.is_some(), default.bots.is_some());
    assert_eq!(shown.hosts, default.hosts);
}

#[test]
fn every_key_of_the_example_that_stands_commented_out_is_known() {
    let example = fs::read_to_string("config.example.toml").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(folder.path().join("docs.key"), "8bce2be8c07a84a70e7104634b42878b\n").unwrap();
    // Prose has no ` = ` behind its first word.
    let uncommented: Vec<String> = example
        .lines()
        .filter(|line| !line.starts_with("property_key ="))
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.split_whitespace().nth(1) == Some("=") => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    fs::write(&path, uncommented.join("\n")).unwrap();
    let report = config::load(&path, &no_env).expect_err("there is no such ca_file here");
    let text = report.render(false);
    assert!(!text.contains("unknown key") && !text.contains("not there yet"), "{text}");
}

#[test]
fn includes_variables_and_key_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sites.d")).unwrap();
    fs::write(folder.path().join("sites.d/docs.key"), "8bce2be8c07a84a70e7104634b42878b\n").unwrap();
    let site = "[[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\nproperty_key_file = \"docs.key\"\nlogs = [\"docs.log\"]\n";
    fs::write(folder.path().join("sites.d/docs.toml"), site).unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "include = [\"sites.d/*.toml\"]\nstate_dir = \"${STATE}/x\"\n[endpoint]\nurl = \"${URL}\"\n")
        .unwrap();
    let env = |name: &str| match name {
        "STATE" => Some("/srv".to_owned()),
        "URL" => Some("https://a.eu.silktide.com/v1/events".to_owned()),
        _ => None,
    };
    let loaded = config::load(&path, &env).unwrap_or_else(|report| panic!("{}", report.render(false)));
    assert_eq!(loaded.config.state_dir, Path::new("/srv/x"));
    assert_eq!(loaded.config.sites[0].property_key.expose(), "8bce2be8c07a84a70e7104634b42878b");
}

/// The least configuration that has a table of each kind.
fn one_of_each() -> toml::Table {
    toml::toml! {
        [endpoint]
        url = "https://a.eu.silktide.com/v1/events"
        [follow]
        [status]
        listen = "127.0.0.1:9464"
        [formats.mine]
        regex = "^(?P<ip>\\S+) (?P<time>\\S+ \\S+) \"(?P<request>[^\"]*)\" \"(?P<user_agent>[^\"]*)\"$"
        [[site]]
        name = "docs"
        base_url = "https://docs.example.org"
        property_key = "8bce2be8c07a84a70e7104634b42878b"
        logs = ["/nowhere/docs.access.log"]
        [[site.rule]]
        event = "other"
        [[test]]
        line = "-"
        [test.expect]
        reason = "rule"
    }
}

/// The table of a section in it.
fn table_of<'t>(config: &'t mut toml::Table, section: &Section) -> &'t mut toml::Table {
    fn at<'t>(table: &'t mut toml::Table, name: &str) -> &'t mut toml::Table {
        match &mut table[name] {
            toml::Value::Array(list) => list[0].as_table_mut().unwrap(),
            other => other.as_table_mut().unwrap(),
        }
    }
    match section.heading {
        "The file itself" => config,
        "[formats.NAME]" => at(at(config, "formats"), "mine"),
        "[[site.rule]]" => at(at(config, "site"), "rule"),
        "expect" => at(at(config, "test"), "expect"),
        other => at(config, other.trim_matches(['[', ']'])),
    }
}

/// What is made of it with a key set so in one of its tables.
fn loaded_with(section: &Section, set: Option<(&Key, &str)>) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = one_of_each();
    if let Some((key, given)) = set {
        let value = given.replace("/etc/ssl/certs", &folder.path().display().to_string());
        let value: toml::Table = format!("{} = {value}", key.name).parse().unwrap();
        let table = table_of(&mut config, section);
        // What can't stand beside it.
        let rivals: &[&str] = match (key.name, given) {
            ("nginx" | "apache" | "json", _) => &["regex"],
            ("property_key_file", _) => &["property_key"],
            ("skip", "true") => &["event"],
            _ => &[],
        };
        rivals.iter().for_each(|rival| drop(table.remove(*rival)));
        table.extend(value);
    }
    fs::write(folder.path().join("docs.key"), "0f0e0d0c0b0a09080706050403020100\n").unwrap();
    fs::write(folder.path().join("status.token"), "0f0e0d0c0b0a09080706050403020100\n").unwrap();
    let own = rcgen::generate_simple_self_signed(["own.example.org".to_owned()]).unwrap();
    fs::write(folder.path().join("own-ca.pem"), own.cert.pem()).unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, config.to_string()).unwrap();
    match config::load(&path, &no_env) {
        Ok(mut loaded) => {
            // Where it stands depends on what stands above it.
            loaded.config.tests.iter_mut().for_each(|test| test.place.clear());
            Ok(format!("{:?}", loaded.config).replace(&folder.path().display().to_string(), ""))
        }
        Err(report) => Err(report.render(false)),
    }
}

fn keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    // An included file's keys are the main file's.
    let sections = keys::SECTIONS.into_iter().filter(|section| section.heading != keys::INCLUDED.heading);
    sections.flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

#[test]
fn every_key_that_is_explained_is_taken_and_has_the_default_that_is_told() {
    let without = loaded_with(&keys::ROOT, None).unwrap();
    for (section, key) in keys() {
        let name = format!("{} of {}", key.name, section.what);
        if let Unset::Default(value) = key.unset {
            assert_eq!(loaded_with(section, Some((key, value))).as_ref(), Ok(&without), "{name}: its default");
        }
        if !key.example.is_empty() {
            let with = loaded_with(section, Some((key, key.example))).unwrap_or_else(|said| panic!("{name}: {said}"));
            // Those change what others mean.
            let shows = !matches!(key.name, "include" | "allow_http");
            assert!(with != without || !shows, "{name}: the example changes nothing");
        }
    }
}

#[test]
fn every_key_that_is_needed_is_asked_for() {
    for (section, key) in keys().filter(|(_, key)| key.unset == Unset::Needed) {
        let mut config = one_of_each();
        table_of(&mut config, section).remove(key.name).unwrap_or_else(|| panic!("{} isn't there", key.name));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.toml"), config.to_string()).unwrap();
        let said = config::load(&folder.path().join("config.toml"), &no_env).expect_err(key.name).render(false);
        let asked = format!("no `{}`", key.name);
        assert!(said.contains(&asked) || key.name == "site" && said.contains("there is no site"), "{said}");
    }
}

/// The messages of the problems that a configuration in `folder` has, each with its place.
fn places(path: &Path) -> Vec<(String, String)> {
    let text = match config::load(path, &no_env) {
        Ok(loaded) => loaded.warnings.render(false),
        Err(report) => report.render(false),
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some((_, message)) = line.split_once(": ").filter(|(level, _)| matches!(*level, "error" | "warning")) {
            found.push((message.to_owned(), String::new()));
        } else if let (Some((_, place)), Some(last)) = (line.split_once("--> "), found.last_mut()) {
            last.1 = place.rsplit('/').next().unwrap_or_default().to_owned();
        }
    }
    found
}

#[test]
fn every_file_names_its_own_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let path = folder.path().join("config.toml");
    let endpoint = "[endpoint]\nurl = \"https://a.eu.silktide.com/v1/events\"\n";
    write("config.toml", format!("include = [\"missing.toml\", \"*.site\"]\nunkown = 1\n{endpoint}").as_bytes());
    let site = "[[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\n\
        property_key = \"8bce2be8c07a84a70e7104634b42878b\"\nlogs = [\"docs.log\"]\n";
    write("b.site", format!("\u{feff}{site}\tfromat = \"combined\" # ü\n").as_bytes());
    write("a.site", format!("state_dir = \"/x\"\n{site}").as_bytes());
    let missing = format!(
        "cannot read `{}`: No such file or directory (os error 2)",
        folder.path().join("missing.toml").display()
    );
    let pair = |message: &str, place: &str| (message.to_owned(), place.to_owned());
    assert_eq!(
        places(&path),
        [
            pair(&missing, "config.toml:1:12"),
            pair("unknown key `unkown`", "config.toml:2:1"),
            pair("unknown key `state_dir`", "a.site:1:1"),
            pair("two sites are named `docs`", "b.site:2:8"),
            pair("sites `docs` and `docs` share a log", "b.site:5:9"),
            pair("unknown key `fromat`", "b.site:6:2"),
        ]
    );
    write("b.site", b"# \xc3\xbc \xff\n");
    assert_eq!(places(&path).last(), Some(&pair("this isn't UTF-8", "b.site:1:5")));
    write("config.toml", b"\xff");
    assert_eq!(places(&path), [pair("this isn't UTF-8", "config.toml:1:1")]);
}

#[test]
fn what_is_no_file_is_refused_wherever_a_file_is_named() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    mknodat(CWD, folder.path().join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let configuration = |include: &str, endpoint: &str, key: &str, status: &str| {
        format!(
            "{include}\n[endpoint]\nurl = \"https://a.eu.silktide.com/v1/events\"\n{endpoint}\n\
             [status]\nlisten = \"127.0.0.1:9464\"\n{status}\n\
             [[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\n{key}\nlogs = [\"/var/log/x.log\"]\n"
        )
    };
    let key = "property_key = \"8bce2be8c07a84a70e7104634b42878b\"";
    // Whoever opens it for reading, and waits for a writer, waits for ever.
    let said = |path: PathBuf| {
        let (done, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            done.send(config::load(&path, &no_env).map(|_| ()).map_err(|bad| bad.render(false)))
        });
        answer.recv_timeout(Duration::from_secs(30)).expect("it doesn't wait").expect_err("it is an error")
    };
    for (name, text) in [
        ("include", configuration("include = [\"fifo\"]", "", key, "")),
        ("ca_file", configuration("", "ca_file = \"fifo\"", key, "")),
        ("property_key_file", configuration("", "", "property_key_file = \"fifo\"", "")),
        ("token_file", configuration("", "", key, "token_file = \"fifo\"")),
    ] {
        fs::write(&path, text).unwrap();
        let said = said(path.clone());
        assert!(said.contains("it is a FIFO, a device or a socket, not a file"), "{name}: {said}");
        assert!(said.contains("config.toml: 1 error, 0 warnings"), "{name}: {said}");
    }
    assert!(said(folder.path().join("fifo")).contains("it is a FIFO"));
    assert!(said(folder.path().to_path_buf()).contains("Is a directory"));
}

//! Writes a plan down: sites in, the text of a configuration out. Pure.
//!
//! Whatever the servers' files hold, the text is TOML that silktail takes once the keys are filled in: nothing of them
//! reaches it but inside strings that are escaped and comments that are one line.

use super::plan::{OwnFormat, Plan, Site, UNKNOWN_HOST, plan};
use super::{Server, Setup, Trouble};
use crate::journal::misleads;
use crate::rules::DEFAULT_EXTENSIONS;

/// A configuration.
#[derive(Debug)]
pub struct Made {
    /// Its text.
    pub toml: String,
    /// How many sites it has, each with a key to fill in.
    pub sites: usize,
    /// What couldn't be read, or should be known. It stands in the text too.
    pub troubles: Vec<Trouble>,
}

/// How long a line of a comment is.
const WIDTH: usize = 110;

/// A configuration for what was found; `None`: there is no virtual host in it.
pub fn configuration(setups: &[Setup]) -> Option<Made> {
    let Plan { formats, sites, troubles } = plan(setups);
    if sites.is_empty() {
        return None;
    }
    let mut out = String::new();
    let sources: Vec<String> =
        setups.iter().map(|setup| format!("{} ({})", setup.server.name(), setup.main.display())).collect();
    comment(&mut out, &format!("silktail's configuration, made by `silktail init` from {}.", sources.join(" and ")));
    comment(
        &mut out,
        "Fill in what is marked FILL IN, look at what is marked CONFIRM, then run `silktail check`. All other \
         settings \
         have their defaults; the manual and config.example.toml show them.",
    );
    comment(&mut out, "");
    comment(
        &mut out,
        "A site without rules counts every download in its logs. The Silktide script, where a site has it, counts \
         clicks on the site's own pages already: take the `#` away from that site's rule with referer = \
         \"external\", \
         and only what the script can't see is counted, files opened straight from a search engine, a mail or a \
         bookmark.",
    );
    if !troubles.is_empty() {
        comment(&mut out, "");
        comment(&mut out, "What silktail could not read, or you should know:");
        for trouble in &troubles {
            item(&mut out, &trouble.to_string());
        }
    }
    out.push_str(
        "\n# Where silktail remembers what is sent. A local disk.\n# state_dir = \
         \"/var/lib/silktail\"\n\n[endpoint]\n",
    );
    out.push_str(
        "# CONFIRM: on a page with the Silktide script, the browser's console shows it: \
         window.stConfig.endpointUrl\n",
    );
    out.push_str("url = \"https://a.eu.silktide.com/v1/events\"\n\n[follow]\n");
    out.push_str("# \"end\": only what is requested from now on; \"beginning\": what is in the logs already, too.\n");
    out.push_str("start = \"end\"\n");
    for format in &formats {
        own_format(&mut out, format);
    }
    for (index, one) in sites.iter().enumerate() {
        site(&mut out, index + 1, one);
    }
    Some(Made { toml: out, sites: sites.len(), troubles })
}

fn own_format(out: &mut String, format: &OwnFormat) {
    out.push_str(&format!("\n[formats.{}]\n{} = {}\n", format.name, format.key, literal(&format.text)));
}

fn site(out: &mut String, number: usize, site: &Site) {
    out.push('\n');
    let places: Vec<String> = site.places.iter().map(ToString::to_string).collect();
    comment(out, &format!("{}: {}", site.server.name(), places.join(", ")));
    for note in &site.notes {
        item(out, note);
    }
    out.push_str(&format!("[[site]]\nname = {}\n", string(&site.name)));
    let scheme = if site.tls || site.host.is_none() { "https" } else { "http" };
    let host = site.host.as_deref().unwrap_or(UNKNOWN_HOST);
    let mark = match (&site.host, site.tls) {
        (None, _) => "   # FILL IN: what its URLs begin with",
        (Some(_), true) => "",
        (Some(_), false) => "   # CONFIRM: https:// where a proxy in front speaks TLS",
    };
    out.push_str(&format!("base_url = {}{mark}\n", string(&format!("{scheme}://{host}"))));
    out.push_str("property_key = \"\"   # FILL IN: window.stConfig.propertyKey\n");
    let (logs, mark) = if site.logs.is_empty() {
        let folder = match site.server {
            Server::Nginx => "nginx",
            Server::Apache => "apache2",
        };
        (vec![format!("/var/log/{folder}/FILL-IN-{number}.log")], "   # FILL IN: no log of it can be followed")
    } else {
        (site.logs.clone(), "")
    };
    out.push_str(&format!("logs = {}{mark}\nformat = {}\n", list(&logs), string(&site.format)));
    if !site.hosts.is_empty() {
        let mark = if site.host.is_none() { "   # FILL IN or CONFIRM" } else { "" };
        out.push_str(&format!("hosts = {}{mark}\n", list(&site.hosts)));
    }
    out.push_str("# Only what the Silktide script on the site can't see:\n# [[site.rule]]\n# event = \"download\"\n");
    let extensions: Vec<String> = DEFAULT_EXTENSIONS.iter().map(|extension| string(extension)).collect();
    let lines: Vec<String> = extensions.chunks(11).map(|chunk| chunk.join(", ")).collect();
    out.push_str(&format!("# extensions = [\n#     {},\n# ]\n", lines.join(",\n#     ")));
    out.push_str("# referer = \"external\"\n");
}

/// A comment, in lines of some length.
fn comment(out: &mut String, text: &str) {
    wrapped(out, "#", "#", text);
}

fn item(out: &mut String, text: &str) {
    wrapped(out, "# -", "#  ", text);
}

fn wrapped(out: &mut String, first: &str, next: &str, text: &str) {
    let mut line = first.to_owned();
    let text = plain(text);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line != first && line != next {
            out.push_str(&line);
            out.push('\n');
            line = next.to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// Text that is one line and that TOML takes in a comment.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if misleads(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A TOML string.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            _ if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list(texts: &[String]) -> String {
    let strings: Vec<String> = texts.iter().map(|text| string(text)).collect();
    if strings.iter().map(|text| text.len() + 2).sum::<usize>() < 100 {
        return format!("[{}]", strings.join(", "));
    }
    format!("[\n    {},\n]", strings.join(",\n    "))
}

/// A TOML string in which everything stands as it is, where that can be.
fn literal(text: &str) -> String {
    let odd = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    if text.contains("'''") || text.contains(odd) {
        return string(text);
    }
    if text.contains(['\'', '\n']) {
        // The line end before the closing quotes is one of those that a format doesn't mind.
        return format!("'''\n{text}\n'''");
    }
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::{Dump, apache, nginx};
    use super::*;
    use crate::config;

    const KEY: &str = "8bce2be8c07a84a70e7104634b42878b";

    /// The errors of a configuration whose keys have been filled in.
    fn errors(toml: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, toml.replace("property_key = \"\"", &format!("property_key = \"{KEY}\""))).unwrap();
        config::load(&path, &|_| None).err().map(|report| report.render(false))
    }

    #[test]
    fn without_a_virtual_host_there_is_no_configuration() {
        let setup = nginx(Path::new("/n"), &Dump::new([("/n", "events { }")])).unwrap();
        assert!(configuration(&[setup]).is_none());
        assert!(configuration(&[]).is_none());
    }

    #[test]
    fn sites_whose_logs_only_look_different_are_not_taken_apart() {
        for (name, logs) in [
            ("nothing to follow", ["syslog:server=a", "syslog:server=b"]),
            ("one path, written in two ways", ["/l/a/.", "/l//a"]),
            ("a pattern that takes the other", ["/l/$x", "/l/a"]),
        ] {
            let [one, other] = logs;
            let text = format!(
                "http {{ server {{ server_name é; access_log {one}; }} server {{ server_name ü; access_log {other}; }} }}"
            );
            let setup = nginx(Path::new("/n"), &Dump::new([("/n", text.as_str())])).unwrap();
            assert_eq!(errors(&configuration(&[setup]).unwrap().toml), None, "{name}");
        }
    }

    const NAMES: [&str; 18] = [
        "a.example",
        "www.a.example",
        "b.example",
        "*.a.example",
        ".b.example",
        "_",
        "default",
        "~^x",
        "''",
        "xn--a",
        "[::1]",
        "\"\\\\\"",
        "\u{7}",
        "é",
        "..",
        "-",
        "a.example.",
        "1.2.3.4",
    ];

    const PATHS: [&str; 19] = [
        "/l/a.log",
        "/l/b.log",
        "/l//b.log",
        "/l/./b.log",
        "/l/$host.log",
        "/l/$x$y.log",
        "/l/[a].log",
        "/l/*.log",
        "off",
        "rel.log",
        "syslog:server=x",
        "/dev/stdout",
        "/l/${server_name}.log",
        "$x",
        "$x/$host",
        "/l/$server_name*$x",
        "/***/[",
        "|/bin/x",
        "${NO}/a",
    ];

    /// One of some words, or of all that there are.
    fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop_oneof![
            6 => prop::sample::select(words).prop_map(str::to_owned),
            1 => "[^;{}#\"'\\\\\\s$]{1,6}",
        ]
    }

    /// Names, logs with their formats, and whether it speaks TLS.
    type Vhost = (Vec<String>, Vec<(String, &'static str)>, bool);

    fn log() -> impl Strategy<Value = (String, &'static str)> {
        (one_of(&PATHS), form())
    }

    fn vhost() -> impl Strategy<Value = Vhost> {
        let names = prop::collection::vec(one_of(&NAMES), 0..4);
        (names, prop::collection::vec(log(), 0..3), any::<bool>())
    }

    fn form() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "",
            "combined",
            "host",
            "bad",
            "quotes",
            "auto",
            "none",
            "common gzip",
            "host if=$x buffer=3k",
            "combined env=x",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whatever_the_servers_say_check_takes_what_is_written(
            servers in prop::collection::vec(vhost(), 1..5),
            log in log(),
            noise in ".{0,12}",
        ) {
            let formats = "log_format host '$host $remote_addr \"$request\"' '';\nlog_format bad \"$status'''\";\n\
                log_format quotes \"$remote_addr '''\" \"\\t\" '\\'$request' \"\u{1}\";\n\
                log_format auto escape=json '$remote_addr $request';\n\
                log_format common $remote_addr ' $request';\n";
            let mut front = format!("http {{ {formats} access_log {} {};\n", log.0, log.1);
            let mut back = format!("LogFormat \"%v %h \\\"%r\\\"\" host\nLogFormat \"%s\" bad\n\
                LogFormat '\"%h %r' quotes\n\
                LogFormat \"%h '''%r\" auto\nCustomLog {} {}\n", log.0, log.1);
            for (names, logs, tls) in &servers {
                front.push_str(&format!("server {{ server_name {};\n", names.join(" ")));
                back.push_str(&format!("<VirtualHost *:80>\nServerName {}\n", names.join("\nServerAlias ")));
                for (path, form) in logs {
                    front.push_str(&format!("access_log {path} {form};\n"));
                    back.push_str(&format!("CustomLog {path} {form}\n"));
                }
                front.push_str(if *tls { "listen 443 ssl; }\n" } else { "}\n" });
                back.push_str("</VirtualHost>\n");
            }
            let (front, back) = (front + "}" + &noise, back + &noise);
            let front = nginx(Path::new("/n"), &Dump::new([("/n", front.as_str())])).unwrap();
            let back = apache(Path::new("/a"), &Dump::new([("/a", back.as_str())])).unwrap();
            for setups in [vec![front.clone()], vec![back.clone()], vec![front, back]] {
                if let Some(made) = configuration(&setups) {
                    prop_assert_eq!(errors(&made.toml), None, "{}", made.toml);
                }
            }
        }

        #[test]
        fn no_text_makes_the_readers_stumble(text in "([a-z<>{};'\"\\\\$\n#/|\\[\\]=-]|server |access_log \
         |server_name |http \\{|_by_lua_block \\{|<VirtualHost |ServerName |include ){0,60}") {
            let (path, files) = (Path::new("/n"), Dump::new([("/n", text.as_str())]));
            for setup in [nginx(path, &files), apache(path, &files)] {
                if let Some(made) = configuration(&[setup.unwrap()]) {
                    prop_assert_eq!(errors(&made.toml), None, "{}", made.toml);
                }
            }
        }
    }
}

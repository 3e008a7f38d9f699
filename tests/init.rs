//! `silktail init`: what the servers' own files say becomes a configuration that `check` takes.
//!
//! `UPDATE=1 cargo test --test init` writes the golden files anew: read them before you keep them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{Done, KEY, Sandbox, installed};
use rustix::process::geteuid;
use silktail::config::{self, Config, FormatChoice};
use silktail::rules::RefererCondition;

const BLANK: &str = "property_key = \"\"   # FILL IN: window.stConfig.propertyKey\n";

/// The configuration with its keys filled in, once the program itself has taken it.
#[track_caller]
fn checked(sandbox: &Sandbox, toml: &str) -> Config {
    assert!(toml.contains(BLANK), "{toml}");
    sandbox.write("config.toml", &toml.replace("property_key = \"\"", &format!("property_key = \"{KEY}\"")));
    sandbox.run(&["check"]).expect_code(0);
    config::load(&sandbox.path("config.toml"), &|_| None).unwrap().config
}

/// A site on one line.
fn rows(config: &Config) -> Vec<String> {
    let row = |site: &config::Site| {
        let format = match &site.format {
            FormatChoice::Auto => "auto",
            FormatChoice::Fixed(format) => format.name(),
        };
        let routed = if site.hosts.is_some() { "by host" } else { "all" };
        format!("{} {} {} {format} {routed}", site.name, site.context.base_url.as_str(), site.logs.join("|"))
    };
    config.sites.iter().map(row).collect()
}

#[test]
fn a_configuration_made_of_nginxs_dump_reads_like_this() {
    let sandbox = Sandbox::new();
    let dump = fs::read_to_string("fixtures/init/nginx-T.txt").unwrap();
    let done = sandbox.run_with_input(&["init", "--nginx", "-"], &dump).expect_code(0);
    for (golden, got) in [("nginx.toml", &done.stdout), ("nginx.stderr", &done.stderr)] {
        let golden = Path::new("fixtures/init").join(golden);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, got).unwrap();
        }
        assert_eq!(*got, fs::read_to_string(&golden).unwrap(), "{}", golden.display());
    }
    let config = checked(&sandbox, &done.stdout);
    assert_eq!(
        rows(&config),
        [
            "docs.example.org https://docs.example.org/ \
             /var/log/nginx/docs.access.log|/var/log/nginx/docs.manuals.log auto by host",
            "a.example.net https://a.example.net/ /var/log/nginx/others.log combined by host",
            "piped.example.org http://piped.example.org/ /var/log/nginx/FILL-IN-3.log auto all",
            "shop.example.org https://shop.example.org/ /var/log/nginx/shop.log|/var/log/nginx/access.log auto \
             by host",
            "default https://example.org/ /var/log/nginx/access.log main by host",
        ]
    );
    // With the rules that stand commented out it is one, too.
    let rules = done.stdout.replace("\n# [[site.rule]]\n# event", "\n[[site.rule]]\nevent");
    let rules = rules.replace("\n# extensions = [\n#     ", "\nextensions = [\n").replace(",\n#     ", ",\n");
    let rules = rules.replace(",\n# ]\n# referer", ",\n]\nreferer");
    let config = checked(&sandbox, &rules);
    assert!(config.sites.iter().all(|site| site.rules.0[0].conditions.referer == RefererCondition::External));
}

#[test]
fn apaches_files_are_read_as_apache_reads_them() {
    let sandbox = Sandbox::new();
    let main = std::path::absolute("fixtures/init/apache/apache2.conf").unwrap();
    let done = sandbox.run(&["init", "--apache", main.to_str().unwrap()]).expect_code(0);
    let config = checked(&sandbox, &done.stdout);
    assert_eq!(
        rows(&config),
        [
            "docs.example.org https://docs.example.org/ /var/log/apache2/docs access.log own by host",
            "a.example.net http://a.example.net/ /var/log/apache2/other_vhosts_access.log vhost_combined by host",
            "b.example.net http://b.example.net/ /var/log/apache2/other_vhosts_access.log vhost_combined by host",
            "piped.example.net http://piped.example.net/ /var/log/apache2/FILL-IN-4.log auto all",
            "default https://example.org/ /var/log/apache2/access.log combined all",
        ]
    );
    let hosts = config.sites[0].hosts.as_ref().unwrap();
    for (host, want) in [("manuals.example.org", true), ("x.docs.example.org", true), ("docs1.example.org", false)] {
        assert_eq!(hosts.contains(host), want, "{host}");
    }
    // What can't be read is named twice: where it is seen now, and where it is found later.
    for what in ["missing.conf", "docs?.example.org", "rotatelogs", "${UNSET_DIR}/piped.log", "*:444"] {
        assert!(done.stderr.contains(what), "{what}: {}", done.stderr);
        assert!(done.stdout.contains(what), "{what}: {}", done.stdout);
    }
}

/// Whether a server's directory is here; says so loudly where it isn't, and fails where it has to be.
fn has(directory: &str, programs: &[&str]) -> bool {
    let found = Path::new(directory).is_dir() && programs.iter().any(|name| installed(name).is_some());
    if !found {
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!is_ci, "{programs:?} with {directory} must be installed where CI=true");
        eprintln!("SKIPPED: {programs:?} with {directory} isn't installed, so nothing was tested here");
    }
    found
}

/// Copies a directory, what links point to in the links' place.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn check_takes_what_init_makes_of_debians_nginx_with_three_more_hosts() {
    if !has("/etc/nginx", &["nginx"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let etc = sandbox.path("nginx");
    copy(Path::new("/etc/nginx"), &etc);
    let main = etc.join("nginx.conf");
    let text = fs::read_to_string(&main).unwrap().replace("/etc/nginx", etc.to_str().unwrap());
    fs::write(&main, text).unwrap();
    sandbox.write(
        "nginx/conf.d/three.conf",
        "log_format with_host '$host $remote_addr [$time_local] \"$request\" $status '\n  '\"$http_user_agent\"';\n\
         server { listen 80; server_name one.example.org www.one.example.org; access_log /var/log/nginx/one.log; }\n\
         server { listen 80; server_name two.example.org; access_log /var/log/nginx/more.log with_host; }\n\
         server { listen 80; server_name three.example.org; access_log /var/log/nginx/more.log with_host; }\n",
    );
    let done = sandbox.run(&["init", "--nginx", main.to_str().unwrap()]).expect_code(0);
    let got = rows(&checked(&sandbox, &done.stdout));
    for want in [
        "one.example.org http://one.example.org/ /var/log/nginx/one.log combined all",
        "two.example.org http://two.example.org/ /var/log/nginx/more.log with_host by host",
        "three.example.org http://three.example.org/ /var/log/nginx/more.log with_host by host",
    ] {
        assert!(got.iter().any(|row| row == want), "{want}: {got:#?}");
    }
    assert!(got.len() > 3, "the default server is there: {got:#?}");

    // What nginx itself makes of the same files says the same.
    if !geteuid().is_root() {
        eprintln!("SKIPPED: `nginx -T` needs root, so its output was not tested here");
        return;
    }
    let dump = Command::new(installed("nginx").unwrap()).arg("-T").arg("-c").arg(&main).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).unwrap();
    let again = sandbox.run_with_input(&["init", "--nginx", "-"], &dump).expect_code(0);
    assert_eq!(again.stdout, done.stdout);
}

#[test]
fn check_takes_what_init_makes_of_debians_apache_with_three_more_hosts() {
    if !has("/etc/apache2", &["apache2"]) {
        return;
    }
    let sandbox = Sandbox::new();
    copy(Path::new("/etc/apache2"), &sandbox.path("apache2"));
    sandbox.write(
        "apache2/sites-enabled/three.conf",
        "<VirtualHost *:80>\n  ServerName one.example.org\n  ServerAlias www.one.example.org\n  \
         CustomLog ${APACHE_LOG_DIR}/one.log combined\n</VirtualHost>\n\
         <VirtualHost *:80>\n  ServerName two.example.org\n</VirtualHost>\n\
         <VirtualHost *:80>\n  ServerName three.example.org\n</VirtualHost>\n",
    );
    let main = sandbox.path("apache2/apache2.conf");
    let done = sandbox.run(&["init", "--apache", main.to_str().unwrap()]).expect_code(0);
    let got = rows(&checked(&sandbox, &done.stdout));
    for want in [
        "one.example.org http://one.example.org/ /var/log/apache2/one.log combined all",
        "two.example.org http://two.example.org/ /var/log/apache2/other_vhosts_access.log vhost_combined by host",
        "three.example.org http://three.example.org/ /var/log/apache2/other_vhosts_access.log vhost_combined by host",
    ] {
        assert!(got.iter().any(|row| row == want), "{want}: {got:#?}");
    }
    assert!(got.len() > 3, "the default server is there: {got:#?}");
}

const SERVER: &str = "http { server { server_name a.example; access_log /var/log/a.log; } }";

/// `init --write` with a small nginx set-up.
fn write(sandbox: &Sandbox) -> Done {
    sandbox.write("nginx.conf", SERVER);
    sandbox.run(&["init", "--write", "--nginx", "nginx.conf"])
}

#[test]
fn write_never_touches_what_is_there() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("config.toml");
    sandbox.write("config.toml", "# mine\n");
    let done = write(&sandbox).expect_code(1);
    assert!(done.stderr.contains("config.toml exists already"), "{}", done.stderr);
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), done.stdout.as_str()), ("# mine\n", ""));

    // A link that leads nowhere is there as well.
    fs::remove_file(&path).unwrap();
    symlink(sandbox.path("elsewhere"), &path).unwrap();
    write(&sandbox).expect_code(1);
    assert!(!sandbox.path("elsewhere").exists());

    fs::remove_file(&path).unwrap();
    let done = write(&sandbox).expect_code(0);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("is written"), "{}", done.stderr);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777 & !0o640, 0);
    let written = fs::read_to_string(&path).unwrap();
    assert_eq!(rows(&checked(&sandbox, &written)), ["a.example http://a.example/ /var/log/a.log combined all"]);
}

#[test]
fn what_is_no_configuration_is_refused_in_words() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.conf", "events { }\n");
    for (args, input, want) in [
        (&["init", "--nginx", "missing.conf"][..], "", "cannot read missing.conf"),
        (&["init", "--apache", "missing.conf"], "", "cannot read missing.conf"),
        (&["init", "--nginx", "empty.conf"], "", "there is no virtual host"),
        (&["init", "--nginx", "-"], SERVER, "not the output of `nginx -T`"),
    ] {
        let done = sandbox.run_with_input(args, input).expect_code(1);
        assert!(done.stderr.contains(want), "{args:?}: {}", done.stderr);
        assert_eq!(done.stdout, "", "{args:?}");
    }
}

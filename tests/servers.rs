//! The real nginx and the real Apache write the logs: what they write is what is read.
//!
//! Where a server isn't installed its test says so and passes, unless `CI=true`: there it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{
    BROWSER, Endpoint, KEY, SOON, Sandbox, fetch, free_port, installed, signal, wait_for, wait_with_deadline,
};
use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};

const PAGE: &str = "https://docs.example.org/manuals/index.html";

/// A web server as a child; stopped at the end whatever happens.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it on a port that was free a moment ago, and again on another where someone was quicker.
    fn start(log: &Path, mut command: impl FnMut(u16) -> Command) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let said = fs::File::create(log).unwrap();
            let child =
                command(port).stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
            let mut server = Self { child, port };
            let mut is_gone = false;
            wait_for("the web server to listen or to give up", SOON, || {
                is_gone = server.child.try_wait().unwrap().is_some();
                is_gone || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
            if !is_gone {
                return server;
            }
        }
        panic!("the web server does not start: {}", fs::read_to_string(log).unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            signal(&self.child, Signal::TERM);
            if wait_with_deadline(&mut self.child, SOON).is_none() {
                drop(self.child.kill());
                drop(self.child.wait());
            }
        }
    }
}

/// The program's path; `None`, loudly, where it isn't installed.
fn server(names: &[&str]) -> Option<PathBuf> {
    let found = names.iter().find_map(|name| installed(name));
    if found.is_none() {
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!is_ci, "{names:?} must be installed where CI=true");
        eprintln!("SKIPPED: none of {names:?} is installed, so nothing was tested here");
    }
    found
}

fn nginx(program: &Path, sandbox: &Sandbox) -> Server {
    let dir = sandbox.path("");
    Server::start(&sandbox.path("server.said"), |port| {
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", dir.display()))
            .concat();
        let dir = dir.display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\n\
             events {{}}\nhttp {{\n{temporary}    access_log {dir}/access.log combined;\n    \
             server {{ listen 127.0.0.1:{port}; root {dir}/www; }}\n}}\n"
        );
        sandbox.write("nginx.conf", &text);
        let mut command = Command::new(program);
        command.arg("-p").arg(sandbox.path("")).arg("-c").arg(sandbox.path("nginx.conf"));
        command.arg("-e").arg(sandbox.path("error.log"));
        command
    })
}

fn apache(program: &Path, sandbox: &Sandbox) -> Server {
    let modules = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/etc/httpd/modules"]
        .map(PathBuf::from)
        .into_iter()
        .find(|dir| dir.is_dir())
        .expect("Apache's modules");
    Server::start(&sandbox.path("server.said"), |port| {
        // What one distribution compiles in, the other loads.
        let load: String = ["mpm_event", "authz_core", "log_config", "logio", "unixd"]
            .iter()
            .map(|name| (name, modules.join(format!("mod_{name}.so"))))
            .filter(|(_, path)| path.is_file())
            .map(|(name, path)| format!("LoadModule {name}_module {}\n", path.display()))
            .collect();
        // Apache refuses to serve as root.
        let user = if geteuid().is_root() { "User nobody\nGroup #65534\n" } else { "" };
        let dir = sandbox.path("").display().to_string();
        let dir = dir.trim_end_matches('/');
        let text = format!(
            "ServerRoot {dir}\nServerName docs.example.org\nListen 127.0.0.1:{port}\nPidFile {dir}/apache.pid\n\
             DefaultRuntimeDir {dir}\nErrorLog {dir}/error.log\n{load}{user}DocumentRoot {dir}/www\n\
             LogFormat \"%h %l %u %t \\\"%r\\\" %>s %O \\\"%{{Referer}}i\\\" \\\"%{{User-Agent}}i\\\"\" combined\n\
             CustomLog {dir}/access.log combined\n<Directory {dir}/www>\n    Require all granted\n</Directory>\n"
        );
        sandbox.write("apache.conf", &text);
        let mut command = Command::new(program);
        command.arg("-X").arg("-d").arg(sandbox.path("")).arg("-f").arg(sandbox.path("apache.conf"));
        command
    })
}

/// Fetches a file in the ways it is fetched and gives the bodies of the POSTs, in the order of their events' URLs.
fn follow(sandbox: &Sandbox, server: &Server, site: &str) -> Vec<Value> {
    let endpoint = Endpoint::accepting();
    sandbox.configure(
        endpoint.port,
        &format!(
            "[[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\nproperty_key = \"{KEY}\"\n\
             logs = [\"LOGS/access.log\"]\n{site}"
        ),
    );
    let response = fetch(server.port, "/files/report.pdf?utm=x", Some(PAGE));
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("%PDF-1.4 of a kind\n"), "{response}");
    fetch(server.port, "/files/%72eport%202.pdf", None);
    fetch(server.port, "/index.html", None);
    fetch(server.port, "/files/missing.pdf", None);

    let daemon = sandbox.start("said");
    endpoint.wait_delivered(2);
    // While it follows, too; this line is the last, so that what comes before it has had its chance.
    fetch(server.port, "/files/%22quoted%22.pdf", Some("https://search.example.com/?q=%22\"\\"));
    endpoint.wait_delivered(3);
    daemon.stop();

    let mut posts = endpoint.posts();
    for post in &posts {
        assert_eq!(post.request, "POST /v1/events HTTP/1.1");
        assert!(post.header("content-type").unwrap().starts_with("application/json"), "{post:?}");
    }
    posts.sort_by_key(common::Post::urls);
    posts.into_iter().map(|post| post.body).collect()
}

fn serve_files(sandbox: &Sandbox) {
    for name in ["report.pdf", "report 2.pdf", "\"quoted\".pdf"] {
        sandbox.write(&format!("www/files/{name}"), "%PDF-1.4 of a kind\n");
    }
    sandbox.write("www/index.html", "<p>Not a download.\n");
}

/// The exact body for a download of `path`, on `page` or on itself.
fn body(path: &str, page: Option<&str>) -> Value {
    let url = format!("https://docs.example.org{path}");
    json!({
        "propertyKey": KEY,
        "url": page.unwrap_or(&url),
        "ip": "127.0.0.1",
        "userAgent": BROWSER,
        "events": [{ "event": "download", "url": url }],
    })
}

fn want() -> Vec<Value> {
    vec![
        body("/files/%22quoted%22.pdf", None),
        body("/files/%72eport%202.pdf", None),
        body("/files/report.pdf", Some(PAGE)),
    ]
}

#[test]
fn a_download_from_nginx_is_the_post_that_the_api_describes() {
    let Some(program) = server(&["nginx"]) else { return };
    let sandbox = Sandbox::new();
    serve_files(&sandbox);
    let server = nginx(&program, &sandbox);
    let bodies = follow(&sandbox, &server, "view_width = 979\n");
    let mut want = want();
    for body in &mut want {
        body["viewWidth"] = json!(979);
    }
    assert_eq!(bodies, want);
}

#[test]
fn a_download_from_apache_is_the_post_that_the_api_describes() {
    let Some(program) = server(&["apache2", "httpd"]) else { return };
    let sandbox = Sandbox::new();
    serve_files(&sandbox);
    let server = apache(&program, &sandbox);
    assert_eq!(follow(&sandbox, &server, "format = \"combined\"\n"), want());
}

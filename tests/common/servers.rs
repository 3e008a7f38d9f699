//! The real web servers, as children of a test.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, geteuid};

use super::{SOON, Sandbox, free_port, installed, signal, wait_for, wait_with_deadline};

/// A web server as a child; stopped at the end whatever happens.
pub struct Server {
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
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
pub fn server(names: &[&str]) -> Option<PathBuf> {
    let found = names.iter().find_map(|name| installed(name));
    if found.is_none() {
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!is_ci, "{names:?} must be installed where CI=true");
        eprintln!("SKIPPED: none of {names:?} is installed, so nothing was tested here");
    }
    found
}

/// nginx, with `logs` (`log_format`, `access_log`) in its http block; `DIR` stands for the sandbox's path.
pub fn nginx(program: &Path, sandbox: &Sandbox, logs: &str) -> Server {
    let dir = sandbox.path("");
    Server::start(&sandbox.path("server.said"), |port| {
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", dir.display()))
            .concat();
        let dir = dir.display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\n\
             events {{}}\nhttp {{\n{temporary}{}\n    large_client_header_buffers 4 32k;\n    \
             server {{ listen 127.0.0.1:{port}; root {dir}/www; }}\n}}\n",
            logs.replace("DIR", &dir.to_string())
        );
        sandbox.write("nginx.conf", &text);
        let mut command = Command::new(program);
        command.arg("-p").arg(sandbox.path("")).arg("-c").arg(sandbox.path("nginx.conf"));
        command.arg("-e").arg(sandbox.path("error.log"));
        command
    })
}

/// Apache, with `logs` (`LogFormat`, `CustomLog`) in its configuration; `DIR` stands for the sandbox's path.
pub fn apache(program: &Path, sandbox: &Sandbox, logs: &str) -> Server {
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
             LimitRequestLine 32768\nLimitRequestFieldSize 32768\n{}\n<Directory {dir}/www>\n    \
             Require all granted\n</Directory>\n",
            logs.replace("DIR", dir)
        );
        sandbox.write("apache.conf", &text);
        let mut command = Command::new(program);
        command.arg("-X").arg("-d").arg(sandbox.path("")).arg("-f").arg(sandbox.path("apache.conf"));
        command
    })
}

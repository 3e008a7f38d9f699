//! What the black-box tests stand on: a directory to play in, the real program as a process, and an endpoint that
//! records what it is sent.
//!
//! Nothing here sleeps in place of an event: [`wait_for`] asks again until a condition holds or its deadline is past.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod clock;
pub mod disk;
pub mod servers;
pub mod status;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The API description's example key: it must never be seen but in a POST.
pub const KEY: &str = "8bce2be8c07a84a70e7104634b42878b";

/// A browser, by its own account.
pub const BROWSER: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) \
                           Chrome/115.0.0.0 Safari/537.36";

/// A crawler, by its own account.
pub const CRAWLER: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// How long a test waits for something that takes moments: generous, since it costs nothing where all is well.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; panics with `what` once `deadline` is past.
#[track_caller]
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "waited {deadline:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One line of a log in `combined`, as if the request had ended `second` seconds after ten o'clock.
pub fn combined(ip: &str, second: u32, path: &str) -> String {
    combined_by(ip, second, path, "-", BROWSER)
}

/// The same, with referer and user agent.
pub fn combined_by(ip: &str, second: u32, path: &str, referer: &str, user_agent: &str) -> String {
    let (hour, minute, second) = (10 + second / 3600, second / 60 % 60, second % 60);
    format!(
        "{ip} - - [10/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \"GET {path} HTTP/1.1\" 200 51200 \
         \"{referer}\" \"{user_agent}\"\n"
    )
}

/// A directory of its own, gone at the end, with the program's configuration, state and logs.
pub struct Sandbox {
    dir: TempDir,
    /// The user that the program runs as, where it isn't the tests'.
    pub run_as: Option<u32>,
}

impl Sandbox {
    /// An empty one. Others may look into it: a web server started by root leaves root behind.
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::with_prefix("silktail-").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, run_as: None }
    }

    /// The place of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file anew, with the directories it needs.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Appends to a file as a server does: opened for appending, one write.
    pub fn append(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Writes `config.toml`: state inside the sandbox, short lingering, logs from their beginning, then `sites`,
    /// in which `LOGS` stands for the sandbox's path.
    pub fn configure(&self, port: u16, sites: &str) {
        self.configure_with(port, "linger = \"50ms\"", sites);
    }

    /// The same with other keys in `[endpoint]`.
    pub fn configure_with(&self, port: u16, endpoint: &str, sites: &str) {
        let dir = self.dir.path().display().to_string();
        self.write(
            "config.toml",
            &format!(
                "state_dir = \"{dir}/state\"\n\n[endpoint]\nurl = \"http://127.0.0.1:{port}/v1/events\"\n{endpoint}\n\n\
                 [follow]\nstart = \"beginning\"\n\n{}\n",
                sites.replace("LOGS", &dir)
            ),
        );
    }

    /// The program with this sandbox's configuration, apart from the environment the tests run in.
    pub fn silktail(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silktail"));
        for name in ["STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.env("TZ", "UTC").env("NO_COLOR", "1").current_dir(self.dir.path());
        command.arg("--config").arg(self.path("config.toml")).stdin(Stdio::null());
        command
    }

    /// The same, run by another user, to whom the state then belongs.
    fn silktail_of(&self, user: u32) -> Command {
        use std::os::unix::fs::chown;
        use std::os::unix::process::CommandExt;
        // Where the program was built may be closed to others; a second name for it isn't.
        let program = self.path("silktail");
        if !program.exists() {
            let built = env!("CARGO_BIN_EXE_silktail");
            fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
            fs::create_dir_all(self.path("state")).unwrap();
            chown(self.path("state"), Some(user), Some(user)).unwrap();
        }
        let mut command = Command::new(program);
        for (name, value) in self.silktail().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(self.silktail().get_args()).current_dir(self.dir.path()).stdin(Stdio::null());
        command.uid(user).gid(user);
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        Done::of(self.silktail().args(args).output().unwrap())
    }

    /// Runs the program to its end with `input` on its standard input.
    pub fn run_with_input(&self, args: &[&str], input: impl AsRef<[u8]>) -> Done {
        let mut child = self
            .silktail()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.as_ref().to_vec();
        // It may refuse before it has read anything: a closed pipe is its right.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Done::of(output)
    }

    /// Runs the program to its end on a terminal of its own, with `input` on its standard input; gives what is seen there.
    pub fn run_on_terminal(&self, args: &[&str], input: impl AsRef<[u8]>) -> String {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let (out, error) = (open(), open());
        self.write("input", "");
        fs::write(self.path("input"), input).unwrap();
        let input = fs::File::open(self.path("input")).unwrap();
        let mut child = self.silktail().args(args).stdin(input).stdout(out).stderr(error).spawn().unwrap();
        let mut seen = Vec::new();
        // Once nobody has the terminal open any more, reading it is an error.
        let _ = fs::File::from(master).read_to_end(&mut seen);
        child.wait().unwrap();
        String::from_utf8(seen).unwrap()
    }

    /// Starts `silktail run`; what it says on standard error is gathered in `name`.
    pub fn start(&self, name: &str) -> Daemon {
        self.start_as(name, |_, _| {})
    }

    /// The same; `set` may change the command, and is told the file in which standard error is gathered.
    pub fn start_as(&self, name: &str, set: impl FnOnce(&mut Command, &fs::File)) -> Daemon {
        let said = self.path(name);
        let file = fs::OpenOptions::new().create(true).append(true).open(&said).unwrap();
        let mut command = match self.run_as {
            None => self.silktail(),
            Some(user) => self.silktail_of(user),
        };
        command.arg("run").stdout(Stdio::null());
        set(&mut command, &file);
        let child = command.stderr(file).spawn().unwrap();
        Daemon { child, said }
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Done {
    /// Exit status; -1 for death by a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }

    /// Itself, if it ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// `silktail run` as a process; killed if a test leaves it behind.
pub struct Daemon {
    child: Child,
    said: PathBuf,
}

impl Daemon {
    /// What it has said so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// Where its status page listens, once it has said so.
    pub fn status_address(&self) -> String {
        const SAID: &str = "status page and metrics address=\"http://";
        wait_for("the address", SOON, || self.stderr().contains(SAID));
        self.stderr().split(SAID).nth(1).unwrap().split('/').next().unwrap().to_owned()
    }

    /// SIGHUP: read the configuration anew.
    pub fn hang_up(&self) {
        signal(&self.child, Signal::HUP);
    }

    /// Sends it any signal.
    pub fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it has in RAM, in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits for its own end; says how it ended and what it said.
    #[track_caller]
    pub fn wait_ended(mut self) -> (i32, String) {
        let status = wait_with_deadline(&mut self.child, SOON).expect("it ends by itself");
        (status.code().unwrap_or(-1), self.stderr())
    }

    /// Asks it to stop, and doesn't wait.
    pub fn terminate(&self) {
        signal(&self.child, Signal::TERM);
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Stops it with SIGTERM and expects a clean end.
    #[track_caller]
    pub fn stop(mut self) -> String {
        signal(&self.child, Signal::TERM);
        let status = wait_with_deadline(&mut self.child, SOON);
        let said = self.stderr();
        assert!(status.is_some_and(|status| status.success()), "a stop ended with {status:?}:\n{said}");
        said
    }

    /// SIGKILL: no word of farewell.
    pub fn kill(mut self) -> String {
        signal(&self.child, Signal::KILL);
        self.child.wait().unwrap();
        self.stderr()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("--- silktail run said:\n{}", fs::read_to_string(&self.said).unwrap_or_default());
        }
    }
}

/// Sends a signal to a child that hasn't been waited for.
pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits for a child's end; `None` if it is still running after `deadline`.
pub fn wait_with_deadline(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What the endpoint does with a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Answers with this status and no body.
    Status(u16),
    /// Says nothing until its script is replaced or it is dropped; then hangs up.
    Withhold,
    /// Reads the request and hangs up.
    Close,
    /// Answers with this status after a while.
    Slow(u16, Duration),
    /// Writes these bytes, whatever they are, and hangs up.
    Raw(&'static str),
    /// Writes the first text, then the second this many times, as long as somebody reads it; then hangs up.
    Flood(&'static str, &'static str, usize),
}

impl Answer {
    /// The final status that it begins with, if it does.
    pub fn status(&self) -> Option<u16> {
        let text = match self {
            Answer::Status(status) | Answer::Slow(status, _) => return Some(*status),
            Answer::Raw(text) | Answer::Flood(text, ..) => text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n"),
            Answer::Withhold | Answer::Close => return None,
        };
        text.contains("\r\n\r\n").then(|| text.get(9..12)?.parse().ok()).flatten()
    }
}

/// One POST as it arrived.
#[derive(Debug, Clone)]
pub struct Post {
    /// The request line: `POST /v1/events HTTP/1.1`.
    pub request: String,
    /// Names in lower case, values as sent.
    pub headers: Vec<(String, String)>,
    /// The body as JSON; a string where it is none.
    pub body: Value,
    /// When it had been read.
    pub at: Instant,
    /// What was decided about it.
    pub answer: Answer,
}

impl Post {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The URLs of its events.
    pub fn urls(&self) -> Vec<String> {
        let Some(events) = self.body["events"].as_array() else { return Vec::new() };
        events.iter().map(|event| event["url"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Whether it was answered with success.
    pub fn is_delivered(&self) -> bool {
        matches!(self.answer.status(), Some(200..=299))
    }
}

type Script = Box<dyn FnMut(usize, &Value) -> Answer + Send>;

/// An endpoint on loopback that does as its script says and records every POST.
pub struct Endpoint {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    posts: Vec<Post>,
    script: Script,
    /// Counts the scripts; a withheld answer waits for the next.
    scripts: usize,
    /// Connections on which a request may still come; not those whose answer is withheld.
    open: usize,
    barriers: usize,
    stopped: bool,
}

/// The request line of [`Endpoint::wait_hung_up`]'s own connection.
const BARRIER: &str = "BARRIER";

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A script that panicked has failed its test already; the others' view needn't break with it.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Endpoint {
    /// One that accepts everything.
    pub fn accepting() -> Self {
        Self::scripted(|_, _| Answer::Status(200))
    }

    /// One that asks `script` about each POST: its number from 0 and its body.
    pub fn scripted(script: impl FnMut(usize, &Value) -> Answer + Send + 'static) -> Self {
        Self::listening(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), None, script)
    }

    /// The same over TLS, with the set-up that `tls` holds when a connection comes.
    pub fn scripted_with_tls(
        tls: Arc<Mutex<Arc<rustls::ServerConfig>>>,
        script: impl FnMut(usize, &Value) -> Answer + Send + 'static,
    ) -> Self {
        Self::listening(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), Some(tls), script)
    }

    fn listening(
        listener: TcpListener,
        tls: Option<Arc<Mutex<Arc<rustls::ServerConfig>>>>,
        script: impl FnMut(usize, &Value) -> Answer + Send + 'static,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let state =
            State { posts: Vec::new(), script: Box::new(script), scripts: 0, open: 0, barriers: 0, stopped: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.lock().stopped {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let served = Arc::clone(&served);
                served.lock().open += 1;
                let tls = tls.as_ref().map(|tls| Arc::clone(&tls.lock().unwrap()));
                thread::spawn(move || {
                    // The program hanging up, even in the middle, is part of what the tests do to it.
                    drop(match tls {
                        None => serve(&stream, &stream, &served),
                        Some(tls) => {
                            let session = rustls::ServerConnection::new(tls).unwrap();
                            serve(rustls::StreamOwned::new(session, &stream), &stream, &served)
                        }
                    });
                    served.lock().open -= 1;
                });
            }
        });
        Self { port, shared }
    }

    /// Replaces the script; answers withheld so far become lost connections.
    pub fn set_script(&self, script: impl FnMut(usize, &Value) -> Answer + Send + 'static) {
        let mut state = self.shared.lock();
        state.script = Box::new(script);
        state.scripts += 1;
        self.shared.changed.notify_all();
    }

    /// Waits until all that a killed program has sent is recorded: what was on its way is answered by the old script.
    #[track_caller]
    pub fn wait_hung_up(&self) {
        let barriers = self.shared.lock().barriers;
        // Connections are accepted in their order: once this one is served, none from before is unseen.
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.write_all(format!("{BARRIER}\r\n\r\n").as_bytes()).unwrap();
        wait_for("the barrier", SOON, || self.shared.lock().barriers > barriers);
        drop(stream);
        wait_for("the connections' end", SOON, || self.shared.lock().open == 0);
    }

    /// All POSTs so far, in the order of their arrival.
    pub fn posts(&self) -> Vec<Post> {
        self.shared.lock().posts.clone()
    }

    /// The number of POSTs so far.
    pub fn post_count(&self) -> usize {
        self.shared.lock().posts.len()
    }

    /// The URLs of all events that were answered with success, sorted: one that is there twice was delivered twice.
    pub fn delivered(&self) -> Vec<String> {
        let mut urls: Vec<String> =
            self.shared.lock().posts.iter().filter(|post| post.is_delivered()).flat_map(Post::urls).collect();
        urls.sort();
        urls
    }

    /// Waits until `count` events or more have been delivered.
    #[track_caller]
    pub fn wait_delivered(&self, count: usize) {
        let end = Instant::now() + SOON;
        while self.delivered().len() < count {
            assert!(Instant::now() < end, "{} of {count} events after {SOON:?}", self.delivered().len());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        // Wakes the thread that accepts, so that it sees that it is over.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn serve(stream: impl Read + Write, tcp: &TcpStream, shared: &Shared) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some((request, headers, body)) = read_request(&mut reader)? {
        if request == BARRIER {
            shared.lock().barriers += 1;
            return Ok(());
        }
        let body: Value =
            serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
        let mut state = shared.lock();
        let nth = state.posts.len();
        let answer = (state.script)(nth, &body);
        state.posts.push(Post { request, headers, body, at: Instant::now(), answer });
        match answer {
            Answer::Status(status) | Answer::Slow(status, _) => {
                drop(state);
                if let Answer::Slow(_, pause) = answer {
                    thread::sleep(pause);
                }
                let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: 0\r\n\r\n");
                reader.get_mut().write_all(head.as_bytes())?;
                reader.get_mut().flush()?;
            }
            Answer::Withhold => {
                let script = state.scripts;
                state.open -= 1;
                while state.scripts == script && !state.stopped {
                    state = shared.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                state.open += 1;
                return tcp.shutdown(Shutdown::Both);
            }
            Answer::Close => return tcp.shutdown(Shutdown::Both),
            Answer::Raw(text) => {
                drop(state);
                reader.get_mut().write_all(text.as_bytes())?;
                return hang_up(tcp);
            }
            Answer::Flood(first, then, times) => {
                drop(state);
                reader.get_mut().write_all(first.as_bytes())?;
                for _ in 0..times {
                    reader.get_mut().write_all(then.as_bytes())?;
                }
                return hang_up(tcp);
            }
        }
    }
    Ok(())
}

/// Ends an answer so that it arrives: what the client sends until it hangs up too is read, or it would be told of a
/// broken connection.
fn hang_up(mut tcp: &TcpStream) -> io::Result<()> {
    tcp.shutdown(Shutdown::Write)?;
    tcp.set_read_timeout(Some(SOON))?;
    io::copy(&mut tcp, &mut io::sink()).map(drop)
}

type Request = (String, Vec<(String, String)>, Vec<u8>);

/// One HTTP/1.1 request with a sized or chunked body; `None` where the client has hung up between two.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let request = read_line(reader)?;
    if request.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..])?;
            read_line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else {
        body.resize(header("content-length").unwrap_or("0").parse().map_err(io::Error::other)?, 0);
        reader.read_exact(&mut body)?;
    }
    Ok(Some((request, headers, body)))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Fetches `path` from a server on 127.0.0.1 as a browser would; gives the whole response.
pub fn fetch(port: u16, path: &str, referer: Option<&str>) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let referer = referer.map(|referer| format!("Referer: {referer}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: docs.example.org\r\nUser-Agent: {BROWSER}\r\n{referer}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

/// A port of 127.0.0.1 that refuses connections, until an endpoint is opened on it.
pub struct ClosedPort {
    socket: tokio::net::TcpSocket,
}

impl ClosedPort {
    /// Some port that is free.
    pub fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { socket }
    }

    /// Its number.
    pub fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// The endpoint that listens there from now on.
    pub fn open(self, script: impl FnMut(usize, &Value) -> Answer + Send + 'static) -> Endpoint {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let listener = runtime.block_on(async { self.socket.listen(128).unwrap().into_std().unwrap() });
        listener.set_nonblocking(false).unwrap();
        Endpoint::listening(listener, None, script)
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A program's path, if it is installed; the places where servers live are looked at whatever `PATH` says.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| Path::is_file(path))
}

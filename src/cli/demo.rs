//! `silktail demo`: the whole thing, nothing to set up. A local endpoint, a log that is being written in a temporary
//! folder, the real daemon on it, the events arriving on screen.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, print, printable, say};
use crate::receive::{Received, Receiver};

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Requests as a web server would log them: client, request, status, referer, user agent, and what becomes of the line.
const REQUESTS: [(&str, &str, u16, &str, &str, &str); 10] = [
    ("192.0.2.7", "GET / HTTP/1.1", 200, "-", BROWSER, "a page: the Silktide script sees it already"),
    ("192.0.2.7", "GET /files/report.pdf HTTP/1.1", 200, "https://docs.example.org/reports", BROWSER, "a download"),
    ("192.0.2.7", "GET /files/report.pdf HTTP/1.1", 200, "https://docs.example.org/reports", BROWSER, "a double click"),
    ("198.51.100.23", "GET /files/price-list.xlsx HTTP/2.0", 200, "-", PHONE, "a download, opened from a mail"),
    ("192.0.2.99", "GET /files/report.pdf HTTP/1.1", 200, "-", CRAWLER, "a crawler"),
    ("203.0.113.4", "HEAD /files/report.pdf HTTP/1.1", 200, "-", BROWSER, "only asked for, not fetched"),
    ("203.0.113.4", "GET /files/missing.pdf HTTP/1.1", 404, "-", BROWSER, "not there"),
    (
        "2001:db8::17",
        "GET /files/handbook.pdf?utm_source=mail HTTP/1.1",
        200,
        "https://search.example/",
        BROWSER,
        "a download, from a search engine",
    ),
    ("203.0.113.4", "GET /files/archive.zip HTTP/1.1", 200, "https://docs.example.org/", BROWSER, "a download"),
    ("203.0.113.4", "\\x16\\x03\\x01", 400, "-", "-", "not HTTP at all"),
];
const BROWSER: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1";
const CRAWLER: &str = "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)";
/// How many of those requests count.
const EVENTS: usize = 4;
/// Between two lines, so that one can watch.
const PACE: Duration = Duration::from_millis(350);
/// After this long without the events something is wrong.
const DEADLINE: Duration = Duration::from_secs(20);

/// The folder and the daemon of the demo; both are gone when it ends, however it ends.
struct Stage {
    folder: PathBuf,
    daemon: Option<Child>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // It may have ended already; then there is nothing to end.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs the demo.
pub fn run(_args: &Args) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("the demo cannot run: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        // Before the daemon is started: it must not outlive the demo.
        let stops =
            || Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]);
        let [mut int, mut term, mut hangup] = stops().map_err(failed)?;
        let stopped = async {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        tokio::select! {
            result = play() => result,
            () = stopped => Err(Failure::Failed("stopped".to_owned())),
        }
    })
}

async fn play() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("the demo cannot run: {error}"));
    let unique = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let folder = std::env::temp_dir().join(format!("silktail-demo-{}-{unique}", std::process::id()));
    std::fs::create_dir(&folder).map_err(failed)?;
    let mut stage = Stage { folder: folder.clone(), daemon: None };
    let (mut receiver, mut posts) = Receiver::bind(([127, 0, 0, 1], 0).into()).await.map_err(failed)?;
    let log = folder.join("access.log");
    let config = folder.join("config.toml");
    File::create(&log).map_err(failed)?;
    let text = format!(
        "state_dir = {state:?}\n\n[endpoint]\nurl = \"{url}\"\nlinger = \"0s\"\n\n[follow]\nstart = \"beginning\"\n\n\
         [[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\n\
         property_key = \"8bce2be8c07a84a70e7104634b42878b\"\nlogs = [{log:?}]\n",
        state = folder.join("state").display().to_string(),
        url = receiver.url(),
        log = log.display().to_string(),
    );
    std::fs::write(&config, &text).map_err(failed)?;
    say("A web server writes its access log; silktail follows it and POSTs what counts to a local endpoint.\n");
    let program = std::env::current_exe().map_err(failed)?;
    let errors = File::create(folder.join("silktail.log")).map_err(failed)?;
    let daemon = Command::new(program)
        .args(["run", "--end-with-parent", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(failed)?;
    stage.daemon = Some(daemon);

    let mut writer = OpenOptions::new().append(true).open(&log).map_err(failed)?;
    let (mut arrived, mut wrong) = (0, 0);
    for (client, request, status, referer, user_agent, meaning) in REQUESTS {
        let time = Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
        let line = format!("{client} - - [{time}] \"{request}\" {status} 51200 \"{referer}\" \"{user_agent}\"\n");
        writer.write_all(line.as_bytes()).map_err(failed)?;
        print(&format!("log    {client:<15} {:<48} {status}  {meaning}\n", printable(request)))?;
        let pause = tokio::time::sleep(PACE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(post) = posts.recv() => show(&post, &mut arrived, &mut wrong)?,
            }
        }
    }
    while arrived < EVENTS {
        match tokio::time::timeout(DEADLINE, posts.recv()).await {
            Ok(Some(post)) => show(&post, &mut arrived, &mut wrong)?,
            Ok(None) | Err(_) => {
                let said = std::fs::read_to_string(folder.join("silktail.log")).unwrap_or_default();
                return Err(Failure::Failed(format!(
                    "only {arrived} of {EVENTS} events arrived; the daemon said:\n{said}"
                )));
            }
        }
    }
    stop(&mut stage)?;
    receiver.stop();
    if arrived != EVENTS || wrong > 0 {
        return Err(Failure::Failed(format!("{arrived} events arrived instead of {EVENTS}, {wrong} POSTs were wrong")));
    }
    print(&format!(
        "\n{} lines, {EVENTS} events, each POST as the API wants it. What was left out and why: `silktail explain`.\n\n\
         With your own log, nothing sent:\n\n    silktail --config my.toml backfill --dry-run\n\n\
         where my.toml is\n\n{}\n",
        REQUESTS.len(),
        "    [endpoint]\n    url = \"https://a.eu.silktide.com/v1/events\"\n\n    [[site]]\n    name = \"docs\"\n    \
         base_url = \"https://docs.example.org\"\n    property_key = \"…\"\n    logs = [\"/var/log/nginx/access.log\"]",
    ))
}

fn show(post: &Received, arrived: &mut usize, wrong: &mut usize) -> Result<(), Failure> {
    let body: serde_json::Value = serde_json::from_slice(&post.body).unwrap_or_default();
    *wrong += usize::from(!post.problems.is_empty());
    for event in body["events"].as_array().into_iter().flatten() {
        *arrived += 1;
        let text = |value: &serde_json::Value| printable(value.as_str().unwrap_or_default());
        print(&format!(
            "  POST {:<15} {} {}  on page {}\n",
            text(&body["ip"]),
            text(&event["event"]),
            text(&event["url"]),
            text(&body["url"])
        ))?;
    }
    Ok(())
}

/// Stops the daemon as systemd would.
fn stop(stage: &mut Stage) -> Result<(), Failure> {
    let Some(daemon) = &mut stage.daemon else { return Ok(()) };
    let pid = i32::try_from(daemon.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already: its status says so below.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let status = daemon.wait().map_err(|error| Failure::Failed(format!("the daemon is lost: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("the daemon ended badly: {status}"))) }
}

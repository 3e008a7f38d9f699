//! A large PDF, served by the real nginx to clients that fetch it as browsers' viewers, download managers and robots do:
//! exactly the right events, under each preset, with and without the Range in the log.
//!
//! Minutes of the log's time can't be waited for: the clients say the time in a header, and nginx logs that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;

use common::servers::{nginx, server};
use common::{BROWSER, CRAWLER, SOON, Sandbox, wait_for};
use serde_json::Value;

const SIZE: usize = 20 * 1024 * 1024;

/// Fetches the file at a second of the log's time; gives up after `most` bytes of the answer.
fn fetch(port: u16, second: u32, request: &str, user_agent: &str, headers: &str, most: usize) -> u16 {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let time = format!("10/Nov/2026:10:{:02}:{:02} +0000", second / 60, second % 60);
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: docs.example.org\r\nUser-Agent: {user_agent}\r\nX-Time: {time}\r\n{headers}\
         Connection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match stream.read(&mut answer[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => filled += more,
        }
    }
    std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
}

/// Who fetched it, and how many events that must be: (default, counter, iab) where the Range is logged, and where not.
type Want = BTreeMap<String, ([usize; 3], [usize; 3])>;

fn visit(port: u16, tag: &str) -> (Want, usize) {
    let get = "GET /files/big.pdf";
    let whole = SIZE + 4096;
    let mut requests = 0;
    let mut want = Want::new();
    let mut fetch_as = |name: &str, second: u32, request: &str, headers: &str, most: usize, status: u16| {
        let got = fetch(port, second, request, name, headers, most);
        assert_eq!(got, status, "{request} {headers} by {name}");
        requests += 1;
    };
    let person = |number: u32| format!("{BROWSER} Visitor/{number}");

    // A viewer: begins the whole, gives up, fetches 30 parts over seven minutes.
    let viewer = person(1);
    fetch_as(&viewer, 0, get, "", 300_000, 200);
    for part in 0..30_usize {
        let (from, to) = (part * 65_536 + 65_536, part * 65_536 + 131_071);
        let range = format!("Range: bytes={from}-{to}\r\n");
        fetch_as(&viewer, 14 * (u32::try_from(part).unwrap() + 1), get, &range, whole, 206);
    }
    want.insert(viewer, ([1, 1, 1], [1, 1, 1]));
    // Another begins with the first part.
    let viewer = person(2);
    for (second, range) in [(5, "0-65535"), (7, "65536-131071"), (9, "20000000-")] {
        fetch_as(&viewer, second, get, &format!("Range: bytes={range}\r\n"), whole, 206);
    }
    want.insert(viewer, ([1, 1, 1], [1, 1, 1]));
    // A player probes two bytes, and goes away.
    let player = person(3);
    fetch_as(&player, 5, get, "Range: bytes=0-1\r\n", whole, 206);
    want.insert(player, ([0, 0, 0], [1, 1, 1]));
    // Two double clicks, ten minutes apart.
    let clicker = person(4);
    for second in [0, 2, 600, 603] {
        fetch_as(&clicker, second, get, "", whole, 200);
    }
    want.insert(clicker, ([2, 2, 1], [2, 2, 1]));
    let asker = person(5);
    fetch_as(&asker, 0, "HEAD /files/big.pdf", "", whole, 200);
    want.insert(asker, ([0, 0, 0], [0, 0, 0]));
    // The browser has it already.
    let again = person(6);
    fetch_as(&again, 0, get, &format!("If-None-Match: {tag}\r\n"), whole, 304);
    want.insert(again, ([0, 1, 0], [0, 1, 0]));
    for robot in [CRAWLER, "Wget/1.21.4", "curl/8.5.0"] {
        fetch_as(robot, 0, get, "", whole, 200);
        want.insert(robot.to_owned(), ([0, 0, 0], [0, 0, 0]));
    }
    (want, requests)
}

#[test]
fn a_large_pdf_counts_once_for_each_who_fetched_it() {
    let Some(program) = server(&["nginx"]) else { return };
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("www/files")).unwrap();
    fs::write(sandbox.path("www/files/big.pdf"), vec![b'%'; SIZE]).unwrap();
    let (plain, ranged) = (
        r#"$remote_addr - $remote_user [TIME] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#,
        r#"$remote_addr - $remote_user [TIME] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_range""#,
    );
    let timed = |format: &str| format.replace("TIME", "$http_x_time");
    let logs = format!(
        "log_format plain '{}';\nlog_format ranged '{}';\naccess_log DIR/plain.log plain;\naccess_log DIR/ranged.log ranged;",
        timed(plain),
        timed(ranged)
    );
    let server = nginx(&program, &sandbox, &logs);
    // nginx's tag of a file is made of its last write and its size.
    let written = fs::metadata(sandbox.path("www/files/big.pdf")).unwrap().mtime();
    let (want, requests) = visit(server.port, &format!("\"{written:x}-{SIZE:x}\""));
    let lines = |name: &str| fs::read_to_string(sandbox.path(name)).unwrap_or_default().lines().count();
    wait_for("every request to be logged", SOON, || lines("plain.log") == requests && lines("ranged.log") == requests);

    for (log, format) in [("ranged", ranged), ("plain", plain)] {
        for (preset, name) in ["default", "counter", "iab"].into_iter().enumerate() {
            let format = format.replace("TIME", "$time_local");
            sandbox.configure(
                1,
                &format!(
                    "[formats.ours]\nnginx = '{format}'\n\n[[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\n\
                     property_key = \"{}\"\nlogs = [\"LOGS/{log}.log\"]\nformat = \"ours\"\ncounting = \"{name}\"\n",
                    common::KEY
                ),
            );
            let done = sandbox.run(&["backfill", "--dry-run"]).expect_code(0);
            let mut got: BTreeMap<String, usize> = want.keys().map(|who| (who.clone(), 0)).collect();
            for body in done.stdout.lines() {
                let body: Value = serde_json::from_str(body).unwrap();
                let events = body["events"].as_array().unwrap();
                *got.get_mut(body["userAgent"].as_str().unwrap()).unwrap() += events.len();
            }
            for (who, (with, without)) in &want {
                let counts = if log == "ranged" { with } else { without };
                assert_eq!(got[who], counts[preset], "{who} under {name}, {log}");
            }
        }
    }
}

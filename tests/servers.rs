//! The real nginx and the real Apache write the logs: what they write is what is read.
//!
//! Where a server isn't installed its test says so and passes, unless `CI=true`: there it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use common::servers::{Server, apache, nginx, server};
use common::{BROWSER, Endpoint, KEY, Sandbox, fetch};
use serde_json::{Value, json};

const PAGE: &str = "https://docs.example.org/manuals/index.html";

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
    let server = nginx(&program, &sandbox, "access_log DIR/access.log combined;");
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
    let log = r#"LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" combined
CustomLog DIR/access.log combined"#;
    let server = apache(&program, &sandbox, log);
    assert_eq!(follow(&sandbox, &server, "format = \"combined\"\n"), want());
}

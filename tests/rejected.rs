//! Events that the endpoint refuses for good: kept, shown, sent again, forgotten; the others aren't held up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use common::{Answer, Endpoint, KEY, Sandbox, combined};
use serde_json::{Value, json};

const SITE: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
"#;

/// Five downloads, of which an endpoint has refused the second and the fourth.
fn two_of_five_refused() -> (Sandbox, Endpoint) {
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|_, body| {
        let refused = body.to_string().contains("/refused-");
        Answer::Status(if refused { 422 } else { 200 })
    });
    sandbox.configure(endpoint.port, SITE);
    let log: String = ["a", "refused-b", "c", "refused-d", "e"]
        .iter()
        .zip(0..)
        .map(|(name, n)| combined(&format!("192.0.2.{n}"), n, &format!("/{name}.pdf")))
        .collect();
    sandbox.write("access.log", &log);
    let done = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(1);
    assert!(done.stderr.contains("refused 2 events for good"), "{done:#?}");
    let summary = done.json();
    assert_eq!((&summary["delivered"], &summary["rejected"]), (&json!(3), &json!(2)));
    (sandbox, endpoint)
}

fn list(sandbox: &Sandbox) -> Vec<Value> {
    let done = sandbox.run(&["rejected", "list", "--json"]).expect_code(0);
    let mut list: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Which of two POSTs under way is answered first is chance.
    list.sort_by_key(|event| event["offset"].as_u64());
    list
}

#[test]
fn a_rejected_event_is_kept_with_the_answer_and_its_line_s_place() {
    let (sandbox, _endpoint) = two_of_five_refused();
    let list = list(&sandbox);
    assert_eq!(list.len(), 2);
    let first = combined("192.0.2.0", 0, "/a.pdf");
    assert_eq!(list[0]["url"], "https://docs.example.org/refused-b.pdf");
    assert_eq!(list[0]["status"], json!(422));
    assert_eq!(list[0]["offset"], json!(first.len()));
    assert_eq!(list[0]["log"], sandbox.path("access.log").display().to_string());
    assert_eq!(list[0]["site"], "docs");
    let text = sandbox.run(&["rejected", "list"]).expect_code(0).stdout;
    assert!(text.contains("422") && text.contains("refused-d.pdf") && text.contains("access.log, offset "), "{text}");
    assert!(!text.contains(KEY), "{text}");
    let status = sandbox.run(&["status", "--json"]).expect_code(0).json();
    assert_eq!(status["sites"][0]["rejected"], json!(2));
    // A second backfill leaves them alone.
    let again = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
    assert_eq!(again["already_sent"], json!(5));
}

#[test]
fn a_retry_sends_them_again_and_forgets_what_is_taken() {
    let (sandbox, endpoint) = two_of_five_refused();
    let before = endpoint.post_count();
    // Still refused: they stay.
    let done = sandbox.run(&["rejected", "retry"]).expect_code(1);
    assert!(done.stdout.contains("0 delivered, 2 refused again, 0 left"), "{done:#?}");
    assert_eq!(endpoint.post_count(), before + 2);
    let kept = list(&sandbox);
    assert_eq!(kept.len(), 2);

    endpoint.set_script(|_, _| Answer::Status(200));
    let number = kept[1]["number"].to_string();
    let done = sandbox.run(&["rejected", "retry", &number]).expect_code(0);
    assert!(done.stdout.contains("1 delivered, 0 refused again, 0 left"), "{done:#?}");
    let left = list(&sandbox);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["number"], kept[0]["number"]);
    sandbox.run(&["rejected", "retry"]).expect_code(0);
    assert_eq!(list(&sandbox), Vec::<Value>::new());
    let want = ["a", "c", "e", "refused-b", "refused-d"].map(|name| format!("https://docs.example.org/{name}.pdf"));
    assert_eq!(endpoint.delivered(), want);
    let status = sandbox.run(&["status", "--json"]).expect_code(0).json();
    assert_eq!((&status["sites"][0]["delivered"], &status["sites"][0]["rejected"]), (&json!(5), &json!(0)));
}

#[test]
fn dropping_asks_and_what_is_dropped_is_gone() {
    let (sandbox, endpoint) = two_of_five_refused();
    let done = sandbox.run(&["rejected", "drop"]).expect_code(2);
    assert!(done.stderr.contains("--yes"), "{done:#?}");
    assert_eq!(list(&sandbox).len(), 2);
    let number = list(&sandbox)[0]["number"].to_string();
    sandbox.run(&["rejected", "drop", "--yes", &number]).expect_code(0);
    assert_eq!(list(&sandbox).len(), 1);
    sandbox.run(&["rejected", "drop", "--yes", "--site", "docs"]).expect_code(0);
    assert_eq!(list(&sandbox).len(), 0);
    sandbox.run(&["rejected", "drop", "4711"]).expect_code(1);
    sandbox.run(&["rejected", "list", "--site", "dogs"]).expect_code(2);
    let before = endpoint.post_count();
    sandbox.run(&["rejected", "retry"]).expect_code(0);
    assert_eq!(endpoint.post_count(), before, "nothing is left to send");
}

#[test]
fn a_key_that_the_answer_quotes_is_hidden_wherever_the_answer_is_shown() {
    // Once whole, and once where the excerpt ends.
    const QUOTE: &str = "HTTP/1.1 422 Nope\r\nContent-Length: 243\r\nConnection: close\r\n\r\n\
        no such property 8bce2be8c07a84a70e7104634b42878b; \
        ................................................................................................................\
        ................................................8bce2be8c07a84a70e7104634b42878b";
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|_, _| Answer::Raw(QUOTE));
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/a.pdf"));
    let sent = sandbox.run(&["backfill", "--yes"]).expect_code(1);
    let shown = sandbox.run(&["rejected", "list"]).expect_code(0).stdout;
    let kept = sandbox.run(&["rejected", "list", "--json"]).expect_code(0).stdout;
    assert!(kept.contains("no such property 8bce…878b"), "{kept}");
    for text in [&sent.stdout, &sent.stderr, &shown, &kept] {
        assert!(!text.contains(&KEY[..8]), "{text}");
    }
}

#[test]
fn a_site_that_is_set_up_wrongly_keeps_its_events_and_a_retry_sends_the_others() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::scripted(|_, _| Answer::Status(422)));
    let other = KEY.replace("8bce", "9bce");
    let shop = SITE.replace("docs", "shop").replace("access.log", "shop.log").replace(KEY, &other);
    sandbox.configure(endpoint.port, &(SITE.to_owned() + &shop));
    for log in ["access.log", "shop.log"] {
        let lines = (0..9).map(|n| combined(&format!("192.0.2.{n}"), n, &format!("/{log}-{n}.pdf")));
        sandbox.write(log, &lines.collect::<String>());
    }
    sandbox.run(&["backfill", "--yes"]).expect_code(1);
    let (all, refused) = (list(&sandbox).len(), endpoint.post_count());
    assert_eq!((all, refused), (18, 18), "an answer that was had isn't asked for again");
    endpoint.set_script(move |_, body| Answer::Status(if body["propertyKey"] == other { 200 } else { 403 }));
    let done = sandbox.run(&["rejected", "retry"]).expect_code(1);
    assert!(done.stdout.contains("9 delivered, 0 refused again, 9 left"), "{done:#?}");
    assert!(list(&sandbox).iter().all(|event| event["site"] == "docs"));
}

#[test]
fn events_of_a_site_that_is_not_configured_any_more_are_counted_and_can_be_forgotten() {
    let (sandbox, endpoint) = two_of_five_refused();
    let shop = SITE.replace("docs", "shop").replace("access.log", "shop.log");
    sandbox.configure(endpoint.port, &shop);
    endpoint.set_script(|_, _| Answer::Status(200));
    let before = endpoint.post_count();
    for args in [&["rejected", "retry"][..], &["rejected", "retry", "--site", "docs"]] {
        let done = sandbox.run(args).expect_code(1);
        assert!(done.stdout.contains("0 delivered, 0 refused again, 2 left"), "{done:#?}");
        assert!(done.stderr.contains("2 events are of `docs`"), "{done:#?}");
        assert!(done.stderr.contains("`silktail rejected drop --site docs`"), "{done:#?}");
    }
    assert_eq!(endpoint.post_count(), before, "nobody knows where to");
    let shown = sandbox.run(&["rejected", "list", "--site", "docs"]).expect_code(0).stdout;
    assert!(shown.contains("refused-b.pdf") && shown.contains("refused-d.pdf"), "{shown}");
    sandbox.run(&["rejected", "drop", "--yes", "--site", "docs"]).expect_code(0);
    assert_eq!(list(&sandbox), Vec::<Value>::new());
    sandbox.run(&["rejected", "retry"]).expect_code(0);
    sandbox.run(&["rejected", "list", "--site", "docs"]).expect_code(2);
}

#[test]
fn an_event_that_was_refused_is_kept_at_a_stop_though_nothing_told_whether_it_is_the_set_up() {
    let endpoint =
        Endpoint::scripted(|_, body| Answer::Status(if body.to_string().contains("/refused") { 422 } else { 503 }));
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, "linger = \"0s\"", SITE);
    sandbox.write("access.log", &(combined("192.0.2.1", 0, "/refused.pdf") + &combined("192.0.2.2", 1, "/b.pdf")));
    let daemon = sandbox.start("said");
    let both = || {
        let posts = endpoint.posts();
        let of = |name: &str| posts.iter().any(|post| post.urls().iter().any(|url| url.contains(name)));
        of("/refused.pdf") && of("/b.pdf")
    };
    common::wait_for("both to be tried", common::SOON, both);
    daemon.stop();
    assert_eq!(list(&sandbox).len(), 1);
    endpoint.set_script(|_, _| Answer::Status(200));
    let daemon = sandbox.start("again");
    endpoint.wait_delivered(1);
    daemon.stop();
    assert!(endpoint.delivered()[0].ends_with("/b.pdf"), "{:?}", endpoint.delivered());
    assert_eq!(endpoint.delivered().len(), 1);
}

#![expect(clippy::unwrap_used, reason = "a benchmark")]
//! The stages of the path from a block of a log to a POST's body, over the log that the comparisons use.
//!
//! `cargo bench --bench stages`

use std::sync::Arc;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use jiff::tz::TimeZone;
use silktail::batch::Batch;
use silktail::deliver::payload::{self, PropertyKey};
use silktail::event::Event;
use silktail::format::{Format, Reading};
use silktail::lines::{Cut, Cutter};
use silktail::offsets::{LogId, SiteId};
use silktail::pipeline::{Outcome, Pipeline, Site};
use silktail::rules::{Finds, Hosts, KeepQuery, PageSource, Rules, SiteContext};
use silktail::visitor::bots::{Bots, Group};
use silktail::visitor::repeats::Repeats;

// Only a part of it is wanted here.
#[allow(dead_code, unreachable_pub)]
#[path = "tool/log.rs"]
mod log;

fn main() {
    divan::main();
}

/// As many bytes as are read at a time.
fn block() -> Vec<u8> {
    let mut block = Vec::new();
    log::write(256 * 1024, &mut block).unwrap();
    block
}

fn downloads() -> Pipeline {
    let base_url = url::Url::parse("https://docs.example.org").unwrap();
    let site = Site {
        id: SiteId(1),
        name: "docs".to_owned(),
        context: SiteContext {
            hosts: Hosts::of_base_url(&base_url),
            base_url: base_url.into(),
            keep_query: KeepQuery::Only(Vec::new()),
            page: vec![PageSource::Referer, PageSource::OwnUrl],
            view_width: None,
        },
        hosts: None,
        rules: Rules::downloads(vec![200]),
        bots: Some(Arc::new(Bots::new(&[Group::Crawlers, Group::Libraries, Group::Tools], &[], &[]).unwrap())),
        exclude_ips: Vec::new(),
        trusted_proxies: Vec::new(),
        respect_dnt: true,
        repeat_window: Duration::from_secs(30),
    };
    Pipeline::new(Format::builtin("combined", &TimeZone::UTC).unwrap(), vec![Arc::new(site)])
}

fn cuts(mut bytes: &[u8]) -> Vec<Cut<'_>> {
    let mut cutter = Cutter::new(0, 64 * 1024);
    std::iter::from_fn(|| cutter.next_line(&mut bytes)).collect()
}

fn events() -> Vec<Event> {
    let (block, pipeline, mut reading) = (block(), downloads(), Reading::default());
    let events = cuts(&block).into_iter().filter_map(|cut| match pipeline.judge(cut, LogId(1), &mut reading).outcome {
        Outcome::Event(event) => Some(*event),
        _ => None,
    });
    events.collect()
}

/// Blocks searched for lines that may become events.
#[divan::bench]
fn search(bencher: Bencher<'_, '_>) {
    let (block, pipeline, mut finds) = (block(), downloads(), Finds::default());
    let prefilter = pipeline.prefilter.unwrap();
    bencher.counter(BytesCount::new(block.len())).bench_local(|| {
        prefilter.find(black_box(&block), &mut finds);
        finds.candidates.len()
    });
}

/// Every line cut, parsed and judged.
#[divan::bench]
fn judge(bencher: Bencher<'_, '_>) {
    let (block, pipeline, mut reading) = (block(), downloads(), Reading::default());
    let lines = cuts(&block).len();
    bencher.counter(BytesCount::new(block.len())).counter(ItemsCount::new(lines)).bench_local(|| {
        let events = cuts(&block)
            .into_iter()
            .filter(|cut| matches!(pipeline.judge(black_box(*cut), LogId(1), &mut reading).outcome, Outcome::Event(_)));
        events.count()
    });
}

/// Whether events are repeats.
#[divan::bench]
fn repeats(bencher: Bencher<'_, '_>) {
    let (events, mut repeats) = (events(), Repeats::new([0; 16], 1_000));
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in &events {
            let key = repeats.key(SiteId(1), &event.name, &event.url, event.visitor.ip, &event.visitor.user_agent);
            let time = event.time.unwrap();
            black_box(repeats.take(key, time, Duration::from_secs(30), event.origin));
        }
    });
}

/// Bodies of POSTs of one event, and their keys.
#[divan::bench]
fn bodies(bencher: Bencher<'_, '_>) {
    let key = PropertyKey::new("8bce2be8c07a84a70e7104634b42878b".to_owned());
    let batches: Vec<Batch> = events().into_iter().map(|event| Batch::of(0, event)).collect();
    let mut body = Vec::new();
    bencher.counter(ItemsCount::new(batches.len())).bench_local(|| {
        for batch in &batches {
            body.clear();
            payload::body(&key, black_box(batch), false, &mut body);
            black_box(payload::idempotency_key(batch));
        }
    });
}

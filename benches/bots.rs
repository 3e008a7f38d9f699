#![expect(clippy::unwrap_used, reason = "a benchmark")]
//! What it costs to ask whether a user agent is a bot's, for browsers and for bots.
//!
//! `cargo bench --bench bots`

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use silktail::visitor::bots::{Bots, Group};

fn main() {
    divan::main();
}

fn all() -> Bots {
    Bots::new(&[Group::Crawlers, Group::Libraries, Group::Tools], &[], &[]).unwrap()
}

fn ask(bencher: Bencher<'_, '_>, list: &str) {
    let (bots, agents) = (all(), list.lines().map(str::as_bytes).collect::<Vec<_>>());
    bencher
        .counter(ItemsCount::new(agents.len()))
        .bench_local(|| agents.iter().filter(|agent| bots.reason(Some(black_box(**agent))).is_some()).count());
}

#[divan::bench]
fn browsers(bencher: Bencher<'_, '_>) {
    ask(bencher, include_str!("../data/bots/fixtures/browsers.txt"));
}

#[divan::bench]
fn instances(bencher: Bencher<'_, '_>) {
    ask(bencher, include_str!("../data/bots/fixtures/instances.txt"));
}

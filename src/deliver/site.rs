//! One site's POSTs: those that wait, and what their failures tell. Plain values; the clock is an input.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::backoff;
use super::settings::{EndpointSettings, SiteSettings};
use super::verdict::Verdict;
use crate::batch::Batch;

#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) batch: Batch,
    pub(super) failures: u32,
    pub(super) since: Option<Instant>,
    /// When it was last sent.
    pub(super) sent: Option<Instant>,
    /// Whether its site was slow then.
    pub(super) is_slow: bool,
    /// Deliveries of its site when it first failed.
    pub(super) delivered_then: u64,
    /// The endpoint at which it holds a place.
    pub(super) endpoint: usize,
}

impl Post {
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, failures: 0, since: None, sent: None, is_slow: false, delivered_then: 0, endpoint: 0 }
    }

    /// It has failed once more; `delivered`: deliveries of its site so far.
    pub(super) fn failed(&mut self, now: Instant, delivered: u64) {
        self.failures += 1;
        if self.since.is_none() {
            (self.since, self.delivered_then) = (Some(now), delivered);
        }
    }

    /// Deliveries of its site since it first failed: where there are some, it is this POST that isn't wanted.
    pub(super) fn delivered_meanwhile(&self, delivered: u64) -> u64 {
        if self.since.is_some() { delivered - self.delivered_then } else { 0 }
    }

    /// Whether it is given up: see [`backoff::is_poison`].
    pub(super) fn is_poison(&self, now: Instant, delivered: u64) -> bool {
        let failing_for = self.since.map(|since| now.duration_since(since)).unwrap_or_default();
        backoff::is_poison(self.failures, failing_for, self.delivered_meanwhile(delivered))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Sending,
    Pausing(Instant),
    Misconfigured(Instant),
}

/// POSTs that may be sent, and how many events that is: it is asked after each answer, and there may be thousands.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) posts: VecDeque<Post>,
    pub(super) events: usize,
}

impl Ready {
    pub(super) fn push_back(&mut self, post: Post) {
        self.events += post.batch.len();
        self.posts.push_back(post);
    }

    pub(super) fn push_front(&mut self, post: Post) {
        self.events += post.batch.len();
        self.posts.push_front(post);
    }

    pub(super) fn pop_front(&mut self) -> Option<Post> {
        let post = self.posts.pop_front()?;
        self.events -= post.batch.len();
        Some(post)
    }

    /// The one that was tried longest ago, or never: it tells most about the set-up.
    pub(super) fn pop_for_a_try(&mut self) -> Option<Post> {
        let (at, _) = self.posts.iter().enumerate().min_by_key(|(_, post)| post.sent)?;
        let post = self.posts.remove(at)?;
        self.events -= post.batch.len();
        Some(post)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }
}

pub(super) struct Site {
    pub(super) settings: SiteSettings,
    pub(super) endpoint: usize,
    pub(super) ready: Ready,
    pub(super) delayed: Vec<(Instant, Post)>,
    /// Single events that were refused: set aside once it is known that others are taken.
    pub(super) suspects: Vec<(Post, u16, String)>,
    pub(super) refused_in_a_row: usize,
    pub(super) failures: u32,
    /// Pauses in a row, and when the last of them began.
    pub(super) pauses: u32,
    pub(super) paused_at: Option<Instant>,
    pub(super) in_flight: usize,
    /// Its last answer took long.
    pub(super) is_slow: bool,
    pub(super) committing: usize,
    pub(super) lingering: usize,
    pub(super) health: Health,
    pub(super) delivered: u64,
    pub(super) delivered_at: Option<Timestamp>,
    pub(super) last_error: Option<String>,
    pub(super) remedy: Option<&'static str>,
    /// Since when it hasn't been sending.
    pub(super) troubled_since: Option<Instant>,
    pub(super) warned_html: bool,
}

impl Site {
    pub(super) fn new(settings: SiteSettings, endpoint: usize) -> Self {
        Self {
            settings,
            endpoint,
            ready: Ready::default(),
            delayed: Vec::new(),
            suspects: Vec::new(),
            refused_in_a_row: 0,
            failures: 0,
            pauses: 0,
            paused_at: None,
            in_flight: 0,
            is_slow: false,
            committing: 0,
            lingering: 0,
            health: Health::Sending,
            delivered: 0,
            delivered_at: None,
            last_error: None,
            remedy: None,
            troubled_since: None,
            warned_html: false,
        }
    }

    /// Events that wait for their POST.
    pub(super) fn waiting(&self) -> usize {
        let delayed = self.delayed.iter().map(|(_, post)| post);
        let suspects = self.suspects.iter().map(|(post, _, _)| post);
        let set_aside: usize = delayed.chain(suspects).map(|post| post.batch.len()).sum();
        self.ready.events + set_aside + self.lingering
    }

    /// Whether a failure says something new: what was under way when the site's pause began failed for the same reason,
    /// and one outage is not many.
    pub(super) fn is_news(&self, post: &Post) -> bool {
        self.paused_at.is_none_or(|paused_at| post.sent.is_none_or(|sent| sent > paused_at))
    }

    pub(super) fn next_pause(&mut self, now: Instant, asked: Option<Duration>, chance: f64) -> Duration {
        self.pauses += 1;
        self.paused_at = Some(now);
        backoff::pause(self.pauses, self.settings.endpoint.retry_max, asked, chance)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.delayed.is_empty() && self.in_flight == 0 && self.lingering == 0
    }
}

/// What someone can do about an answer.
pub(super) fn remedy(said: Verdict, status: Option<u16>) -> &'static str {
    match (said, status) {
        (Verdict::Refused, _) => {
            "`silktail rejected list` shows what was refused, `silktail explain` what becomes of a line"
        }
        (Verdict::Misconfigured, Some(300..=399)) => {
            "redirects aren't followed: compare url with window.stConfig.endpointUrl"
        }
        (Verdict::Misconfigured, _) => {
            "compare property_key with window.stConfig.propertyKey and url with window.stConfig.endpointUrl"
        }
        (_, None) => "tried again by itself; if it lasts, see whether this machine reaches the endpoint",
        (_, Some(_)) => "tried again by itself, as slowly as the endpoint asks for; nothing is lost meanwhile",
    }
}

/// Why a batch is too old to be sent as happening now.
pub(super) fn too_old(batch: &Batch, settings: &EndpointSettings) -> Option<String> {
    if settings.max_age.is_zero() {
        return None;
    }
    let newest = batch.events().filter_map(|event| event.time).max()?;
    let age = Duration::try_from(Timestamp::now().duration_since(newest)).ok()?;
    (age > settings.max_age).then(|| "too old: see max_age".to_owned())
}

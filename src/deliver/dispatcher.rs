//! The task that decides: whose turn it is, when to try again, and what an answer means for its site.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::client::Client;
use super::http::{self, Answer};
use super::limit::{Limit, Load};
use super::settings::{DeliverError, EndpointSettings, SiteSettings};
use super::site::{Health, Post, Site, remedy, too_old};
use super::stats::SiteSnapshot;
use super::verdict::{Verdict, verdict};
use super::{Outcome, Settle, Settlement, Shared, backoff, payload};
use crate::batch::{Batch, Batcher};
use crate::event::Event;
use crate::offsets::SiteId;

/// A site whose last answer took so long, or didn't come, may be so slow again.
const SLOW: Duration = Duration::from_secs(1);

/// After this many failures in a row the whole site pauses.
const SITE_PAUSES_AFTER: u32 = 5;

/// After this many refusals in a row, with nothing delivered, it is the set-up and not the events.
const SETUP_IS_WRONG_AFTER: usize = 20;

/// Bytes of a body for each of its events: mostly enough, so that it grows in place.
const BODY: usize = 768;

/// How far the runtime sleeps while POSTs are under way: less than any of them may take. Each sets itself a deadline, and one
/// that is sooner than what the runtime last meant to sleep for wakes it anew, with a system call.
const PULSE: Duration = Duration::from_secs(1);

pub(super) enum Command {
    Event(Box<Event>),
    Batch(Box<Batch>),
    /// A POST that wasn't taken, its answer, and when that came.
    Answered(Box<Post>, Answer, Instant),
    /// A POST that was taken; that is committed.
    Delivered(Delivered),
    /// A site, and the endpoint whose place is free again.
    Committed(SiteId, usize),
    Reload(Vec<SiteSettings>, Vec<(EndpointSettings, Client)>),
    /// Who waits for the end, and after when no POST is begun.
    Stop(oneshot::Sender<()>, Instant),
}

/// What is left of a POST that was taken.
pub(super) struct Delivered {
    site: SiteId,
    /// The endpoint at which it holds a place.
    endpoint: usize,
    status: u16,
    sent: Instant,
    answered: Instant,
    is_slow: bool,
    html: bool,
}

pub(super) struct Endpoint {
    client: Client,
    settings: EndpointSettings,
    busy: usize,
    /// Sites that send to it.
    sites: usize,
    /// POSTs of slow sites that wait for their answers.
    slow: usize,
    limit: Limit,
    next_start: Instant,
}

impl Endpoint {
    fn new(settings: EndpointSettings, client: Client) -> Self {
        let limit = Limit::new(settings.max_in_flight);
        Self { client, settings, busy: 0, sites: 0, slow: 0, limit, next_start: Instant::now() }
    }

    /// Whether it has a place for a POST of this site. Where it has other sites, too, one that is slow, or has much to send,
    /// leaves some of them: theirs would else wait for as long as its answers take.
    fn has_place_for(&self, site: &Site) -> bool {
        let allowed = self.limit.allowed();
        if self.sites < 2 {
            return self.busy < allowed;
        }
        let left_to_others = if site.in_flight == 0 { 0 } else { allowed / 4 };
        self.busy + left_to_others < allowed && (!site.is_slow || self.slow < (allowed / 2).max(1))
    }
}

pub(super) struct Dispatcher<S> {
    sites: Vec<Site>,
    by_id: HashMap<SiteId, usize>,
    endpoints: Vec<Endpoint>,
    batcher: Batcher<Instant>,
    shared: Arc<Shared<S>>,
    commands: mpsc::UnboundedSender<Command>,
    stopping: Option<oneshot::Sender<()>>,
    /// At a stop: after this no POST is begun, so that those under way get their answers.
    last_start: Option<Instant>,
    /// While POSTs are under way there is no sleeping past this.
    pulse: Instant,
    chance: RandomState,
    turn: usize,
}

impl<S: Settle> Dispatcher<S> {
    pub(super) fn new(
        sites: Vec<SiteSettings>,
        shared: Arc<Shared<S>>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Result<Self, DeliverError> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut all = Vec::new();
        let mut by_id = HashMap::new();
        let max_events = sites.iter().map(|site| site.endpoint.max_events).max().unwrap_or(1);
        for settings in sites {
            let known = endpoints.iter().position(|endpoint| endpoint.settings == settings.endpoint);
            let endpoint = match known {
                Some(known) => known,
                None => {
                    let client = Client::new(&settings.endpoint)?;
                    endpoints.push(Endpoint::new(settings.endpoint.clone(), client));
                    endpoints.len() - 1
                }
            };
            by_id.insert(settings.id, all.len());
            endpoints[endpoint].sites += 1;
            all.push(Site::new(settings, endpoint));
        }
        Ok(Self {
            sites: all,
            by_id,
            endpoints,
            batcher: Batcher::new(max_events),
            shared,
            commands,
            stopping: None,
            last_start: None,
            pulse: Instant::now(),
            chance: RandomState::new(),
            turn: 0,
        })
    }

    pub(super) async fn run(mut self, mut received: mpsc::UnboundedReceiver<Command>) {
        loop {
            let wake = self.next_wake();
            let command = match wake {
                Some(at) => tokio::select! {
                    command = received.recv() => command,
                    () = tokio::time::sleep_until(at) => None,
                },
                None => received.recv().await,
            };
            if let Some(command) = command {
                self.take(command);
                // All that has come, before anything is started.
                while let Ok(command) = received.try_recv() {
                    self.take(command);
                }
            }
            let now = Instant::now();
            for batch in self.batcher.due(now) {
                self.enqueue(batch);
            }
            self.start_posts(now);
            if self.stopping.is_some() && self.nothing_more_can_be_sent(now) {
                // Their answer was had, and isn't asked for again: nothing will come that tells whether it is the set-up.
                for index in 0..self.sites.len() {
                    self.reject_suspects(index);
                }
            }
            self.show();
            if self.stopping.is_some()
                && self.nothing_more_can_be_sent(now)
                && let Some(done) = self.stopping.take()
            {
                let _ = done.send(());
                return;
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Event(event) => {
                let Some(&index) = self.by_id.get(&event.origin.site) else { return };
                let linger = self.sites[index].settings.endpoint.linger;
                self.sites[index].lingering += 1;
                let due = Instant::now() + if self.stopping.is_some() { Duration::ZERO } else { linger };
                if let Some(full) = self.batcher.add(event, due) {
                    self.enqueue(full);
                }
            }
            Command::Batch(batch) => {
                let Some(&index) = self.by_id.get(&batch.site()) else { return };
                self.sites[index].lingering += batch.len();
                self.enqueue(*batch);
            }
            Command::Answered(post, answer, at) => self.answered(*post, answer, at),
            Command::Delivered(delivered) => self.delivered(delivered),
            Command::Committed(site, endpoint) => {
                let Some(&index) = self.by_id.get(&site) else { return };
                let site = &mut self.sites[index];
                site.committing = site.committing.saturating_sub(1);
                self.leave(endpoint);
            }
            Command::Reload(sites, clients) => self.reload(sites, clients),
            Command::Stop(done, last_start) => {
                (self.stopping, self.last_start) = (Some(done), Some(last_start));
                for batch in self.batcher.drain() {
                    self.enqueue(batch);
                }
            }
        }
    }

    /// A place at an endpoint is free again.
    fn leave(&mut self, endpoint: usize) {
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.busy = endpoint.busy.saturating_sub(1);
        }
    }

    fn reload(&mut self, sites: Vec<SiteSettings>, clients: Vec<(EndpointSettings, Client)>) {
        // Endpoints are only added: POSTs under way hold a place at the one they were sent to.
        for (settings, client) in clients {
            match self.endpoints.iter_mut().find(|known| known.settings == settings) {
                // What its certificates are told by may have changed.
                Some(known) => known.client = client,
                None => self.endpoints.push(Endpoint::new(settings, client)),
            }
        }
        self.batcher.set_max_events(sites.iter().map(|site| site.endpoint.max_events).max().unwrap_or(1));
        let now = Instant::now();
        for settings in sites {
            let known = self.endpoints.iter().position(|endpoint| endpoint.settings == settings.endpoint);
            let Some(endpoint) = known else { continue };
            let Some(&index) = self.by_id.get(&settings.id) else {
                self.by_id.insert(settings.id, self.sites.len());
                self.sites.push(Site::new(settings, endpoint));
                continue;
            };
            let site = &mut self.sites[index];
            (site.settings, site.endpoint) = (settings, endpoint);
            (site.pauses, site.paused_at) = (0, None);
            site.health = match site.health {
                Health::Sending => Health::Sending,
                Health::Pausing(_) => Health::Pausing(now),
                Health::Misconfigured(_) => Health::Misconfigured(now),
            };
        }
        self.endpoints.iter_mut().for_each(|endpoint| endpoint.sites = 0);
        for site in &self.sites {
            self.endpoints[site.endpoint].sites += 1;
        }
    }

    fn enqueue(&mut self, batch: Batch) {
        let Some(&index) = self.by_id.get(&batch.site()) else { return };
        let site = &mut self.sites[index];
        site.lingering = site.lingering.saturating_sub(batch.len());
        site.ready.push_back(Post::new(batch));
    }

    /// Whether it is too late to begin a POST.
    fn is_closing(&self, now: Instant) -> bool {
        self.last_start.is_some_and(|last_start| now >= last_start)
    }

    /// Starts what may start, a site after the other, so that none waits for another's backlog.
    fn start_posts(&mut self, now: Instant) {
        if self.is_closing(now) {
            return;
        }
        for site in &mut self.sites {
            let mut index = 0;
            while index < site.delayed.len() {
                if site.delayed[index].0 <= now {
                    let (_, post) = site.delayed.swap_remove(index);
                    site.ready.push_front(post);
                } else {
                    index += 1;
                }
            }
        }
        let count = self.sites.len();
        loop {
            let mut started = false;
            for offset in 0..count {
                let index = (self.turn + offset) % count;
                started |= self.start_one(index, now);
            }
            self.turn = self.turn.wrapping_add(1) % count.max(1);
            if !started {
                return;
            }
        }
    }

    fn start_one(&mut self, index: usize, now: Instant) -> bool {
        let site = &mut self.sites[index];
        let endpoint = &mut self.endpoints[site.endpoint];
        let may = match site.health {
            Health::Sending => true,
            // One tries for all.
            Health::Pausing(until) | Health::Misconfigured(until) => now >= until && site.in_flight == 0,
        };
        if !may || !endpoint.has_place_for(site) || now < endpoint.next_start {
            return false;
        }
        let next = if site.health == Health::Sending { site.ready.pop_front() } else { site.ready.pop_for_a_try() };
        let Some(mut post) = next else { return false };
        if let Some(too_old) = too_old(&post.batch, &endpoint.settings) {
            self.reject(index, post, None, too_old);
            return true;
        }
        endpoint.busy += 1;
        post.endpoint = site.endpoint;
        if endpoint.settings.max_rate > 0 {
            endpoint.next_start = now + Duration::from_secs(1) / endpoint.settings.max_rate;
        }
        site.in_flight += 1;
        post.sent = Some(now);
        post.is_slow = site.is_slow;
        endpoint.slow += usize::from(site.is_slow);
        let is_slow = site.is_slow;
        let client = endpoint.client.clone();
        let key = site.settings.property_key.clone();
        let (shared, commands) = (Arc::clone(&self.shared), self.commands.clone());
        shared.requests.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut body = Vec::with_capacity(BODY * post.batch.len());
            payload::body(&key, &post.batch, false, &mut body);
            let idempotency_key = payload::idempotency_key(&post.batch);
            let answer = http::post(&client, &idempotency_key, &key, body).await;
            let answered = Instant::now();
            let done = match answer {
                // Nothing is to be decided: the outcome goes straight to the ledger.
                Answer::Status { status, html, .. } if verdict(status) == Verdict::Delivered => {
                    let site = post.batch.site();
                    shared.settle.settle(Settlement { batch: post.batch, outcome: Outcome::Delivered }).await;
                    let endpoint = post.endpoint;
                    Command::Delivered(Delivered { site, endpoint, status, sent: now, answered, is_slow, html })
                }
                answer => Command::Answered(Box::new(post), answer, answered),
            };
            let _ = commands.send(done);
        });
        true
    }

    /// The place among those in flight stays taken until the outcome is committed.
    fn commit(&self, endpoint: usize, batch: Batch, outcome: Outcome) {
        let (shared, commands) = (Arc::clone(&self.shared), self.commands.clone());
        tokio::spawn(async move {
            let site = batch.site();
            shared.settle.settle(Settlement { batch, outcome }).await;
            let _ = commands.send(Command::Committed(site, endpoint));
        });
    }

    /// What every answer tells, whatever becomes of its POST.
    fn heard(
        &mut self,
        site: SiteId,
        endpoint: usize,
        status: Option<u16>,
        sent: Instant,
        answered: Instant,
        was_slow: bool,
    ) {
        let took = answered.saturating_duration_since(sent);
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).add(site, status, took);
        if let Some(&index) = self.by_id.get(&site) {
            self.sites[index].is_slow = took >= SLOW;
        }
        let Some(endpoint) = self.endpoints.get_mut(endpoint) else { return };
        endpoint.slow -= usize::from(was_slow);
        let before = endpoint.limit.allowed();
        endpoint.limit.answered(Load::of(status), sent, answered);
        let allowed = endpoint.limit.allowed();
        if allowed < before {
            let host = endpoint.settings.url.host_str();
            tracing::debug!(host, status, ?took, in_flight = allowed, "the endpoint is given less at a time");
        }
    }

    fn delivered(&mut self, delivered: Delivered) {
        let Delivered { site, endpoint, status, sent, answered, is_slow, html } = delivered;
        self.leave(endpoint);
        self.heard(site, endpoint, Some(status), sent, answered, is_slow);
        let Some(&index) = self.by_id.get(&site) else { return };
        let site = &mut self.sites[index];
        site.in_flight = site.in_flight.saturating_sub(1);
        if site.health != Health::Sending {
            tracing::info!(site = site.settings.name, "the endpoint takes events again");
        }
        if html && !site.warned_html {
            site.warned_html = true;
            tracing::warn!(
                site = site.settings.name,
                hint = "compare url with window.stConfig.endpointUrl",
                "the endpoint answers with a web page: is something in between?"
            );
        }
        (site.health, site.failures, site.refused_in_a_row) = (Health::Sending, 0, 0);
        (site.pauses, site.paused_at) = (0, None);
        site.delivered += 1;
        site.delivered_at = Some(Timestamp::now());
        (site.last_error, site.remedy) = (None, None);
        self.reject_suspects(index);
    }

    /// A POST wasn't taken.
    fn answered(&mut self, post: Post, answer: Answer, at: Instant) {
        let site = post.batch.site();
        self.judge(post, answer, at);
        if let Some(&index) = self.by_id.get(&site)
            && self.sites[index].is_idle()
        {
            // Nothing else is there to tell whether it is these events or the set-up.
            self.reject_suspects(index);
        }
    }

    /// What becomes of it.
    fn judge(&mut self, mut post: Post, answer: Answer, at: Instant) {
        let (said, status, asked, text) = match answer {
            Answer::Status { status, retry_after, excerpt, .. } => {
                (verdict(status), Some(status), retry_after, excerpt)
            }
            Answer::Nothing(reason) => (Verdict::Retry, None, None, reason),
        };
        self.heard(post.batch.site(), post.endpoint, status, post.sent.unwrap_or(at), at, post.is_slow);
        let Some(&index) = self.by_id.get(&post.batch.site()) else { return };
        let now = Instant::now();
        let chance = self.chance();
        let site = &mut self.sites[index];
        site.in_flight = site.in_flight.saturating_sub(1);
        let name = site.settings.name.clone();
        let retry_max = site.settings.endpoint.retry_max;
        // `rejected` keeps the answer as it was.
        let discreet = status.map_or_else(|| text.clone(), |_| http::discreet(&text));
        let shown = status.map_or_else(|| discreet.clone(), |status| format!("status {status} {discreet}"));
        site.last_error = Some(shown.trim().to_owned());
        site.remedy = Some(remedy(said, status));
        match said {
            // Those are mostly settled where they are answered.
            Verdict::Delivered => {
                site.committing += 1;
                self.commit(post.endpoint, post.batch, Outcome::Delivered);
            }
            Verdict::Retry => {
                self.leave(post.endpoint);
                let site = &mut self.sites[index];
                post.failed(now, site.delivered);
                self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).retries += 1;
                if post.is_poison(now, site.delivered) {
                    self.reject(index, post, status, text);
                    return;
                }
                site.failures += 1;
                let pause = backoff::pause(post.failures, retry_max, asked, chance);
                if site.failures >= SITE_PAUSES_AFTER && site.is_news(&post) {
                    let pause = site.next_pause(now, asked, chance);
                    if site.health == Health::Sending {
                        let waiting_events = site.waiting() + post.batch.len();
                        tracing::warn!(site = name, status, reason = discreet, wait = ?pause, waiting_events, "endpoint unavailable, will retry");
                    }
                    site.health = Health::Pausing(now + pause);
                }
                site.delayed.push((now + pause, post));
            }
            Verdict::Refused => {
                self.leave(post.endpoint);
                let site = &mut self.sites[index];
                if let Some(other) = post.batch.halve() {
                    site.ready.push_front(Post::new(other));
                    site.ready.push_front(Post::new(post.batch));
                    return;
                }
                post.failed(now, site.delivered);
                if post.delivered_meanwhile(site.delivered) > 0 {
                    self.reject(index, post, status, text);
                    return;
                }
                site.refused_in_a_row += 1;
                let is_news = site.is_news(&post);
                site.suspects.push((post, status.unwrap_or(0), text));
                if site.refused_in_a_row >= SETUP_IS_WRONG_AFTER {
                    let suspects: Vec<Post> = site.suspects.drain(..).map(|(post, _, _)| post).collect();
                    for post in suspects.into_iter().rev() {
                        site.ready.push_front(post);
                    }
                    if is_news {
                        self.misconfigured(index, status, now, chance);
                    }
                }
            }
            Verdict::Misconfigured => {
                self.leave(post.endpoint);
                let site = &mut self.sites[index];
                post.failed(now, site.delivered);
                if post.is_poison(now, site.delivered) {
                    self.reject(index, post, status, text);
                    return;
                }
                // Others of the site were taken since: something before the endpoint dislikes this one (a firewall that reads
                // user agents and paths), and nobody else waits for it.
                if post.delivered_meanwhile(site.delivered) > 0 {
                    let pause = backoff::pause(post.failures, retry_max, None, chance);
                    site.delayed.push((now + pause, post));
                    return;
                }
                let is_news = site.is_news(&post);
                site.ready.push_front(post);
                if is_news {
                    self.misconfigured(index, status, now, chance);
                }
            }
        }
    }

    fn misconfigured(&mut self, index: usize, status: Option<u16>, now: Instant, chance: f64) {
        let site = &mut self.sites[index];
        if !matches!(site.health, Health::Misconfigured(_)) {
            let hint = remedy(Verdict::Misconfigured, status);
            tracing::error!(site = site.settings.name, status, hint, "property refused, this site waits");
        }
        let pause = site.next_pause(now, None, chance);
        site.health = Health::Misconfigured(now + pause);
    }

    fn reject_suspects(&mut self, index: usize) {
        for (post, status, reason) in std::mem::take(&mut self.sites[index].suspects) {
            self.reject(index, post, Some(status), reason);
        }
    }

    fn reject(&mut self, index: usize, post: Post, status: Option<u16>, reason: String) {
        let site = &mut self.sites[index];
        let origin = post.batch.events().next().map(|event| event.origin);
        let path = origin.and_then(|origin| self.shared.settle.path_of(origin.log));
        let path = path.map(|path| path.display().to_string());
        let offset = origin.map(|origin| origin.line.start);
        tracing::error!(
            site = site.settings.name,
            status,
            path,
            offset,
            events = post.batch.len(),
            hint = "see `silktail rejected list`",
            "event rejected"
        );
        site.committing += 1;
        let endpoint = site.endpoint;
        self.endpoints[endpoint].busy += 1;
        self.commit(endpoint, post.batch, Outcome::Rejected { status, reason });
    }

    fn next_wake(&mut self) -> Option<Instant> {
        // Only answers are waited for.
        if self.is_closing(Instant::now()) {
            return None;
        }
        let mut wake = [self.batcher.next_due(), self.last_start].into_iter().flatten().min();
        let mut sooner = |at: Instant| wake = Some(wake.map_or(at, |known| known.min(at)));
        for site in &self.sites {
            site.delayed.iter().for_each(|(at, _)| sooner(*at));
            if site.ready.is_empty() {
                continue;
            }
            let endpoint = &self.endpoints[site.endpoint];
            match site.health {
                // An answer wakes it.
                _ if !endpoint.has_place_for(site) => {}
                Health::Pausing(until) | Health::Misconfigured(until) if site.in_flight == 0 => {
                    sooner(until.max(endpoint.next_start));
                }
                Health::Sending if endpoint.next_start > Instant::now() => sooner(endpoint.next_start),
                _ => {}
            }
        }
        if self.endpoints.iter().any(|endpoint| endpoint.busy > 0) {
            let now = Instant::now();
            if self.pulse <= now {
                self.pulse = now + PULSE;
            }
            sooner(self.pulse);
        }
        wake
    }

    /// At a stop nobody waits for a pause.
    fn nothing_more_can_be_sent(&self, now: Instant) -> bool {
        let closing = self.is_closing(now);
        self.sites.iter().all(|site| {
            let stuck = closing || site.ready.is_empty() || site.health != Health::Sending;
            site.in_flight == 0 && site.committing == 0 && stuck && site.lingering == 0
        })
    }

    pub(super) fn show(&mut self) {
        let now = Instant::now();
        for site in &mut self.sites {
            match site.health {
                Health::Sending => site.troubled_since = None,
                _ => drop(site.troubled_since.get_or_insert(now)),
            }
        }
        let sites = self.sites.iter().map(|site| SiteSnapshot {
            id: site.settings.id,
            waiting: site.waiting(),
            in_flight: site.in_flight,
            state: match site.health {
                Health::Sending => "sending",
                Health::Pausing(_) => "pausing",
                Health::Misconfigured(_) => "misconfigured",
            },
            last_error: site.last_error.clone(),
            remedy: site.remedy,
            delivered_at: site.delivered_at,
            tries: if matches!(site.health, Health::Misconfigured(_)) { site.pauses } else { 0 },
            troubled_for: site.troubled_since.map(|since| now.duration_since(since)),
        });
        *self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = sites.collect();
    }

    /// A number between 0 and 1, different each time.
    fn chance(&self) -> f64 {
        let requests = self.shared.requests.load(Ordering::Relaxed);
        (self.chance.hash_one((requests, Instant::now())) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

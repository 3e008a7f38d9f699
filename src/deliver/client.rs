//! A client for one endpoint: connections that are kept, and one exchange.
//!
//! Over HTTP/1.1 a POST has a connection to itself and drives it: a task for each connection would have to be woken, and to
//! wake the POST, for each step. Over HTTP/2 all share one, which tasks drive, and which ends soon after the last who holds it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Position;

use super::connect::{self, Error, Route, Stream};
use super::{DeliverError, EndpointSettings};

/// A connection that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(90);
/// How long an HTTP/2 connection that nobody holds any more may take to end as it should. An endpoint that doesn't read
/// would keep it, and its descriptor, for ever.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of an answer's head at most, and of what is read of a body at a time.
const BUFFER: usize = 64 * 1024;
/// Bytes of an HTTP/2 answer's headers at most.
const HEADERS_MAX: u32 = 64 * 1024;

type Post = Request<Full<Bytes>>;

/// Sends POSTs to one endpoint; clones share its connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    route: Route,
    timeout: Duration,
    /// What HTTP/1.1 asks for; HTTP/2 asks for the endpoint in full.
    uri: Uri,
    /// What every POST has.
    headers: HeaderMap,
    pool: Mutex<Pool>,
    /// Where POSTs share a connection, one opens it for all.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Since when; the one used last is at the end.
    idle: Vec<(Instant, Box<Own>)>,
    shared: Option<Shared>,
    /// Connections that were shared, so far.
    number: u64,
    /// Somebody comes and closes what isn't used.
    tended: bool,
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
struct Own {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: http1::Connection<TokioIo<Stream>, Full<Bytes>>,
    ended: bool,
}

/// An HTTP/2 connection.
#[derive(Debug, Clone)]
struct Shared {
    number: u64,
    sender: http2::SendRequest<Full<Bytes>>,
    used: Instant,
    hold: Hold,
}

/// Whoever has one holds an HTTP/2 connection: the pool, and each exchange until its answer is read or given up.
#[derive(Debug, Clone)]
struct Hold(#[expect(dead_code, reason = "it is there to be let go of")] Arc<watch::Sender<()>>);

/// Runs what drives an HTTP/2 connection, for as long as it is held, and [`FAREWELL`] longer.
#[derive(Debug, Clone)]
struct Held(watch::Receiver<()>);

impl Held {
    fn new() -> (Hold, Held) {
        let (hold, held) = watch::channel(());
        (Hold(Arc::new(hold)), Held(held))
    }
}

impl<F> Executor<F> for Held
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, work: F) {
        let Held(mut held) = self.clone();
        tokio::spawn(async move {
            let mut work = pin!(work);
            tokio::select! {
                biased;
                _ = work.as_mut() => return,
                // Nothing is ever sent: an error says that nobody holds it.
                _ = held.changed() => {}
            }
            if tokio::time::timeout(FAREWELL, work).await.is_err() {
                tracing::debug!("HTTP/2 connection broken off: the endpoint doesn't let it end");
            }
        });
    }
}

enum Way {
    Own(Box<Own>),
    Shared(Shared),
}

/// The beginning of an answer, and the way to the rest.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    /// The connection, where it is this exchange's own.
    own: Option<Box<Own>>,
    /// Where it is shared, it lasts until this is let go of.
    _hold: Option<Hold>,
    client: Arc<Inner>,
}

impl Client {
    /// Builds a client: kept-alive connections, HTTP/2 where offered, no redirects, no proxy but its own.
    ///
    /// # Errors
    /// A `ca_file` that can't be read, or TLS that can't be set up.
    pub fn new(settings: &EndpointSettings) -> Result<Self, DeliverError> {
        let route = Route::new(settings)?;
        let url = &settings.url;
        let wrong = || DeliverError::Url(url.host_str().map(str::to_owned));
        let host = &url[Position::BeforeHost..Position::AfterPort];
        let uri = match route.is_by_proxy() {
            true => route.endpoint.clone(),
            false => route.endpoint.path_and_query().cloned().map(Uri::from).ok_or_else(wrong)?,
        };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("silktail/", env!("CARGO_PKG_VERSION"))));
        headers.insert(HOST, HeaderValue::try_from(host).map_err(|_| wrong())?);
        headers.extend(connect::basic(url).map(|value| (AUTHORIZATION, value)));
        headers.extend(route.proxy_authorization().map(|value| (PROXY_AUTHORIZATION, value.clone())));
        Ok(Self(Arc::new(Inner {
            route,
            timeout: settings.timeout,
            uri,
            headers,
            pool: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        })))
    }

    /// How long connecting and the answer may take.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Sends a body. On a connection that was kept, the endpoint may have hung up meanwhile: what didn't get to it is sent
    /// again on another.
    ///
    /// # Errors
    /// Those of connecting, and of the connection.
    pub async fn post(&self, idempotency_key: &HeaderValue, body: Bytes) -> Result<Response, Error> {
        loop {
            let kept = self.0.kept().await;
            let was_kept = kept.is_some();
            let way = match kept {
                Some(way) => way,
                // Rare, and large: what every POST carries along has to be small.
                None => Box::pin(self.0.open()).await?,
            };
            let is_shared = matches!(way, Way::Shared(_));
            let request = self.0.request(is_shared, idempotency_key, body.clone());
            let error = match way {
                Way::Own(mut own) => {
                    let sent = own.sender.try_send_request(request);
                    match own.drive(sent).await {
                        Ok(response) => return Ok(self.answered(response, Some(own), None)),
                        Err(error) => error,
                    }
                }
                Way::Shared(mut shared) => {
                    let unanswered = Unanswered { client: &self.0, number: shared.number };
                    let error = match shared.sender.try_send_request(request).await {
                        Ok(response) => {
                            std::mem::forget(unanswered);
                            return Ok(self.answered(response, None, Some(shared.hold)));
                        }
                        Err(error) => error,
                    };
                    drop(unanswered);
                    error
                }
            };
            if !(was_kept && never_arrived(&error)) {
                return Err(error.into_error().into());
            }
        }
    }

    fn answered(&self, response: http::Response<Incoming>, own: Option<Box<Own>>, hold: Option<Hold>) -> Response {
        let (head, body) = response.into_parts();
        Response { status: head.status, headers: head.headers, body, own, _hold: hold, client: Arc::clone(&self.0) }
    }
}

/// A request on a shared connection that has no answer yet. Where none is waited for any more, nothing else is begun on
/// that connection: whoever is at its other end may keep it open and never say a word.
struct Unanswered<'c> {
    client: &'c Inner,
    number: u64,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.client.forget(self.number);
    }
}

/// Whether the endpoint has said, or can't but agree, that it hasn't looked at a request.
fn never_arrived(error: &TrySendError<Post>) -> bool {
    if error.message().is_some() {
        return true;
    }
    let source = std::error::Error::source(error.error());
    source.and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        let reason = error.reason();
        error.is_remote()
            && (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)
                || error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
    })
}

impl Inner {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Connections are taken out and put in whole.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, is_shared: bool, idempotency_key: &HeaderValue, body: Bytes) -> Post {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(HeaderName::from_static("idempotency-key"), idempotency_key.clone());
        if is_shared {
            *request.uri_mut() = self.route.endpoint.clone();
            // HTTP/2 tells it in its own way.
            request.headers_mut().remove(HOST);
        } else {
            *request.uri_mut() = self.uri.clone();
        }
        request
    }

    /// A connection that is open, if there is one.
    async fn kept(&self) -> Option<Way> {
        if let Some(shared) = self.shared() {
            return Some(Way::Shared(shared));
        }
        loop {
            let (_, mut own) = self.pool().idle.pop()?;
            if own.is_usable().await {
                return Some(Way::Own(own));
            }
        }
    }

    fn shared(&self) -> Option<Shared> {
        let mut pool = self.pool();
        pool.shared.take_if(|shared| shared.sender.is_closed());
        let shared = pool.shared.as_mut()?;
        shared.used = Instant::now();
        Some(shared.clone())
    }

    /// An HTTP/2 connection is on its way out: nobody begins anything on it any more.
    fn forget(&self, number: u64) {
        self.pool().shared.take_if(|shared| shared.number == number);
    }

    async fn open(self: &Arc<Self>) -> Result<Way, Error> {
        // Held where the endpoint is known to speak HTTP/2.
        let mut _turn = None;
        if self.pool().number > 0 {
            _turn = Some(self.opening.lock().await);
            if let Some(shared) = self.shared() {
                return Ok(Way::Shared(shared));
            }
        }
        let (stream, is_http2) = self.route.connect().await?;
        let stream = TokioIo::new(stream);
        if !is_http2 {
            let mut builder = http1::Builder::new();
            // A body of some hundred bytes is copied behind its head faster than it is written from its own place.
            builder.max_buf_size(BUFFER).writev(false);
            let (sender, connection) = builder.handshake(stream).await?;
            return Ok(Way::Own(Box::new(Own { sender, connection, ended: false })));
        }
        let (hold, held) = Held::new();
        let mut builder = http2::Builder::new(held.clone());
        let (sender, connection) = builder.max_header_list_size(HEADERS_MAX).handshake(stream).await?;
        held.execute(async move {
            // Whoever waits for an answer is told.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection ended");
            }
        });
        // Another may have opened one meanwhile: the first that came is the one that stays.
        if let Some(shared) = self.shared() {
            return Ok(Way::Shared(shared));
        }
        let mut pool = self.pool();
        pool.number += 1;
        let shared = Shared { number: pool.number, sender, used: Instant::now(), hold };
        pool.shared = Some(shared.clone());
        self.tend(pool);
        Ok(Way::Shared(shared))
    }

    /// Sees to it that what isn't used is closed.
    fn tend(self: &Arc<Self>, mut pool: MutexGuard<'_, Pool>) {
        if std::mem::replace(&mut pool.tended, true) {
            return;
        }
        drop(pool);
        let client: Weak<Inner> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE).await;
                let Some(client) = client.upgrade() else { return };
                let now = Instant::now();
                let mut pool = client.pool();
                pool.idle.retain(|(since, _)| now.duration_since(*since) < IDLE);
                pool.shared.take_if(|shared| now.duration_since(shared.used) >= IDLE);
                if pool.idle.is_empty() && pool.shared.is_none() {
                    pool.tended = false;
                    return;
                }
            }
        });
    }
}

impl Own {
    /// Waits for what comes over the connection, and drives it meanwhile.
    async fn drive<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = pin!(wanted);
        poll_fn(|cx| {
            // How it ended is told to whoever waits for an answer.
            self.ended = self.ended || Pin::new(&mut self.connection).poll(cx).is_ready();
            wanted.as_mut().poll(cx)
        })
        .await
    }

    /// Whether the endpoint hasn't hung up, as far as is known here.
    async fn is_usable(&mut self) -> bool {
        self.drive(std::future::ready(())).await;
        !self.ended && self.sender.is_ready()
    }
}

impl Response {
    /// The next bytes of the body; `None`: that was all, or it broke off.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if self.body.is_end_stream() {
                return None;
            }
            let next = self.body.frame();
            let frame = match &mut self.own {
                Some(own) => own.drive(next).await,
                None => next.await,
            };
            // Trailers say nothing that is needed.
            if let Ok(data) = frame?.ok()?.into_data() {
                return Some(data);
            }
        }
    }

    /// Lets go of it; a connection on which nothing is left to read is kept.
    pub async fn finish(self) {
        let Some(mut own) = self.own.filter(|_| self.body.is_end_stream()) else { return };
        drop(self.body);
        if own.is_usable().await {
            let mut pool = self.client.pool();
            pool.idle.push((Instant::now(), own));
            self.client.tend(pool);
        }
    }
}

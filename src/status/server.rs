//! What listens where `[status] listen` says: `/metrics`, `/healthz`, `/readyz` and the status page. Everything is worked
//! out when it is asked for: idling costs nothing.
//!
//! What a client may take is bounded: connections, the time for a request's head and its size, the time for all of a
//! connection; and one picture of the state is made at a time.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::access::{Listen, Token, names_this_machine};
use super::counters::Counters;
use super::exposition::{Facts, exposition};
use super::live::{self, Live};
use super::metrics::Dialect;
use super::{logs, page};
use crate::deliver::{Delivery, Settle};
use crate::journal;
use crate::ledger::{Ledger, LedgerError};
use crate::offsets::SiteId;
use crate::outbox::Rooms;

/// A follower that hasn't come round for so long hangs; it comes round every 10 seconds at least.
const HANGS_AFTER: i64 = 60;
/// A site whose endpoint has refused for so long isn't ready.
const TROUBLED_AFTER: Duration = Duration::from_secs(60);
/// Connections at a time.
const CONNECTIONS: usize = 32;
/// For the head of a request, and between two.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;
/// For all of a connection.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Names of the sites by their numbers; a reload changes them.
pub type Names = Arc<Mutex<Vec<(SiteId, String)>>>;

/// What it shows, and to whom.
#[derive(Debug)]
pub struct Shown<S> {
    /// Where the ledger lies.
    pub state_dir: PathBuf,
    /// The ledger.
    pub ledger: Ledger,
    /// Who delivers.
    pub delivery: Arc<Delivery<S>>,
    /// How much waits.
    pub rooms: Arc<Rooms>,
    /// The sites.
    pub names: Names,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What those who ask must know; a reload may change it.
    pub token: Arc<Mutex<Option<Token>>>,
    /// One picture at a time.
    pub turns: Semaphore,
}

/// An address that is taken.
#[derive(Debug)]
pub enum Listening {
    /// A TCP port.
    Tcp(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener, PathBuf),
}

impl Listening {
    /// Takes the address.
    ///
    /// # Errors
    /// Those of the system: it is taken, or not this machine's.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Listen::Unix(path) => Ok(Self::Unix(bind_unix(path).await?, path.clone())),
        }
    }

    /// Where it is, as a client names it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(format!("http://{}/", listener.local_addr()?)),
            Self::Unix(_, path) => Ok(format!("unix:{}", path.display())),
        }
    }
}

/// A socket that a killed process has left is taken over; one that somebody listens on isn't.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let is_left =
                UnixStream::connect(path).await.is_err_and(|gone| gone.kind() == io::ErrorKind::ConnectionRefused);
            if !is_socket || !is_left {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    // Its group may look: whoever that is, is the administrator's choice.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until the runtime ends.
pub async fn serve<S: Settle>(listening: Listening, shown: Arc<Shown<S>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Whoever comes when all places are taken waits in the system's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let shown = Arc::clone(&shown);
        let accepted = match &listening {
            Listening::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    answer_all(stream, shown, false).await;
                    drop(place);
                })
            }),
            Listening::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    answer_all(stream, shown, true).await;
                    drop(place);
                })
            }),
        };
        if let Err(error) = accepted {
            // Out of descriptors, for example: it may pass.
            tracing::warn!(%error, "the status page can't take a connection");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Answers the requests of one connection.
async fn answer_all<S: Settle>(stream: impl AsyncRead + AsyncWrite + Unpin, shown: Arc<Shown<S>>, is_unix: bool) {
    let service = service_fn(move |request| {
        let shown = Arc::clone(&shown);
        async move { Ok::<_, Infallible>(answer(request, shown, is_unix).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that hangs up or dawdles has itself to blame.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

type Answer = Response<Full<Bytes>>;

async fn answer<S: Settle>(request: Request<Incoming>, shown: Arc<Shown<S>>, is_unix: bool) -> Answer {
    let token = shown.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match &token {
        Some(token) if !token.is_in(request.headers()) => {
            let mut refused = plain(StatusCode::UNAUTHORIZED, "the token is needed: as bearer token, or as password\n");
            let challenge = HeaderValue::from_static("Basic realm=\"silktail\", charset=\"UTF-8\"");
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return refused;
        }
        None if !is_unix && !names_this_machine(request.uri(), request.headers()) => {
            let text = "ask for it as localhost or 127.0.0.1; a proxy in front must send that Host, or [status] have a token\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, text);
        }
        _ => {}
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/healthz" => shown.healthy(),
        "/readyz" => shown.ready(),
        "/metrics" => {
            let accept = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let dialect = Dialect::asked_for(&accept.collect::<Vec<_>>().join(","));
            shown.in_turn(move |shown| (dialect.content_type(), shown.exposition(dialect))).await
        }
        "/" => shown.in_turn(|shown| ("text/html; charset=utf-8", shown.page())).await,
        _ => plain(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz and /readyz\n"),
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Answer {
    with_headers(status, "text/plain; charset=utf-8", text.into())
}

fn with_headers(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

impl<S: Settle> Shown<S> {
    /// Makes a picture of the state, one at a time, where it holds up nobody.
    async fn in_turn(self: Arc<Self>, make: impl FnOnce(&Self) -> (&'static str, String) + Send + 'static) -> Answer {
        let Ok(_turn) = self.turns.acquire().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        };
        let shown = Arc::clone(&self);
        match tokio::task::spawn_blocking(move || make(&shown)).await {
            Ok((kind, text)) => with_headers(StatusCode::OK, kind, text),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "it can't be shown; report this\n"),
        }
    }

    fn names(&self) -> Vec<(SiteId, String)> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn live(&self) -> Live {
        live::now(&self.names(), &self.delivery, &self.rooms, self.counters.last_reload(), self.ledger.trouble())
    }

    /// Why it isn't ready.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if !self.counters.following.load(Ordering::Relaxed) {
            troubles.push("not following yet".to_owned());
        }
        troubles.extend(self.ledger.trouble().map(str::to_owned));
        match self.counters.unreadable.load(Ordering::Relaxed) {
            0 => {}
            1 => troubles.push("a log can't be read".to_owned()),
            unreadable => troubles.push(format!("{unreadable} logs can't be read")),
        }
        let names = self.names();
        for site in self.delivery.snapshot() {
            let Some((_, name)) = names.iter().find(|(id, _)| *id == site.id) else { continue };
            if site.troubled_for.is_some_and(|time| time >= TROUBLED_AFTER) {
                let error = site.last_error.unwrap_or_default();
                troubles.push(format!("site {name}: nothing delivered for a while ({}): {error}", site.state));
            }
        }
        troubles
    }

    fn healthy(&self) -> Answer {
        let idle = Timestamp::now().as_second() - self.counters.turned.load(Ordering::Relaxed);
        if self.counters.following.load(Ordering::Relaxed) && idle > HANGS_AFTER {
            let text = format!("the follower hasn't come round for {idle} s\n");
            return plain(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        plain(StatusCode::OK, "ok\n")
    }

    fn ready(&self) -> Answer {
        let troubles = self.troubles();
        if troubles.is_empty() {
            return plain(StatusCode::OK, "ready\n");
        }
        plain(StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n")
    }

    fn standing(&self) -> Vec<logs::Standing> {
        // The follower isn't held up while the system is asked.
        let logs = self.counters.logs().clone();
        logs.standing(Instant::now(), logs::size_of)
    }

    fn exposition(&self, dialect: Dialect) -> String {
        let totals = || Ledger::open_read_only(&self.state_dir)?.map(|reader| reader.totals()).transpose();
        let facts = Facts {
            names: &self.names(),
            counters: &self.counters,
            stats: &self.delivery.stats(),
            sites: &self.live().sites,
            // What is wrong with a state that can't be read now is in the journal; the rest can be told.
            totals: &totals().ok().flatten().unwrap_or_default(),
            logs: &self.standing(),
            commits: self.ledger.commits(),
            writable: !self.ledger.is_stuck(),
        };
        exposition(&facts, dialect)
    }

    fn page(&self) -> String {
        let stored = || -> Result<_, LedgerError> {
            Ok(match Ledger::open_read_only(&self.state_dir)? {
                Some(reader) => (reader.counts()?, reader.totals()?),
                None => Default::default(),
            })
        };
        let mut troubles = self.troubles();
        let (counts, totals) = stored().unwrap_or_else(|error| {
            troubles.push(error.to_string());
            Default::default()
        });
        page::page(&page::View {
            now: Timestamp::now(),
            started: self.counters.started,
            state_dir: &self.state_dir,
            troubles: &troubles,
            sites: &self.live().sites,
            counts: &counts,
            totals: &totals,
            logs: &self.standing(),
            history: &self.counters.history(),
            reload: self.counters.last_reload().as_ref(),
            recent: &journal::recent(),
        })
    }
}

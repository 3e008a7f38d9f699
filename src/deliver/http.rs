//! One POST: the client and its answer.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use jiff::Timestamp;
use tokio::time::{Instant, Sleep};

use super::backoff;
use super::client::Client;
use super::payload::PropertyKey;

/// Bytes of an answer that are read at most.
const ANSWER_MAX: usize = 4 * 1024;
/// Characters of an answer that are kept.
const EXCERPT: usize = 300;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A status, with the beginning of the body.
    Status {
        /// The HTTP status.
        status: u16,
        /// When to come back.
        retry_after: Option<Duration>,
        /// The beginning of the body, control characters replaced.
        excerpt: String,
        /// A web page: a captive portal?
        html: bool,
    },
    /// No answer: why.
    Nothing(String),
}

/// Sends a body, and reads no more of the answer than is needed. An answer may quote what it was sent: `key` is hidden in
/// the excerpt, which is shown and kept.
pub async fn post(client: &Client, idempotency_key: &str, key: &PropertyKey, body: Vec<u8>) -> Answer {
    let Ok(idempotency_key) = HeaderValue::try_from(idempotency_key) else {
        return Answer::Nothing("its Idempotency-Key can't be sent".to_owned());
    };
    let timeout = client.timeout();
    let mut deadline = pin!(tokio::time::sleep(timeout));
    let mut response = match within(deadline.as_mut(), timeout, client.post(&idempotency_key, body.into())).await {
        Some(Ok(response)) => response,
        Some(Err(error)) => return Answer::Nothing(reason(&*error)),
        None => return Answer::Nothing(NOT_IN_TIME.to_owned()),
    };
    let status = response.status.as_u16();
    let header = |name| response.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let retry_after = header(RETRY_AFTER).and_then(|text| backoff::retry_after(text, Timestamp::now()));
    let html = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_MAX {
        // Where it breaks off: the status was had, and it is what counts.
        let Some(Some(chunk)) = within(deadline.as_mut(), timeout, response.chunk()).await else { break };
        bytes.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - bytes.len())]);
    }
    response.finish().await;
    // Before it is cut: half a key is still half a key.
    let text = key.hide_in(String::from_utf8_lossy(&bytes).into_owned());
    let excerpt = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(EXCERPT).collect();
    Answer::Status { status, retry_after, excerpt, html }
}

/// An answer's excerpt as it may be logged and shown: it may quote what it was sent, and addresses and query strings are
/// nobody's business there.
pub fn discreet(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let run = rest.find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':'))).unwrap_or(rest.len());
        let (word, after) = rest.split_at(run);
        let bare = word.trim_matches(['.', ':']);
        if bare.parse::<IpAddr>().is_ok() || word.parse::<IpAddr>().is_ok() || bare.parse::<SocketAddr>().is_ok() {
            out.push_str("(address)");
            rest = after;
        } else if !word.is_empty() {
            out.push_str(word);
            rest = after;
        } else if c == '?' {
            let end =
                rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(rest.len());
            out.push_str(if end > 1 { "?…" } else { "?" });
            rest = &rest[end..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

const NOT_IN_TIME: &str = "no answer in time";

/// How often it is looked for an answer once more when the time is up. Over HTTP/2 it passes through two tasks on its way
/// from the socket to whoever waits for it.
const LAST_LOOKS: usize = 4;

/// Who hears so late that the time is up was stopped meanwhile, or had no processor.
const LATE: Duration = Duration::from_millis(250);

/// What becomes of it before the deadline, by this process's own time: where that was stopped, or its machine was, the answer
/// may lie in the socket, or the request not even be sent. What is known to have passed so is added, up to `most`.
///
/// A wait for sockets that was interrupted, as it is by SIGCONT, tells the runtime of none of them; then it looks at the
/// clock. A task that yields is polled again only after the next look at the sockets, and what is woken by that stands
/// before it in the queue. Tokio has it so, and promises it to nobody: it is looked again more often than need be.
async fn within<T>(mut deadline: Pin<&mut Sleep>, most: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = most;
    loop {
        let done = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => deadline.as_mut().poll(cx).map(|()| None),
        });
        if let Some(done) = done.await {
            return Some(done);
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(deadline.deadline()).min(left);
        if late >= LATE {
            left -= late;
            deadline.as_mut().reset(now + late);
            continue;
        }
        for _ in 0..LAST_LOOKS {
            tokio::task::yield_now().await;
            let look = poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending => Poll::Ready(None),
            });
            if let Some(done) = look.await {
                return Some(done);
            }
        }
        return None;
    }
}

/// Why there was no answer: what the innermost layer says.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut layer = error;
    loop {
        if layer.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return NOT_IN_TIME.to_owned();
        }
        match layer.source() {
            Some(inner) => layer = inner,
            None => return layer.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::EndpointSettings;
    use super::*;

    /// TLS for `localhost` that offers HTTP/2, and its certificate as PEM.
    fn tls() -> (tokio_rustls::TlsAcceptor, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        (Arc::new(config).into(), made.cert.pem())
    }

    /// Answers each request of a connection with 202.
    async fn serve(stream: TcpStream, tls: tokio_rustls::TlsAcceptor, posts: Arc<AtomicUsize>) {
        let mut connection = h2::server::handshake(tls.accept(stream).await.unwrap()).await.unwrap();
        while let Some(Ok((request, mut answer))) = connection.accept().await {
            posts.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut body = request.into_body();
                while body.data().await.is_some() {}
                let accepted = http::Response::builder().status(202).body(()).unwrap();
                answer.send_response(accepted, true).unwrap();
            });
        }
    }

    /// A client of an endpoint, perhaps by a proxy, that believes the authority of this PEM kept in that folder.
    fn client(url: &str, proxy: Option<&str>, authority: Option<(&std::path::Path, &str)>) -> Client {
        let ca_file = authority.map(|(folder, pem)| {
            let path = folder.join("ca.pem");
            std::fs::write(&path, pem).unwrap();
            path
        });
        let settings = EndpointSettings {
            url: url::Url::parse(url).unwrap(),
            linger: Duration::ZERO,
            max_events: 1,
            max_in_flight: 16,
            timeout: Duration::from_secs(30),
            retry_max: Duration::from_secs(1),
            max_rate: 0,
            max_age: Duration::ZERO,
            proxy: proxy.map(|proxy| url::Url::parse(proxy).unwrap()),
            ca_file,
        };
        Client::new(&settings).unwrap()
    }

    async fn status(client: &Client) -> Option<u16> {
        let key = PropertyKey::new("8bce2be8c07a84a70e7104634b42878b".to_owned());
        match post(client, "a key", &key, b"{}".to_vec()).await {
            Answer::Status { status, .. } => Some(status),
            Answer::Nothing(_) => None,
        }
    }

    /// Reads a request's head, and a body of two bytes where there is one.
    async fn request(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        loop {
            bytes.push(stream.read_u8().await.unwrap());
            let text = String::from_utf8_lossy(&bytes);
            if text.ends_with(if text.starts_with("POST") { "\r\n\r\n{}" } else { "\r\n\r\n" }) {
                return text.into_owned();
            }
        }
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_one_that_the_endpoint_has_closed_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port()), None, None);
        for _ in 0..3 {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..2 {
                    request(&mut stream).await;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await.unwrap();
                }
            };
            let send = async { (status(&client).await, status(&client).await) };
            assert_eq!(tokio::join!(serve, send).1, (Some(200), Some(200)), "over one connection");
            // The news that it is closed is read.
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_proxy_is_told_the_whole_url_and_who_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://us%65r:secret@127.0.0.1:{}", listener.local_addr().unwrap().port());
        let client = client("http://a:b@docs.example.org/v1/events?x=1", Some(&proxy), None);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            asked
        };
        let (asked, answered) = tokio::join!(serve, status(&client));
        assert_eq!(answered, Some(202));
        assert!(asked.starts_with("POST http://docs.example.org/v1/events?x=1 HTTP/1.1\r\n"), "{asked}");
        for header in [
            "host: docs.example.org",
            "authorization: Basic YTpi",
            "proxy-authorization: Basic dXNlcjpzZWNyZXQ=",
            "content-type: application/json",
            "content-length: 2",
            "idempotency-key: a key",
            concat!("user-agent: silktail/", env!("CARGO_PKG_VERSION")),
        ] {
            assert!(asked.lines().any(|line| line == header), "{header} in {asked}");
        }
    }

    #[tokio::test]
    async fn a_proxy_sees_nothing_of_what_is_sent_by_https() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://user:secret@127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (tls, pem) = tls();
        let folder = tempfile::tempdir().unwrap();
        let client = client("https://a:b@localhost/v1/events", Some(&proxy), Some((folder.path(), &pem)));
        let posts = Arc::new(AtomicUsize::new(0));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
            tokio::spawn(serve(stream, tls, Arc::clone(&posts)));
            asked
        };
        let (asked, answered) = tokio::join!(serve, status(&client));
        assert_eq!((answered, posts.load(Ordering::Relaxed)), (Some(202), 1));
        assert!(asked.starts_with("CONNECT localhost:443 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{asked}");
        assert!(!asked.contains("YTpi"), "{asked}");
    }

    #[tokio::test]
    async fn where_http_2_is_offered_posts_share_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, pem) = tls();
        let (connections, posts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, served) = (Arc::clone(&connections), Arc::clone(&posts));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, tls.clone(), Arc::clone(&served)));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let client = client(&format!("https://localhost:{port}/v1/events"), None, Some((folder.path(), &pem)));
        let key = PropertyKey::new("8bce2be8c07a84a70e7104634b42878b".to_owned());
        let post = || post(&client, "a key", &key, b"{}".to_vec());
        let accepted = |answer: Answer| matches!(answer, Answer::Status { status: 202, .. });
        // What the endpoint offers is known after the first.
        assert!(accepted(post().await));
        let mut together = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (client, key) = (client.clone(), key.clone());
            together.spawn(async move { super::post(&client, "a key", &key, b"{}".to_vec()).await });
        }
        assert!(together.join_all().await.into_iter().all(accepted));
        assert_eq!((posts.load(Ordering::Relaxed), connections.load(Ordering::Relaxed)), (17, 1));
    }

    #[tokio::test]
    async fn a_shared_connection_that_has_gone_silent_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, pem) = tls();
        let posts = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&posts);
        let folder = tempfile::tempdir().unwrap();
        let client = client(&format!("https://localhost:{port}/v1/events"), None, Some((folder.path(), &pem)));
        // The first connection's stream is taken, its pings are answered, and that is all.
        let silence = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut silent = h2::server::handshake(tls.accept(stream).await.unwrap()).await.unwrap();
            let stream = silent.accept().await.unwrap().unwrap();
            (silent, stream)
        };
        let held = tokio::select! { answer = status(&client) => panic!("{answer:?}"), held = silence => held };
        // That POST was given up; the next one finds another connection.
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, tls.clone(), served).await;
        };
        tokio::select! { answer = status(&client) => assert_eq!(answer, Some(202)), () = serving => {} }
        drop(held);
        assert_eq!(posts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_shared_connection_whose_endpoint_does_not_read_ends_with_the_last_post_on_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, pem) = tls();
        let folder = tempfile::tempdir().unwrap();
        let client = client(&format!("https://localhost:{port}/v1/events"), None, Some((folder.path(), &pem)));
        // Its settings, and then pings, whose answers it doesn't take: in the end, neither side can write any more.
        const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let full = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tls.accept(stream).await.unwrap();
            stream.write_all(SETTINGS).await.unwrap();
            let pings = PING.repeat(1_000);
            let mut at = 0;
            while let Ok(written) = tokio::time::timeout(Duration::from_millis(300), stream.write(&pings[at..])).await {
                at = (at + written.unwrap()) % PING.len();
            }
            stream
        };
        let mut stream = tokio::select! { answer = status(&client) => panic!("{answer:?}"), full = full => full };
        // That POST was given up: whatever is left to write, the connection is closed.
        let closed = async { while stream.write_all(PING).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the connection ends");
    }

    #[tokio::test]
    async fn an_answer_that_is_there_when_the_time_is_up_is_had() {
        let (mut theirs, mut ours) = tokio::io::duplex(64);
        let mut deadline = pin!(tokio::time::sleep(Duration::ZERO));
        deadline.as_mut().await;
        // As over HTTP/2: one task hears of it, and another is told.
        let sender = tokio::spawn(async move {
            tokio::task::yield_now().await;
            tokio::spawn(async move { theirs.write_u8(7).await.unwrap() }).await.unwrap();
        });
        let most = Duration::ZERO;
        assert_eq!(within(deadline.as_mut(), most, ours.read_u8()).await.map(Result::unwrap), Some(7));
        sender.await.unwrap();
        assert!(within(deadline, most, std::future::pending::<()>()).await.is_none());
    }

    #[tokio::test]
    async fn who_hears_late_that_the_time_is_up_has_as_much_time_more_and_no_more_than_is_allowed() {
        let work = || async {
            tokio::time::sleep(LATE / 2).await;
            7
        };
        let a_while_ago = |ago: Duration| Instant::now().checked_sub(ago).unwrap();
        for (name, ago, most, want) in
            [("late", LATE * 2, LATE * 4, Some(7)), ("late, and nothing is allowed", LATE * 2, Duration::ZERO, None)]
        {
            let deadline = pin!(tokio::time::sleep_until(a_while_ago(ago)));
            assert_eq!(within(deadline, most, work()).await, want, "{name}");
        }
        let deadline = pin!(tokio::time::sleep_until(a_while_ago(LATE * 100)));
        let never = within(deadline, LATE, std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_secs(20), never).await.expect("it is given up").is_none());
    }

    #[test]
    fn what_an_answer_quotes_of_the_visitor_is_not_shown() {
        for (name, text, want) in [
            ("an address", "{\"ip\":\"192.0.2.7\"} is blocked.", "{\"ip\":\"(address)\"} is blocked."),
            ("at a sentence's end", "bad 192.0.2.7.", "bad (address)"),
            ("with a port", "from 192.0.2.7:443, no", "from (address), no"),
            ("IPv6", "[2001:db8::7] and ::1", "[(address)] and (address)"),
            (
                "a query string",
                "no https://docs.example.org/a?mail=x@example.org here",
                "no https://docs.example.org/a?… here",
            ),
            ("a question", "who are you? 12:30 abc 1.2.3 é", "who are you? 12:30 abc 1.2.3 é"),
            ("nothing", "", ""),
        ] {
            assert_eq!(discreet(text), want, "{name}");
        }
    }
}

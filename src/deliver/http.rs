//! One POST: the client and its answer.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;

use super::payload::PropertyKey;
use super::{DeliverError, EndpointSettings, backoff};

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

/// Builds a client for an endpoint: kept-alive connections, HTTP/2 where offered, no redirects, no proxy but its own.
///
/// # Errors
/// A `ca_file` that can't be read, or TLS that can't be set up.
pub fn client(settings: &EndpointSettings) -> Result<reqwest::Client, DeliverError> {
    // Another client of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout)
        .tcp_nodelay(true)
        .user_agent(concat!("silktail/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(DeliverError::Client)?);
    }
    if let Some(path) = &settings.ca_file {
        let pem = std::fs::read(path).map_err(|error| DeliverError::CaFile(path.clone(), error))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(DeliverError::Client)?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(DeliverError::Client)
}

/// Sends a body, and reads no more of the answer than is needed. An answer may quote what it was sent: `key` is hidden in
/// the excerpt, which is shown and kept.
pub async fn post(
    client: &reqwest::Client,
    url: url::Url,
    idempotency_key: &str,
    key: &PropertyKey,
    body: Vec<u8>,
) -> Answer {
    let request = client
        .post(url)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header("Idempotency-Key", idempotency_key)
        .body(body);
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Answer::Nothing(reason(&error)),
    };
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let retry_after = header(RETRY_AFTER).and_then(|text| backoff::retry_after(text, Timestamp::now()));
    let html = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - bytes.len())]),
            Ok(None) => break,
            // The status was had, and it is what counts.
            Err(_) => break,
        }
    }
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

/// Why there was no answer, without the URL.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause = error.source();
    let mut text = "no answer".to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

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
    async fn serve(stream: tokio::net::TcpStream, tls: tokio_rustls::TlsAcceptor, posts: Arc<AtomicUsize>) {
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
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, pem).unwrap();
        let settings = EndpointSettings {
            url: url::Url::parse(&format!("https://localhost:{port}/v1/events")).unwrap(),
            linger: Duration::ZERO,
            max_events: 1,
            max_in_flight: 16,
            timeout: Duration::from_secs(30),
            retry_max: Duration::from_secs(1),
            max_rate: 0,
            max_age: Duration::ZERO,
            proxy: None,
            ca_file: Some(ca_file),
        };
        let client = client(&settings).unwrap();
        let key = PropertyKey::new("8bce2be8c07a84a70e7104634b42878b".to_owned());
        let post = || post(&client, settings.url.clone(), "a key", &key, b"{}".to_vec());
        let accepted = |answer: Answer| matches!(answer, Answer::Status { status: 202, .. });
        // What the endpoint offers is known after the first.
        assert!(accepted(post().await));
        let mut together = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (client, url, key) = (client.clone(), settings.url.clone(), key.clone());
            together.spawn(async move { super::post(&client, url, "a key", &key, b"{}".to_vec()).await });
        }
        assert!(together.join_all().await.into_iter().all(accepted));
        assert_eq!((posts.load(Ordering::Relaxed), connections.load(Ordering::Relaxed)), (17, 1));
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

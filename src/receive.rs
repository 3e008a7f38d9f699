//! A local endpoint that checks every POST against the API's document: for `silktail receive` and `silktail demo`.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Bytes of a body that are taken: many times what a POST may hold.
const BODY_MAX: usize = 2 * 1024 * 1024;
/// Problems of one POST that are named; of the others it is said how many there are.
const NAMED: usize = 20;
/// Characters of a key that isn't the API's that are shown.
const NAME_SHOWN: usize = 60;

/// One POST as it came, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The body.
    pub body: Vec<u8>,
    /// What the API's document doesn't allow.
    pub problems: Vec<String>,
}

/// A running endpoint.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Receiver {
    /// Listens; port 0 takes a free one. What comes in goes to the channel.
    ///
    /// # Errors
    /// Those of listening.
    pub async fn bind(address: SocketAddr) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Received>)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (posts, received) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(accept(listener, posts, stopped));
        Ok((Self { address, stop }, received))
    }

    /// What a configuration names as its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/v1/events", self.address)
    }

    /// Takes no more connections.
    pub fn stop(&mut self) {
        // Nobody may be left to hear it.
        let _ = self.stop.send(true);
    }
}

/// Takes connections until it is stopped, or nobody is left to stop it.
async fn accept(listener: TcpListener, posts: mpsc::UnboundedSender<Received>, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(answer_all(stream, posts.clone(), stopped.clone()))),
            Err(error) => {
                // Out of descriptors, for example: it may pass.
                tracing::error!(%error, "the local endpoint can't take a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Answers the requests of one connection; at a stop, no more than the one that is under way.
async fn answer_all(stream: TcpStream, posts: mpsc::UnboundedSender<Received>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let posts = posts.clone();
        async move { Ok::<_, Infallible>(answer(request, &posts).await) }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client that hangs up has itself to blame.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, posts: &mpsc::UnboundedSender<Received>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    // What breaks off or has no end is nothing that could be shown.
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await.map(|body| body.to_bytes()) else {
        return answered(StatusCode::PAYLOAD_TOO_LARGE, String::new());
    };
    let mut problems = Vec::new();
    if head.method != Method::POST {
        problems.push(format!("the method is {}, not POST", head.method));
    }
    let kind = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        problems.push("the Content-Type is not application/json".to_owned());
    }
    problems.extend(check(&body));
    let answer = if problems.is_empty() {
        answered(StatusCode::OK, "{}".to_owned())
    } else {
        answered(StatusCode::BAD_REQUEST, serde_json::json!({ "problems": problems }).to_string())
    };
    // The reader may be gone while the last answers go out.
    let _ = posts.send(Received { body: body.to_vec(), problems });
    answer
}

fn answered(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer
}

/// What the API's document doesn't allow in a body.
pub fn check(body: &[u8]) -> Vec<String> {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return vec![format!("the body is not JSON: {error}")],
    };
    let Some(object) = value.as_object() else { return vec!["the body is not a JSON object".to_owned()] };
    let mut problems = Vec::new();
    let mut more = 0_usize;
    let mut must = |ok: bool, text: fmt::Arguments<'_>| match ok {
        true => {}
        false if problems.len() < NAMED => problems.push(text.to_string()),
        false => more += 1,
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let is_url = |text: &str| url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    must(
        text("propertyKey").is_some_and(|key| key.len() == 32 && key.bytes().all(|b| b.is_ascii_alphanumeric())),
        format_args!("propertyKey must be a string of 32 letters and digits"),
    );
    must(text("url").is_some_and(is_url), format_args!("url must be a full http or https URL"));
    must(text("ip").is_some_and(|ip| ip.parse::<IpAddr>().is_ok()), format_args!("ip must be an IP address"));
    must(text("userAgent").is_some(), format_args!("userAgent must be a string"));
    must(
        object.get("viewWidth").is_none_or(|width| width.as_u64().is_some_and(|width| width > 0)),
        format_args!("viewWidth must be a positive number"),
    );
    let events = object.get("events").and_then(Value::as_array);
    must(events.is_some_and(|events| !events.is_empty()), format_args!("events must be a list that isn't empty"));
    for (index, event) in events.into_iter().flatten().enumerate() {
        let named = event.get("event").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
        must(named, format_args!("events[{index}] must be an object with a name in `event`"));
        let url = event.get("url").is_none_or(|url| url.as_str().is_some_and(is_url));
        must(url, format_args!("events[{index}].url must be a full http or https URL"));
    }
    for name in object.keys() {
        let known = ["propertyKey", "url", "ip", "viewWidth", "userAgent", "events"];
        let cut = name.char_indices().nth(NAME_SHOWN).map(|(at, _)| at);
        let shown = &name[..cut.unwrap_or(name.len())];
        let more = if cut.is_some() { "…" } else { "" };
        must(known.contains(&name.as_str()), format_args!("`{shown}{more}` is not a key of the API"));
    }
    if more > 0 {
        problems.push(format!("and {more} more of the kind"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"propertyKey":"8bce2be8c07a84a70e7104634b42878b","url":"https://silktide.com/","ip":"84.14.132.114","viewWidth":979,"userAgent":"Mozilla/5.0","events":[{"event":"download","url":"https://example.com/downloaded-file.pdf"}]}"#;

    #[test]
    fn each_mistake_is_named() {
        assert_eq!(check(GOOD.as_bytes()), Vec::<String>::new());
        for (from, to, want) in [
            ("8bce2be8", "", "propertyKey must be a string of 32 letters and digits"),
            ("https://silktide.com/", "/", "url must be a full http or https URL"),
            ("84.14.132.114", "host", "ip must be an IP address"),
            ("979", "0", "viewWidth must be a positive number"),
            ("\"userAgent\"", "\"useragent\"", "userAgent must be a string"),
            ("{\"event\":", "{\"name\":", "events[0] must be an object with a name in `event`"),
            ("https://example.com/", "/", "events[0].url must be a full http or https URL"),
        ] {
            let problems = check(GOOD.replacen(from, to, 1).as_bytes());
            assert_eq!(problems.first().map(String::as_str), Some(want));
        }
        assert_eq!(check(b"[]"), ["the body is not a JSON object"]);
    }

    #[test]
    fn of_many_mistakes_the_first_are_named_and_the_others_counted() {
        let events = "0,".repeat(500);
        let long = "x".repeat(5_000);
        let body = GOOD.replacen("[{", &format!("[{events}{{"), 1).replacen("\"ip\"", &format!("\"{long}\""), 1);
        let problems = check(body.as_bytes());
        assert_eq!(problems.len(), NAMED + 1);
        assert_eq!(problems[0], "ip must be an IP address");
        assert_eq!(problems[NAMED], "and 482 more of the kind");
        let few = check(GOOD.replacen("\"ip\"", &format!("\"{long}\""), 1).as_bytes());
        assert_eq!(few[1], format!("`{}…` is not a key of the API", "x".repeat(NAME_SHOWN)));
    }
}

//! The way to an endpoint: its name, TCP, a proxy, TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;
use url::{Position, Url};

use super::{DeliverError, EndpointSettings};
use crate::small_file;

/// Any of the layers' errors.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// A peer that has vanished is noticed: after this long without a word it is asked for one…
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// …this often…
const KEEP_ALIVE_RETRIES: u32 = 3;
/// …and what it doesn't acknowledge for so long was sent in vain.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How an endpoint is reached.
#[derive(Debug)]
pub(super) struct Route {
    tcp: HttpConnector,
    /// Where TCP leads: to the endpoint, or to its proxy.
    first: Uri,
    proxy: Option<Proxy>,
    /// All that is asked for.
    pub(super) endpoint: Uri,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Proxy {
    tls: Option<Tls>,
    authorization: Option<HeaderValue>,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

impl Route {
    /// Reads what is needed: certificate authorities for HTTPS alone.
    pub(super) fn new(settings: &EndpointSettings) -> Result<Self, DeliverError> {
        let urls = [Some(&settings.url), settings.proxy.as_ref()];
        let config = match urls.into_iter().flatten().any(|url| url.scheme() == "https") {
            true => Some(tls_config(settings)?),
            false => None,
        };
        let tls = |url: &Url, protocols: &[&[u8]]| {
            let Some(config) = config.as_ref().filter(|_| url.scheme() == "https") else { return Ok(None) };
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(|_| DeliverError::Url(url.host_str().map(str::to_owned)))?;
            Ok(Some(Tls { connector: TlsConnector::from(Arc::new(config)), name }))
        };
        let proxy = match &settings.proxy {
            None => None,
            Some(url) => Some(Proxy { tls: tls(url, &[])?, authorization: basic(url) }),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among an endpoint's addresses.
        tcp.set_connect_timeout(Some(settings.timeout));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(KEEP_ALIVE_RETRIES));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        Ok(Self {
            tcp,
            first: uri(settings.proxy.as_ref().unwrap_or(&settings.url))?,
            proxy,
            endpoint: uri(&settings.url)?,
            tls: tls(&settings.url, &[b"h2", b"http/1.1"])?,
        })
    }

    /// What a proxy that sees the requests wants to see in each.
    pub(super) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        self.proxy.as_ref().filter(|_| self.tls.is_none())?.authorization.as_ref()
    }

    /// Whether a request names its endpoint in full, since a proxy reads it.
    pub(super) fn is_by_proxy(&self) -> bool {
        self.proxy.is_some() && self.tls.is_none()
    }

    /// Opens a connection, and says whether it speaks HTTP/2.
    pub(super) async fn connect(&self) -> Result<(Stream, bool), Error> {
        let mut stream = Stream::Plain(self.tcp.clone().call(self.first.clone()).await?.into_inner());
        if let Some(proxy) = &self.proxy {
            if let Some(tls) = &proxy.tls {
                stream = Stream::Tls(Box::new(tls.connect(stream).await?));
            }
            if self.tls.is_some() {
                let mut tunnel = Tunnel::new(self.first.clone(), Opened(Some(stream)));
                if let Some(authorization) = &proxy.authorization {
                    tunnel = tunnel.with_auth(authorization.clone());
                }
                stream = tunnel.call(self.endpoint.clone()).await?.into_inner();
            }
        }
        let Some(tls) = &self.tls else { return Ok((stream, false)) };
        let stream = tls.connect(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Stream::Tls(Box::new(stream)), is_http2))
    }
}

impl Tls {
    async fn connect(&self, stream: Stream) -> io::Result<TlsStream<Stream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// A URL as it is asked for: without credentials and fragment.
fn uri(url: &Url) -> Result<Uri, DeliverError> {
    let text = format!(
        "{}://{}{}",
        url.scheme(),
        &url[Position::BeforeHost..Position::AfterPort],
        &url[Position::BeforePath..Position::AfterQuery]
    );
    text.parse().map_err(|_| DeliverError::Url(url.host_str().map(str::to_owned)))
}

/// The system's certificate authorities and the user's.
fn tls_config(settings: &EndpointSettings) -> Result<ClientConfig, DeliverError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca_file {
        let pem = small_file::read(path).map_err(|error| DeliverError::CaFile(path.clone(), error))?;
        let own = certificates(&pem).map_err(|error| DeliverError::CaFile(path.clone(), io::Error::other(error)))?;
        for certificate in own {
            roots.add(certificate).map_err(DeliverError::Tls)?;
        }
    }
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "some of the system's certificate authorities can't be read");
    }
    // Those that are of no use here are left out.
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(DeliverError::NoAuthorities);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(DeliverError::Tls)?.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates in a PEM file.
///
/// # Errors
/// What is wrong with it.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// The `Authorization` that a URL's user and password make.
pub(super) fn basic(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut secret: Vec<u8> = percent_decode_str(url.username()).collect();
    secret.push(b':');
    secret.extend(percent_decode_str(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(&secret))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A connection that is open already, for whoever wants to open one.
struct Opened(Option<Stream>);

impl Service<Uri> for Opened {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// A connection, under any number of layers.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<Stream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_s_credentials_are_those_that_are_sent() {
        let url = Url::parse("https://us%40er:p%C3%A4ss@example.org/").unwrap();
        assert_eq!(basic(&url).unwrap().to_str().unwrap(), "Basic dXNAZXI6cMOkc3M=");
        assert_eq!(basic(&Url::parse("https://example.org/").unwrap()), None);
    }

    #[test]
    fn what_is_asked_for_has_no_credentials_and_no_fragment() {
        for (url, want) in [
            ("https://a:b@example.org/v1/events?x=1#y", "https://example.org/v1/events?x=1"),
            ("http://[::1]:8080", "http://[::1]:8080/"),
        ] {
            assert_eq!(uri(&Url::parse(url).unwrap()).unwrap().to_string(), want);
        }
    }
}

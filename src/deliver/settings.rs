//! What delivery is told by the configuration.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::PropertyKey;
use crate::offsets::SiteId;

/// How to reach an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where POSTs go.
    pub url: Url,
    /// How long a visitor's event waits for company.
    pub linger: Duration,
    /// Events in one POST.
    pub max_events: usize,
    /// POSTs awaiting an answer.
    pub max_in_flight: usize,
    /// For connecting and for the answer.
    pub timeout: Duration,
    /// Longest pause between tries.
    pub retry_max: Duration,
    /// POSTs a second; 0: no limit.
    pub max_rate: u32,
    /// Older events are rejected when their turn comes; 0: no limit.
    pub max_age: Duration,
    /// An HTTP proxy.
    pub proxy: Option<Url>,
    /// More certificate authorities, as PEM.
    pub ca_file: Option<PathBuf>,
}

/// A site as delivery sees it.
#[derive(Debug, Clone)]
pub struct SiteSettings {
    /// The ledger's number.
    pub id: SiteId,
    /// Its name, for messages.
    pub name: String,
    /// Its property.
    pub property_key: PropertyKey,
    /// Where its events go.
    pub endpoint: EndpointSettings,
}

/// Why delivery can't start.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// A certificate file.
    #[error("cannot read ca_file `{}`: {}", .0.display(), .1)]
    CaFile(PathBuf, std::io::Error),
    /// A certificate that is of no use, or TLS itself.
    #[error("cannot set up HTTPS: {0}")]
    Tls(rustls::Error),
    /// Nobody can be believed.
    #[error(
        "cannot set up HTTPS: no certificate authorities found; install the system's (ca-certificates), or set ca_file"
    )]
    NoAuthorities,
    /// A URL that can't be asked for.
    #[error("cannot use the endpoint's or the proxy's URL, host `{}`", .0.as_deref().unwrap_or_default())]
    Url(Option<String>),
}

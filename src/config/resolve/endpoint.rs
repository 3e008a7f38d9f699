//! Where events go.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::{Part, Resolver, Text};
use crate::config::raw::Table;
use crate::deliver::EndpointSettings;
use crate::deliver::connect::certificates;
use crate::small_file;

impl Resolver<'_> {
    pub(super) fn endpoint(&mut self, table: Option<Table<'_, '_>>, part: &Part) -> (EndpointSettings, bool) {
        let source = part.source;
        let mut settings = EndpointSettings {
            // Replaced below, or by each site's own; a site without either is an error.
            url: no_url(),
            linger: Duration::from_secs(2),
            max_events: 50,
            max_in_flight: 16,
            timeout: Duration::from_secs(10),
            retry_max: Duration::from_secs(300),
            max_rate: 0,
            max_age: Duration::ZERO,
            proxy: None,
            ca_file: None,
        };
        let Some(mut table) = table else { return (settings, false) };
        let allow_http = table.boolean(&mut self.walk(source), "allow_http").unwrap_or(false);
        if let Some(text) = table.string(&mut self.walk(source), "url")
            && let Some(url) = self.endpoint_url(source, text, allow_http)
        {
            settings.url = url;
        }
        for (name, place) in [
            ("linger", &mut settings.linger),
            ("timeout", &mut settings.timeout),
            ("retry_max", &mut settings.retry_max),
            ("max_age", &mut settings.max_age),
        ] {
            let span = table.key_span(name);
            match self.duration(&mut table, source, name) {
                // A POST that may take no time is never answered, and one that is tried again at once is so for ever.
                Some(Duration::ZERO) if matches!(name, "timeout" | "retry_max") => {
                    let help = Some("leave it out for the default".to_owned());
                    let span = span.unwrap_or_default();
                    self.walk(source).error(span, format!("`{name}` can't be nothing"), "a duration is needed", help);
                }
                Some(duration) => *place = duration,
                None => {}
            }
        }
        let mut count = |resolver: &mut Self, name, least| {
            let number = table.number(&mut resolver.walk(source), name, least);
            number.and_then(|(number, _)| usize::try_from(number).ok())
        };
        settings.max_events = count(self, "max_events", 1).unwrap_or(settings.max_events);
        settings.max_in_flight = count(self, "max_in_flight", 1).unwrap_or(settings.max_in_flight);
        settings.max_rate = count(self, "max_rate", 0).and_then(|rate| u32::try_from(rate).ok()).unwrap_or(0);
        if let Some(text) = table.string(&mut self.walk(source), "proxy")
            && let Some((text, span)) = self.expand(source, text)
        {
            match Url::parse(&text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => settings.proxy = Some(url),
                _ => self.walk(source).error(span, "`proxy` is not a URL", "write http://host:port", None),
            }
        }
        if let Some(text) = table.string(&mut self.walk(source), "ca_file")
            && let Some((text, span)) = self.expand(source, text)
        {
            let path = part.path.parent().unwrap_or(Path::new("")).join(text);
            let pem = small_file::read(&path).map_err(|error| format!("`{}`: {error}", path.display()));
            let certificates = pem.and_then(|pem| certificates(&pem).map_err(|error| error.to_string()));
            match certificates {
                Ok(list) if !list.is_empty() => {
                    self.files.push(path.clone());
                    settings.ca_file = Some(path);
                }
                Ok(_) => self.walk(source).error(span, "`ca_file` has no certificate", "not a PEM file", None),
                Err(error) => self.walk(source).error(span, format!("`ca_file` can't be used: {error}"), "here", None),
            }
        }
        table.finish(&mut self.walk(source));
        (settings, allow_http)
    }

    pub(super) fn endpoint_url(&mut self, source: usize, text: Text, allow_http: bool) -> Option<Url> {
        let (text, span) = self.expand(source, text)?;
        let url = match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => url,
            _ => {
                let help = Some("in the browser's console: window.stConfig.endpointUrl".to_owned());
                self.walk(source).error(span, "the endpoint is not an http or https URL", "not a URL", help);
                return None;
            }
        };
        let here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !here {
            let message = "http:// sends addresses over the network unencrypted";
            if allow_http {
                self.walk(source).warning(span, message, "not encrypted", None);
            } else {
                let help = Some("write https://, or say `allow_http = true` in [endpoint]".to_owned());
                self.walk(source).error(span, message, "not encrypted", help);
                return None;
            }
        }
        Some(url)
    }
}

/// Stands for "not given": no site may be sent to it.
pub(super) fn no_url() -> Url {
    // A data URL always parses and is never an endpoint.
    Url::parse("data:,").unwrap_or_else(|_| unreachable!("a constant that parses"))
}

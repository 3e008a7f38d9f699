//! The formats that need no configuration: a name in, a format out.

use jiff::tz::TimeZone;

use super::slot::Slot;
use super::split::{Item, Splitter, Tail};
use super::{Format, Reader, apache, nginx};

/// The names, in the order in which they are worth trying.
pub const BUILTIN: &[&str] =
    &["common", "combined", "vhost_combined", "caddy", "traefik", "traefik_clf", "ltsv", "alb", "s3", "w3c"];

/// What a name stands for, as Apache writes it.
fn log_format(name: &str) -> Option<&'static str> {
    Some(match name {
        "common" => r#"%h %l %u %t "%r" %>s %b"#,
        "combined" => r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#,
        "vhost_combined" => r#"%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
        "traefik_clf" => concat!(
            r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" "#,
            r#"%{requests}n "%{router}n" "%{server}n" %{duration_ms}nms"#
        ),
        _ => return None,
    })
}

/// An Application Load Balancer's lines. What follows has grown over the years and is not read.
const ALB: &str = concat!(
    "$type $time $elb $ip $target_addr $request_processing_time $target_processing_time $response_processing_time ",
    r#"$status $target_status $received_bytes $bytes "$request" "$user_agent""#
);

/// Lines of S3's server access log, as they are and as they were: the host is in those since 2019.
const S3: [&str; 2] = [
    concat!(
        "$bucket_owner $bucket [$time] $ip $requester $request_id $operation $key ",
        r#""$request" $status $error_code $bytes $object_size $total_time $turn_around_time "#,
        r#""$referer" "$user_agent" $version_id $host_id $signature_version $cipher_suite $auth_type $host"#
    ),
    concat!(
        "$bucket_owner $bucket [$time] $ip $requester $request_id $operation $key ",
        r#""$request" $status $error_code $bytes $object_size $total_time $turn_around_time "#,
        r#""$referer" "$user_agent""#
    ),
];

/// What is kept of the variables above beyond the standard fields; the others are passed over.
const KEPT: [&str; 6] = ["elb", "target_status", "bucket", "operation", "key", "version_id"];

/// Where Caddy's access log has the fields.
const CADDY: &[(&str, &str)] = &[
    // The last that is there wins: older versions have the first alone.
    ("ip", "request.remote_addr"),
    ("ip", "request.remote_ip"),
    ("ip", "request.client_ip"),
    ("time", "ts"),
    ("method", "request.method"),
    ("target", "request.uri"),
    ("protocol", "request.proto"),
    ("host", "request.host"),
    ("status", "status"),
    ("bytes", "size"),
    ("referer", "request.headers.Referer[0]"),
    ("user_agent", "request.headers.User-Agent[0]"),
    ("user", "user_id"),
    ("forwarded_for", "request.headers.X-Forwarded-For"),
    ("range", "request.headers.Range[0]"),
    ("dnt", "request.headers.Dnt[0]"),
    ("gpc", "request.headers.Sec-Gpc[0]"),
];

/// Where Traefik's access log has them, with the headers that it is told to keep.
const TRAEFIK: &[(&str, &str)] = &[
    ("ip", "ClientAddr"),
    ("ip", "ClientHost"),
    ("time", "time"),
    ("time", "StartUTC"),
    ("method", "RequestMethod"),
    ("target", "RequestPath"),
    ("protocol", "RequestProtocol"),
    ("host", "RequestHost"),
    ("status", "DownstreamStatus"),
    ("bytes", "DownstreamContentSize"),
    ("referer", "request_Referer"),
    ("user_agent", "request_User-Agent"),
    ("user", "ClientUsername"),
    ("forwarded_for", "request_X-Forwarded-For"),
    ("range", "request_Range"),
    ("dnt", "request_Dnt"),
    ("gpc", "request_Sec-Gpc"),
    ("router", "RouterName"),
    ("service", "ServiceName"),
];

pub(super) fn format(name: &str, zone: &TimeZone) -> Option<Format> {
    let json = |fields: &[(&str, &str)]| {
        let fields: Vec<_> = fields.iter().map(|(field, path)| ((*field).to_owned(), (*path).to_owned())).collect();
        Format::json(name, &fields, None, zone.clone()).ok()
    };
    let split = |text: &str, ways: Vec<Splitter>| Format::new(name, text, zone.clone(), Reader::Split(ways));
    match name {
        "caddy" => json(CADDY),
        "traefik" => json(TRAEFIK),
        "ltsv" => Some(Format::new(name, "host:… time:… req:…", zone.clone(), Reader::Ltsv)),
        "w3c" => Some(Format::new(name, "#Fields: …", TimeZone::UTC, Reader::W3c)),
        "alb" => Some(split(ALB, vec![cloud(ALB, true)?])),
        "s3" => Some(split(S3[0], S3.iter().filter_map(|text| cloud(text, false)).collect())),
        _ => {
            let text = log_format(name)?;
            // As people's servers really write them: as above, with a time that has lost its brackets, or with tabs.
            let bare = text.replace("%t", "%{%d/%b/%Y:%H:%M:%S %z}t");
            let tabs = text.replace(' ', "\t");
            // And with the host alone, without its port. Nobody asks for the ident that `%l` would be: read as one, a line
            // of `combined` by a user with spaces in the name would fit too.
            let portless = text.replace("%v:%p %h %l", "%v %h -");
            let ways = [text, &bare, &tabs].into_iter().chain((portless != text).then_some(portless.as_str()));
            let way = |text| Splitter::new(apache::items(text).ok()?, Tail::Open, true).ok();
            Some(split(text, ways.filter_map(way).collect()))
        }
    }
}

/// A splitter for a format of Amazon's, in which the variables are the fields' names. S3 writes what it is sent as it is.
fn cloud(text: &str, escaped: bool) -> Option<Splitter> {
    let (mut items, _) = nginx::items(text).ok()?;
    for item in &mut items {
        let Item::Var(var) = item else { continue };
        match &var.slot {
            // Only a load balancer logs a port with it.
            Slot::Ip if text == ALB => var.slot = Slot::IpPort,
            Slot::Extra(extra) if !KEPT.contains(&&**extra) => var.slot = Slot::Ignored,
            _ => {}
        }
    }
    Splitter::new(items, Tail::Open, escaped).ok()
}

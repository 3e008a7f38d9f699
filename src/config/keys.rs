//! Every key of the configuration: its type, its default, what it means. A value; no code depends on what it says.
//!
//! The reader of the file (`raw`) knows the keys from here and nowhere else, the reference in `docs/` and the man page
//! are made from it, and tests hold each default and each example against what the reader does with them.

/// What holds where a key isn't given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// This value, as TOML.
    Default(&'static str),
    /// Nothing: it must be given.
    Needed,
    /// This, in words.
    Means(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: &'static str,
    /// What holds without it.
    pub unset: Unset,
    /// A value other than the default, as TOML.
    pub example: &'static str,
    /// What it does, in Markdown of one paragraph.
    pub meaning: &'static str,
}

/// The keys of one table.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// How the table is written: `[endpoint]`.
    pub heading: &'static str,
    /// What its keys are keys of, in messages.
    pub what: &'static str,
    /// Where a key of it belongs, in messages; empty where that can't be said.
    pub place: &'static str,
    /// What the table is for, in Markdown of one paragraph.
    pub meaning: &'static str,
    /// In the order in which they are explained.
    pub keys: &'static [Key],
}

impl Section {
    /// The key of a name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn key(
    name: &'static str,
    kind: &'static str,
    unset: Unset,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, kind, unset, example, meaning }
}

use Unset::{Default, Means, Needed};

const FORMATS_KEY: Key =
    key("formats", "tables", Means("the built-in formats alone"), "", "Formats of your own: `[formats.NAME]`.");

/// The main file's own keys.
pub const ROOT: Section = Section {
    heading: "The file itself",
    what: "the configuration",
    place: "at the top of the file, before the first [table]",
    meaning: "These stand at the top, before the first table.",
    keys: &[
        key(
            "state_dir",
            "path; `${NAME}` allowed",
            Means("`$STATE_DIRECTORY` (systemd sets it), else `/var/lib/silktail`"),
            "\"/srv/silktail\"",
            "Where silktail remembers what is sent. A local disk, not a network file system; one daemon for each. A \
             change needs a restart.",
        ),
        key(
            "include",
            "list of paths or globs",
            Default("[]"),
            "[\"sites.d/*.toml\"]",
            "More files, relative to this one. Each may hold `[[site]]` and `[formats.NAME]`, and nothing else.",
        ),
        key("endpoint", "table", Means("each site names its own"), "", "Where events go: `[endpoint]`."),
        key("follow", "table", Means("its keys' defaults"), "", "How logs are followed: `[follow]`."),
        key("status", "table", Means("nothing listens"), "", "Metrics, health and a status page: `[status]`."),
        FORMATS_KEY,
        key("site", "list of tables", Needed, "", "The sites: `[[site]]`, in file order."),
        key("test", "list of tables", Means("nothing is expected"), "", "What you expect of lines: `[[test]]`."),
    ],
};

/// An included file's own keys.
pub const INCLUDED: Section = Section {
    heading: "An included file",
    what: "an included file ([[site]] and [formats.*] only)",
    place: "",
    meaning: "What `include` names holds sites and formats; all else belongs into the main file.",
    keys: &[FORMATS_KEY, key("site", "list of tables", Means("it holds formats alone"), "", "More sites: `[[site]]`.")],
};

/// `[endpoint]`.
pub const ENDPOINT: Section = Section {
    heading: "[endpoint]",
    what: "[endpoint]",
    place: "to [endpoint]",
    meaning: "Where events go, and with which manners. Sites that name an `endpoint` of their own take all else from here.",
    keys: &[
        key(
            "url",
            "URL; `${NAME}` allowed",
            Means("each site must name its `endpoint`"),
            "\"https://a.us.silktide.com/v1/events\"",
            "In the browser's console, on a page with the Silktide script: `window.stConfig.endpointUrl`.",
        ),
        key(
            "linger",
            "duration",
            Default("\"2s\""),
            "\"500ms\"",
            "How long a visitor's event waits for company in one POST. At a stop: not at all. A log that is written to all \
             the time is read once in a twentieth of it, and every 50 ms at least.",
        ),
        key("max_events", "whole number, from 1", Default("50"), "10", "Events in one POST at most."),
        key(
            "max_in_flight",
            "whole number, from 1",
            Default("16"),
            "4",
            "POSTs that await an answer at a time, for each endpoint. As many may be sent twice after a SIGKILL. A site leaves a \
             quarter of them to others of its endpoint; those whose answers take a second have half of them together.",
        ),
        key("timeout", "duration", Default("\"10s\""), "\"30s\"", "For connecting, and for a POST as a whole."),
        key(
            "retry_max",
            "duration",
            Default("\"5m\""),
            "\"1m\"",
            "The longest pause between two tries. The first is half a second at most, and each is twice as long as the one \
             before.",
        ),
        key("max_rate", "whole number", Default("0"), "20", "POSTs a second; 0: no limit."),
        key(
            "max_age",
            "duration",
            Default("\"0s\""),
            "\"24h\"",
            "Of `run`: events that are older when their turn comes are rejected as too old; `0s`: no limit. The API has no \
             time field, so what is sent late counts as happening late.",
        ),
        key(
            "proxy",
            "URL; `${NAME}` allowed",
            Means("none; the environment's is ignored"),
            "\"http://proxy.example.org:3128\"",
            "The way to the endpoint, through an HTTP proxy.",
        ),
        key(
            "ca_file",
            "path, relative to this file; `${NAME}` allowed",
            Means("the system's authorities alone"),
            "\"/etc/ssl/certs/own-ca.pem\"",
            "A PEM file with certificates of authorities that are believed besides.",
        ),
        key(
            "allow_http",
            "true or false",
            Default("false"),
            "true",
            "Allows `http://` to another machine, with a warning: addresses then cross the network unencrypted.",
        ),
    ],
};

/// `[follow]`.
pub const FOLLOW: Section = Section {
    heading: "[follow]",
    what: "[follow]",
    place: "to [follow]",
    meaning: "How logs are followed.",
    keys: &[
        key(
            "start",
            "`\"end\"` or `\"beginning\"`",
            Default("\"end\""),
            "\"beginning\"",
            "Where to begin in logs that a `logs` pattern matches when silktail first runs with that pattern; `\"end\"` is \
             after the last newline. Files that appear later are read from their beginning, and a log that `backfill` has \
             read is continued where that ended.",
        ),
        key(
            "max_line",
            "size, from 64 bytes to 1GiB",
            Default("\"64KiB\""),
            "\"1MiB\"",
            "Longer lines are passed over and counted as `too_long`.",
        ),
    ],
};

/// `[status]`.
pub const STATUS: Section = Section {
    heading: "[status]",
    what: "[status]",
    place: "to [status]",
    meaning: "Metrics, health and a status page: `/metrics`, `/healthz`, `/readyz`, `/`.",
    keys: &[
        key(
            "listen",
            "address and port, or `unix:` and a path",
            Means("nothing listens"),
            "\"unix:/run/silktail/status.sock\"",
            "Where they are served: `127.0.0.1:9464`, or a socket in the file system. Any other address than loopback needs a \
             token. A change needs a restart.",
        ),
        key(
            "token",
            "text, visible ASCII",
            Means("none is asked for"),
            "\"0f0e0d0c0b0a09080706050403020100\"",
            "What those who ask must know: `Authorization: Bearer TOKEN`, or the password with any user name.",
        ),
        key(
            "token_file",
            "path",
            Means("none is asked for"),
            "\"status.token\"",
            "A file that holds it and nothing else, looked for where `property_key_file` is.",
        ),
    ],
};

/// `[formats.NAME]`.
pub const FORMAT: Section = Section {
    heading: "[formats.NAME]",
    what: "a format",
    place: "to a [formats.NAME]",
    meaning: "A format of your own, which a site takes by `format = \"NAME\"`. Exactly one of `nginx`, `apache`, `regex` and \
              `json` says how a line is read.",
    keys: &[
        key(
            "nginx",
            "text",
            Means("another of the four is given"),
            "'$remote_addr [$time_local] \"$request\" $status \"$http_user_agent\"'",
            "nginx's `log_format`: the string, or the whole directive as it stands in `nginx.conf`.",
        ),
        key(
            "apache",
            "text",
            Means("another of the four is given"),
            "'%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\"'",
            "Apache's `LogFormat`: the string, or the whole directive.",
        ),
        key(
            "regex",
            "regular expression",
            Means("another of the four is given"),
            "'^(?P<ip>\\S+) \"(?P<request>[^\"]*)\" \"(?P<user_agent>[^\"]*)\"$'",
            "Its named groups are the fields: `ip`, `user_agent`, and `request` or `target` are needed. Other names serve \
             templates.",
        ),
        key(
            "json",
            "table: field → path",
            Means("another of the four is given"),
            "{ ip = \"addr\", request = \"request\", user_agent = \"headers.User-Agent[0]\" }",
            "For logs with one JSON object a line. A path is a literal key, or `a.b` and `a[0]` into nested values.",
        ),
        key(
            "time",
            "strftime pattern",
            Means("the usual ways to write a time"),
            "\"%d.%m.%Y %H:%M:%S %z\"",
            "How the field `time` is written; of `regex` and `json` only.",
        ),
        key(
            "timezone",
            "name of a time zone",
            Means("the machine's"),
            "\"Europe/Berlin\"",
            "For times that are written without an offset.",
        ),
    ],
};

/// `[[site]]`.
pub const SITE: Section = Section {
    heading: "[[site]]",
    what: "a site",
    place: "to a [[site]], before its [[site.rule]]",
    meaning: "A site of Silktide Analytics (a property), and the logs that tell of its visitors.",
    keys: &[
        key("name", "text", Needed, "\"shop\"", "Identifies the site in the state: keep it when other things change."),
        key(
            "base_url",
            "URL",
            Needed,
            "\"https://shop.example.org\"",
            "Scheme and host of what is sent; the log's paths stand behind them. Where the log tells the host, and it is one of \
             the site's, that takes the place of this one's; scheme and port are always those of `base_url`. A path of its own counts for `page = \"base\"` \
             and `{base_url}` alone. It must belong to the property, or Silktide discards the events.",
        ),
        key(
            "property_key",
            "text; `${NAME}` allowed",
            Means("`property_key_file` is needed"),
            "\"0f0e0d0c0b0a09080706050403020100\"",
            "In the browser's console: `window.stConfig.propertyKey`; 32 letters and digits.",
        ),
        key(
            "property_key_file",
            "path",
            Means("`property_key` is needed"),
            "\"docs.key\"",
            "A file that holds the key and nothing else. Looked for in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential`), \
             then beside the file that names it.",
        ),
        key(
            "endpoint",
            "URL; `${NAME}` allowed",
            Means("`url` of `[endpoint]`"),
            "\"https://a.us.silktide.com/v1/events\"",
            "Where this site's property lives elsewhere than `[endpoint]` says.",
        ),
        key(
            "logs",
            "list of paths or globs",
            Needed,
            "[\"/var/log/nginx/*.access.log\"]",
            "The live logs, by whole paths (others begin where silktail is started); rotated siblings are found by themselves. \
             Sites may share a log if each names `hosts` and the format has the host.",
        ),
        key(
            "format",
            "name of a format",
            Default("\"auto\""),
            "\"combined\"",
            "`auto` decides by the log's first lines, and again while those are few. Or `common`, `combined`, `vhost_combined`, `caddy`, `traefik`, \
             `traefik_clf`, `ltsv`, `alb`, `s3`, `w3c`, or one of `[formats]`.",
        ),
        key(
            "hosts",
            "list of host names",
            Means("every line of a log that only this site reads"),
            "[\"docs.example.org\", \"*.docs.example.org\"]",
            "Whose lines are this site's, by the logged host. `*.` stands for any subdomain. The first site in file order \
             wins. Without it, same-site means the host of `base_url`, with and without `www.`.",
        ),
        key(
            "view_width",
            "whole number, from 1",
            Means("left out"),
            "979",
            "Sent as `viewWidth` where the log has no field `view_width`.",
        ),
        key(
            "page",
            "list of `\"referer\"`, `\"self\"`, `\"base\"`",
            Default("[\"referer\", \"self\"]"),
            "\"base\"",
            "Where the POST's `url` comes from; the first that there is: a referer on this site, the file's own URL, or \
             `base_url`.",
        ),
        key(
            "keep_query",
            "list of names, or true",
            Default("[]"),
            "[\"lang\"]",
            "Query parameters that stay in URLs that are sent. `true` keeps all; think of what may stand in them.",
        ),
        key(
            "counting",
            "`\"default\"`, `\"counter\"` or `\"iab\"`",
            Default("\"default\""),
            "\"counter\"",
            "Which statuses count and how long repeats are repeats, by a published standard. `\"counter\"`: 200, 206, 304 and \
             30 s. `\"iab\"`: 200, 206 and 24 h. What is set besides goes first.",
        ),
        key(
            "repeat_window",
            "duration",
            Default("\"30s\""),
            "\"24h\"",
            "The same visitor and the same thing within it are one event, by the log's own time. `0s` counts each. The \
             default is that of `counting`.",
        ),
        key(
            "bots",
            "`\"skip\"`, `\"send\"`, or list of groups",
            Default("\"skip\""),
            "[\"crawlers\", \"libraries\"]",
            "Which robots don't count: all (`\"skip\"`), none (`\"send\"`), or those of the groups `\"crawlers\"`, \
             `\"libraries\"`, `\"tools\"`.",
        ),
        key(
            "bots_extra",
            "list of regular expressions",
            Default("[]"),
            "[\"^OurMonitor/\"]",
            "User agents that are robots too.",
        ),
        key(
            "bots_allow",
            "list of regular expressions",
            Default("[]"),
            "[\"^curl/\"]",
            "User agents that aren't robots, whatever the lists say.",
        ),
        key(
            "exclude_ips",
            "list of addresses or networks",
            Default("[]"),
            "[\"192.0.2.0/24\", \"2001:db8::/32\"]",
            "Clients that never count: the office, monitoring. Also `\"private\"` and `\"loopback\"`.",
        ),
        key(
            "trusted_proxies",
            "list of addresses or networks",
            Default("[]"),
            "[\"private\", \"203.0.113.0/24\"]",
            "Proxies in front. A request from one of them is that of the right-most address in X-Forwarded-For that is not \
             one. Also `\"private\"` and `\"loopback\"`. The log must have X-Forwarded-For.",
        ),
        key(
            "respect_dnt",
            "true or false",
            Default("true"),
            "false",
            "Requests that the log shows with `DNT: 1` or `Sec-GPC: 1` are excluded.",
        ),
        key(
            "rule",
            "list of tables",
            Means("downloads are counted, by the default `extensions`"),
            "",
            "What is an event: `[[site.rule]]`. The first that fits decides.",
        ),
    ],
};

/// `[[site.rule]]`.
pub const RULE: Section = Section {
    heading: "[[site.rule]]",
    what: "a rule",
    place: "to a [[site.rule]]",
    meaning: "Which requests are events. All conditions of a rule must fit; the first rule that fits decides, and a line \
              that none fits is `unmatched`.",
    keys: &[
        key(
            "event",
            "text",
            Means("`skip` is needed"),
            "\"download\"",
            "The event's name: `download`, or a name of yours.",
        ),
        key(
            "skip",
            "true or false",
            Default("false"),
            "true",
            "Instead of `event`: lines that fit are `excluded`. Such a rule takes any `method` and `status` unless it says so.",
        ),
        key(
            "extensions",
            "list of extensions",
            Means("any path"),
            "[\"pdf\", \"zip\"]",
            "Of the path as it is logged, upper or lower case.",
        ),
        key(
            "path",
            "regular expression",
            Means("any path"),
            "'^/files/(?P<folder>[^/]+)/'",
            "On the percent-decoded path. Its named groups can be used in templates.",
        ),
        key("host", "list of host names", Means("any host of the site"), "[\"*.example.org\"]", "The logged host."),
        key("user_agent", "regular expression", Means("any"), "'Mozilla'", "On the user agent."),
        key(
            "method",
            "list of methods, or `\"any\"`",
            Default("[\"GET\"]"),
            "\"any\"",
            "The request's method; of a skip rule any.",
        ),
        key(
            "status",
            "list of statuses, or `\"any\"`",
            Default("[200, 206]"),
            "[404]",
            "The answer's status. The default is that of `counting`; of a skip rule any.",
        ),
        key(
            "referer",
            "`\"any\"`, `\"same-site\"`, `\"external\"` or `\"none\"`",
            Default("\"any\""),
            "\"external\"",
            "Where the request came from. `\"external\"`: another host, or nowhere; that is what the Silktide script can't \
             see. `\"none\"`: nowhere.",
        ),
        key("url", "template", Means("the requested URL"), "\"{base_url}{path}\"", "The event's `url`."),
        key(
            "properties",
            "table: name → template",
            Means("none"),
            "{ plan = \"{query.plan}\" }",
            "Further keys of the event. One whose value isn't there is left out.",
        ),
        key("repeat_window", "duration", Means("that of the site"), "\"0s\"", "This rule's own."),
    ],
};

/// `[[test]]`.
pub const TEST: Section = Section {
    heading: "[[test]]",
    what: "a test",
    place: "to a [[test]]",
    meaning: "What you expect of a line, so that rules don't rot. `silktail test` and `silktail check` run them.",
    keys: &[
        key(
            "line",
            "text",
            Needed,
            "'192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"Mozilla/5.0\"'",
            "As it stands in the log. Of several, the last is meant, after the others.",
        ),
        key(
            "site",
            "name of a site",
            Means("the site by its `hosts`, or the only one"),
            "\"docs\"",
            "Whose rules are meant.",
        ),
        key(
            "expect",
            "name of a fate, or table",
            Needed,
            "{ event = \"download\" }",
            "`\"unmatched\"`, `\"excluded\"`, `\"bot\"`, `\"repeat\"`, `\"unparsed\"`, `\"too_long\"`, or what the event \
             must be.",
        ),
    ],
};

/// `expect` of a test, as a table.
pub const EXPECT: Section = Section {
    heading: "expect",
    what: "an expectation",
    place: "",
    meaning: "What isn't named may be anything.",
    keys: &[
        key("outcome", "name of a fate", Default("\"event\""), "\"bot\"", "The line's fate."),
        key("reason", "text", Means("any"), "\"crawler\"", "Why it was excluded, a bot or a repeat."),
        key("event", "text", Means("any"), "\"download\"", "The event's name."),
        key("url", "text", Means("any"), "\"https://docs.example.org/a.pdf\"", "The event's `url`."),
        key("page", "text", Means("any"), "\"https://docs.example.org/\"", "The POST's `url`."),
        key("ip", "text", Means("any"), "\"192.0.2.7\"", "The POST's `ip`."),
        key("properties", "table: name → value", Means("any"), "{ plan = \"pro\" }", "Further keys of the event."),
    ],
};

/// A table whose keys the user chooses.
pub const CHOSEN: Section = Section { heading: "", what: "", place: "", meaning: "", keys: &[] };

/// What the reference explains, in its order.
pub const SECTIONS: [&Section; 10] =
    [&ROOT, &INCLUDED, &ENDPOINT, &FOLLOW, &STATUS, &FORMAT, &SITE, &RULE, &TEST, &EXPECT];

/// The tables that have a key of a name.
pub fn sections_of(name: &str) -> impl Iterator<Item = &'static Section> {
    SECTIONS.into_iter().filter(move |section| !section.place.is_empty() && section.key(name).is_some())
}

/// The names of all keys.
pub fn names() -> impl Iterator<Item = &'static str> {
    SECTIONS.into_iter().flat_map(|section| section.keys).map(|key| key.name)
}

/// What holds for many keys: title and text, in Markdown of one paragraph each.
pub const TOPICS: [(&str, &str); 6] = [
    (
        "Values",
        "A duration is a number and a unit: `500ms`, `2s`, `5m`, `24h`, `30d`. A size is a number of bytes, or a text like \
         `64KiB`, `1MiB`. Where a list is taken, a single text stands for a list of one. Regular expressions are those of the \
         Rust crate `regex`: no backreferences and no look-around, and no pattern that takes for ever; in single quotes TOML \
         leaves backslashes alone.",
    ),
    (
        "Keys and secrets",
        "`${NAME}` is read from the environment in `property_key`, `url`, `endpoint`, `proxy`, `ca_file` and `state_dir`, and \
         nowhere else. A property key is never printed or logged but in the bodies that `backfill --dry-run` and `receive` \
         show; elsewhere it appears as `8bce…878b`.",
    ),
    (
        "Fields and templates",
        "The fields of a line, whatever the format: `ip`, `time`, `method`, `target` (as logged), `path`, `query`, `protocol`, \
         `status`, `bytes`, `referer`, `user_agent`, `host`, `user`, `forwarded_for`, `range`, `view_width`, `dnt`, `gpc`; \
         `request` stands for `method target protocol`. A template puts them into a text: `{base_url}{path}`, `{query.plan}` \
         (one parameter), named groups of the rule's `path`, other variables of the format. `{path|basename}`, \
         `{path|extension}` and `{host|lower}` change them; `{{` is a brace.",
    ),
    (
        "Errors and warnings",
        "An unknown key, a wrong type, a bad regular expression, an unknown field in a template, two sites of one name: each is \
         an error, with file, line and column and, where there is one, the likely fix. All are shown at once, and nothing is \
         started (exit status 2). What is legal but can't be meant is a warning.",
    ),
    (
        "Reload",
        "On SIGHUP (`systemctl reload silktail`) the new configuration is taken whole, or the old one goes on. `state_dir` and \
         `listen` of `[status]` need a restart. Changed rules, formats and settings hold for lines that are read from then on. The \
         position of a site that was taken away is kept.",
    ),
    (
        "Names of sites",
        "The state knows a site by its `name`. Under another name it is another site: one that is \
         new, and whose old logs `backfill` would send again. A log that is followed already it reads from where that stands, \
         others from `start` on.",
    ),
];

//! The metrics as Prometheus reads them: its text format 0.0.4, or OpenMetrics 1.0. Pure: values in, text out.
//!
//! Names follow Prometheus' conventions: base units, `_total` for what only grows, `_info` for what is always 1.

use std::fmt::Write;

/// A metric's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
    /// Says something by its labels; its name ends in `_info`.
    Info,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Prometheus' text format 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0: a family's name has no suffix, and the text has an end.
    OpenMetrics,
}

impl Dialect {
    /// What an `Accept` header asks for.
    pub fn asked_for(accept: &str) -> Self {
        let (mut open, mut plain) = (0.0_f64, 0.0_f64);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameter = |name: &str| parts.clone().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            let quality = parameter("q").map_or(1.0, |text| text.parse().unwrap_or(0.0));
            let version = parameter("version");
            if kind.eq_ignore_ascii_case("application/openmetrics-text") && version.is_none_or(|it| it == "1.0.0") {
                open = open.max(quality);
            } else if kind.eq_ignore_ascii_case("text/plain") && version.is_none_or(|it| it == "0.0.4") {
                plain = plain.max(quality);
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Labels with their values.
pub type Labels = Vec<(&'static str, String)>;

/// Writes families one after the other.
#[derive(Debug, Default)]
pub struct Exposition {
    dialect: Dialect,
    out: String,
}

impl Exposition {
    /// An empty one.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, out: String::new() }
    }

    /// A family, with its samples: labels and value.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help, [(Vec::new(), value)]);
    }

    /// A histogram: counts for each upper bound (in seconds) and beyond, and the sum of all.
    pub fn histogram(&mut self, name: &str, help: &str, buckets: &[(f64, u64)], beyond: u64, sum: f64) {
        self.head(name, Kind::Histogram, help);
        let mut count = 0;
        for (bound, more) in buckets {
            count += more;
            let bound = match self.dialect {
                Dialect::Prometheus => bound.to_string(),
                // Always with a fraction.
                Dialect::OpenMetrics => format!("{bound:?}"),
            };
            self.sample(&format!("{name}_bucket"), &[("le", bound)], count as f64);
        }
        count += beyond;
        self.sample(&format!("{name}_bucket"), &[("le", "+Inf".to_owned())], count as f64);
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], count as f64);
    }

    /// The whole text.
    pub fn text(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let open = self.dialect == Dialect::OpenMetrics;
        let (family, kind) = match kind {
            Kind::Counter if open => (name.trim_end_matches("_total"), "counter"),
            Kind::Counter => (name, "counter"),
            Kind::Gauge => (name, "gauge"),
            Kind::Histogram => (name, "histogram"),
            Kind::Info if open => (name.trim_end_matches("_info"), "info"),
            Kind::Info => (name, "gauge"),
        };
        // Writing to a string can't fail.
        let _ = writeln!(self.out, "# HELP {family} {help}\n# TYPE {family} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, String)], value: f64) {
        self.out.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.out.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dialect: Dialect) -> String {
        let mut out = Exposition::new(dialect);
        out.family("a_total", Kind::Counter, "Help.", [(vec![("path", "x\"\\\ny".to_owned())], 2.0)]);
        out.histogram("b_seconds", "Help.", &[(0.1, 3), (1.0, 2)], 1, 4.5);
        out.single("c_info", Kind::Info, "Help.", 1.0);
        out.text()
    }

    #[test]
    fn labels_are_escaped_and_buckets_add_up() {
        assert_eq!(
            written(Dialect::Prometheus),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total{path=\"x\\\"\\\\\\ny\"} 2\n\
             # HELP b_seconds Help.\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"0.1\"} 3\n\
             b_seconds_bucket{le=\"1\"} 5\nb_seconds_bucket{le=\"+Inf\"} 6\nb_seconds_sum 4.5\nb_seconds_count 6\n\
             # HELP c_info Help.\n# TYPE c_info gauge\nc_info 1\n"
        );
    }

    #[test]
    fn openmetrics_names_families_without_suffix_and_has_an_end() {
        let text = written(Dialect::OpenMetrics);
        for line in ["# TYPE a counter", "b_seconds_bucket{le=\"1.0\"} 5", "# TYPE c info", "c_info 1"] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert!(text.contains("\na_total{path=") && text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn the_dialect_is_what_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (name, accept, want) in [
            ("nothing", "", Dialect::Prometheus),
            ("a browser", "text/html,application/xhtml+xml,*/*;q=0.8", Dialect::Prometheus),
            ("Prometheus", prometheus, Dialect::OpenMetrics),
            ("OpenMetrics alone", "application/openmetrics-text", Dialect::OpenMetrics),
            ("text first", "application/openmetrics-text; q=0.3, text/plain; q=0.9", Dialect::Prometheus),
            ("none of it", "application/openmetrics-text;q=0", Dialect::Prometheus),
            ("another version", "application/openmetrics-text;version=2.0.0", Dialect::Prometheus),
        ] {
            assert_eq!(Dialect::asked_for(accept), want, "{name}");
        }
    }
}

//! The metrics as Prometheus reads them (text format 0.0.4). Pure: values in, text out.
//!
//! Names follow Prometheus' conventions: base units, `_total` for what only grows.

use std::fmt::Write;

/// A metric's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
}

/// Writes families one after the other.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// A family, with its samples: labels and value.
    pub fn family<'l>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'l str, String)>, f64)>,
    ) {
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
            self.sample(&format!("{name}_bucket"), &[("le", bound.to_string())], count as f64);
        }
        count += beyond;
        self.sample(&format!("{name}_bucket"), &[("le", "+Inf".to_owned())], count as f64);
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], count as f64);
    }

    /// The whole text.
    pub fn text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, String)], value: f64) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_buckets_add_up() {
        let mut out = Exposition::default();
        out.family("a_total", Kind::Counter, "Help.", [(vec![("path", "x\"\\\ny".to_owned())], 2.0)]);
        out.histogram("b_seconds", "Help.", &[(0.1, 3), (1.0, 2)], 1, 4.5);
        assert_eq!(
            out.text(),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total{path=\"x\\\"\\\\\\ny\"} 2\n\
             # HELP b_seconds Help.\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"0.1\"} 3\n\
             b_seconds_bucket{le=\"1\"} 5\nb_seconds_bucket{le=\"+Inf\"} 6\nb_seconds_sum 4.5\nb_seconds_count 6\n"
        );
    }
}

//! What is to be followed: as the configuration says it.

use std::sync::Arc;
use std::time::Duration;

use crate::format::Format;
use crate::pipeline::Site;

/// How a site's lines are read.
#[derive(Debug, Clone)]
pub enum FormatChoice {
    /// The most specific of these that fits the log.
    Auto(Vec<Format>),
    /// This one.
    Fixed(Format),
}

/// A site's wish to follow what matches a pattern.
#[derive(Debug, Clone)]
pub struct Target {
    /// A path or a glob.
    pub pattern: String,
    /// Who reads it.
    pub site: Arc<Site>,
    /// How.
    pub format: FormatChoice,
}

/// Where to begin in logs that match a pattern when it is first run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// After the last newline.
    #[default]
    End,
    /// At the first byte.
    Beginning,
}

/// What is to be followed, and how.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Who reads what.
    pub targets: Vec<Target>,
    /// Where to begin in logs of new patterns.
    pub start: Start,
    /// Longest line, in bytes.
    pub max_line: usize,
    /// How long it may take from a line to its event where lines come one after the other: see [`Wishes::rest_for`].
    pub rest: Duration,
}

impl Wishes {
    /// How long the follower rests after it has read all there was, where events linger for so long anyway: a busy log's
    /// lines are read by the hundred then, for less effort. The first line after a quiet while isn't kept
    /// waiting.
    pub fn rest_for(linger: Duration) -> Duration {
        /// Nobody sees it in events that linger for seconds.
        const MAX: Duration = Duration::from_millis(50);
        (linger / 20).min(MAX)
    }
}

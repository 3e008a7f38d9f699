//! A moment by two clocks: the wall clock, by which files tell when they were written to and which anybody may set, and
//! the one that counts from the machine's start, which nobody can.
//!
//! What was written after a moment is told by its file's time; where the wall clock was set back since then, that moment
//! is earlier by the clock as it goes now.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// What two readings of the clocks may differ by although nobody has set them.
const TOLERANCE: Duration = Duration::from_millis(2);

/// A moment, as the clocks showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: SystemTime,
    /// Time since the machine was started, sleep and all.
    up: Duration,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let mut now = Self { wall: SystemTime::now(), up: up() };
        // Who was interrupted between the two looks again.
        for _ in 0..16 {
            let before = up();
            let wall = SystemTime::now();
            now = Self { wall, up: before };
            if up().saturating_sub(before) < TOLERANCE {
                break;
            }
        }
        now
    }

    /// By how much the wall clock was set back between this moment and a later one.
    pub fn set_back_until(&self, later: &Moment) -> Duration {
        let expected = self.wall + later.up.saturating_sub(self.up);
        expected.duration_since(later.wall).ok().filter(|back| *back > TOLERANCE).unwrap_or_default()
    }

    /// Whether the wall clock was set forward between this moment and a later one.
    pub fn is_set_forward_until(&self, later: &Moment) -> bool {
        let expected = self.wall + later.up.saturating_sub(self.up);
        later.wall.duration_since(expected).is_ok_and(|forward| forward > TOLERANCE)
    }

    /// The same moment by a wall clock that was set back by so much.
    pub fn earlier_by(self, back: Duration) -> Self {
        Self { wall: self.wall - back, ..self }
    }

    /// As the state keeps it: another start of the machine counts anew.
    pub fn stored(&self) -> Option<String> {
        let wall = self.wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(format!("{} {} {}", this_start()?, self.up.as_micros(), wall.as_micros()))
    }

    /// A stored one, if it is of this start of the machine.
    pub fn of_this_start(stored: &str) -> Option<Self> {
        let mut words = stored.split(' ');
        let is_this = words.next()? == this_start()?;
        let mut time = || Some(Duration::from_micros(words.next()?.parse().ok()?));
        let (up, wall) = (time()?, time()?);
        is_this.then(|| Self { wall: SystemTime::UNIX_EPOCH + wall, up })
    }
}

fn up() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec as i64))
}

/// What the system calls this start of the machine; `None` where it doesn't say.
fn this_start() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_told_from_one_that_went_on_or_was_set_forward() {
        let at = |wall: u64, up: u64| Moment {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(wall),
            up: Duration::from_secs(up),
        };
        let began = at(10_000, 500);
        for (name, later, want) in [
            ("went on", at(10_060, 560), 0),
            ("set forward", at(13_660, 560), 0),
            ("set back", at(6_460, 560), 3_600),
            ("set back, and it has overtaken itself", at(10_010, 4_110), 3_600),
        ] {
            assert_eq!(began.set_back_until(&later), Duration::from_secs(want), "{name}");
            assert_eq!(began.is_set_forward_until(&later), name == "set forward", "{name}");
        }
        let now = Moment::now();
        assert_eq!(now.set_back_until(&Moment::now()), Duration::ZERO);
    }

    #[test]
    fn a_moment_is_kept_for_as_long_as_the_machine_runs() {
        let now = Moment::now();
        let stored = now.stored().unwrap();
        let again = Moment::of_this_start(&stored).unwrap();
        assert!(now.wall.duration_since(again.wall).unwrap() < Duration::from_micros(1));
        let (_, rest) = stored.split_once(' ').unwrap();
        for other in [format!("another-start {rest}"), String::new(), "x".to_owned()] {
            assert_eq!(Moment::of_this_start(&other), None, "{other:?}");
        }
    }
}

//! How many POSTs an endpoint is given at a time: a value between 1 and `max_in_flight` that learns from its answers. Pure:
//! the clock is an input.
//!
//! It begins at the most, so that an endpoint that keeps up is never made to wait for it. An answer that says "too much"
//! (429, 503) halves it, and so does one that takes far longer than this endpoint's usually do; each round without
//! either adds one (additive increase, multiplicative decrease: Chiu and Jain, 1989).

use std::time::Duration;

use tokio::time::Instant;

/// What an answer says of how much the endpoint can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It took the POST, or refused it for what it says.
    Fine,
    /// It has too much to do: 429, 503.
    TooMuch,
    /// Nothing: it wasn't reached, or is broken.
    Unknown,
}

impl Load {
    /// What a status says; `None`: there was no answer.
    pub fn of(status: Option<u16>) -> Self {
        match status {
            Some(429 | 503) => Load::TooMuch,
            None | Some(500..=599) => Load::Unknown,
            Some(_) => Load::Fine,
        }
    }
}

/// An answer that comes within this time is never slow, whatever the others took.
const NEVER_SLOW: Duration = Duration::from_millis(250);
/// More than this many times what is usual is slow.
const SLOW: u32 = 4;
/// How much of what is usual a single answer makes: one part in so many.
const MEMORY: u32 = 64;

/// See the module.
#[derive(Debug, Clone)]
pub struct Limit {
    max: usize,
    allowed: f64,
    /// What an answer usually takes.
    usual: Option<Duration>,
    /// When it was lowered last: what was sent before says nothing new.
    lowered: Option<Instant>,
}

impl Limit {
    /// For an endpoint that may be given so many at most.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { max, allowed: max as f64, usual: None, lowered: None }
    }

    /// POSTs that may be under way.
    pub fn allowed(&self) -> usize {
        // Never below 1, and never above the maximum.
        self.allowed as usize
    }

    /// A POST that was sent at `sent` was answered, or given up, at `now`.
    pub fn answered(&mut self, load: Load, sent: Instant, now: Instant) {
        let took = now.saturating_duration_since(sent);
        let slow = took > NEVER_SLOW && self.usual.is_some_and(|usual| took > usual * SLOW);
        if load == Load::TooMuch || slow {
            if self.lowered.is_none_or(|lowered| sent >= lowered) {
                self.allowed = (self.allowed / 2.0).max(1.0);
                self.lowered = Some(now);
            }
        } else if load == Load::Fine {
            self.allowed = (self.allowed + 1.0 / self.allowed).min(self.max as f64);
        }
        if load == Load::Fine {
            // An endpoint that has become slower for good is, after a while, one that is usually so.
            let usual = self.usual.unwrap_or(took);
            self.usual = Some(usual - usual / MEMORY + took / MEMORY);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(limit: &mut Limit, now: &mut Instant, load: Load, millis: u64) {
        let sent = *now;
        *now += Duration::from_millis(millis);
        limit.answered(load, sent, *now);
    }

    #[test]
    fn what_a_status_says_of_the_load() {
        for (status, want) in [
            (Some(202), Load::Fine),
            (Some(422), Load::Fine),
            (Some(429), Load::TooMuch),
            (Some(503), Load::TooMuch),
            (Some(500), Load::Unknown),
            (None, Load::Unknown),
        ] {
            assert_eq!(Load::of(status), want, "{status:?}");
        }
    }

    #[test]
    fn one_wave_of_refusals_halves_it_once() {
        let (mut limit, sent) = (Limit::new(16), Instant::now());
        for _ in 0..16 {
            limit.answered(Load::TooMuch, sent, sent + Duration::from_millis(5));
        }
        assert_eq!(limit.allowed(), 8);
        let mut now = sent + Duration::from_millis(6);
        for want in [4, 2, 1, 1] {
            answer(&mut limit, &mut now, Load::TooMuch, 5);
            assert_eq!(limit.allowed(), want);
        }
    }

    #[test]
    fn each_round_that_went_well_gives_one_back() {
        let (mut limit, mut now) = (Limit::new(16), Instant::now());
        for _ in 0..4 {
            answer(&mut limit, &mut now, Load::TooMuch, 5);
        }
        for _ in 1..16 {
            let before = limit.allowed();
            for _ in 0..=before {
                answer(&mut limit, &mut now, Load::Fine, 5);
            }
            let given = limit.allowed() - before;
            assert!((1..=2).contains(&given) || limit.allowed() == 16, "{given} more than {before}");
        }
        assert_eq!(limit.allowed(), 16);
    }

    #[test]
    fn an_endpoint_that_slows_down_is_given_less_until_that_is_usual() {
        let (mut limit, mut now) = (Limit::new(16), Instant::now());
        for _ in 0..100 {
            answer(&mut limit, &mut now, Load::Fine, 100);
        }
        assert_eq!(limit.allowed(), 16);
        answer(&mut limit, &mut now, Load::Fine, 2_000);
        assert_eq!(limit.allowed(), 8);
        for _ in 0..500 {
            answer(&mut limit, &mut now, Load::Fine, 2_000);
        }
        assert_eq!(limit.allowed(), 16);
    }

    proptest! {
        /// Whatever comes, something may always be sent, and never more than was set.
        #[test]
        fn it_stays_between_one_and_the_maximum(
            max in 0_usize..64,
            answers in proptest::collection::vec((0_usize..3, 0_u64..20_000), 0..200),
        ) {
            let (mut limit, mut now) = (Limit::new(max), Instant::now());
            for (load, millis) in answers {
                answer(&mut limit, &mut now, [Load::Fine, Load::TooMuch, Load::Unknown][load], millis);
                prop_assert!((1..=max.max(1)).contains(&limit.allowed()));
            }
        }

        /// An endpoint that keeps up isn't slowed down, however its answers jitter.
        #[test]
        fn one_that_keeps_up_has_the_maximum(answers in proptest::collection::vec(0_u64..=250, 0..200)) {
            let (mut limit, mut now) = (Limit::new(16), Instant::now());
            for millis in answers {
                answer(&mut limit, &mut now, Load::Fine, millis);
                prop_assert_eq!(limit.allowed(), 16);
            }
        }
    }
}

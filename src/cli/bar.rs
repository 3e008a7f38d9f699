//! The picture of a long run on a terminal: a bar with how far it is and how long it takes, and a line below it. It is
//! drawn over itself.

use std::io::Write;
use std::time::Duration;

/// Characters between the bar's brackets.
const WIDTH: usize = 30;

/// What stands on the terminal.
#[derive(Debug, Default)]
pub struct Bar {
    drawn: bool,
}

impl Bar {
    /// Draws it: `said` for good, above it, and `below` it what else is to be seen of `bytes` of `total`.
    pub fn draw(&mut self, said: impl Iterator<Item = String>, bytes: u64, total: u64, took: Duration, below: &str) {
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        // What doesn't say how wide it is, is no narrower than the first ones were.
        let columns = size.map_or(0, |size| usize::from(size.ws_col));
        let columns = if columns == 0 { 80 } else { columns };
        let mut text = self.over();
        for line in said {
            text.push_str(&line);
            text.push('\n');
        }
        // A line that the terminal breaks would be two the next time.
        let fits = |line: &str| line.chars().take(columns - 1).collect::<String>();
        text.push_str(&fits(&bar(bytes, total, took)));
        text.push('\n');
        text.push_str(&fits(below));
        self.drawn = true;
        put(&text);
    }

    /// Takes it away.
    pub fn clear(&mut self) {
        put(&self.over());
        self.drawn = false;
    }

    /// To the beginning of what was drawn, and all of it gone.
    fn over(&self) -> String {
        if self.drawn { "\r\x1b[A\x1b[J".to_owned() } else { String::new() }
    }
}

fn put(text: &str) {
    // A picture that can't be shown is no reason to stop.
    let mut terminal = std::io::stderr().lock();
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

fn bar(bytes: u64, total: u64, took: Duration) -> String {
    let share = if total == 0 { 1.0 } else { bytes as f64 / total as f64 };
    let done = ((share * WIDTH as f64) as usize).min(WIDTH);
    let a_second = bytes as f64 / took.as_secs_f64().max(0.001);
    let left = match bytes {
        0 => "?".to_owned(),
        _ => time(Duration::from_secs_f64(total.saturating_sub(bytes) as f64 / a_second)),
    };
    let (filled, empty) = ("#".repeat(done), "-".repeat(WIDTH - done));
    format!("[{filled}{empty}] {}/{}, {}/s, {left} left", size(bytes), size(total), size(a_second as u64))
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = bytes as f64 / 1024.0;
    let mut unit = 0;
    while shown >= 1024.0 && unit + 1 < units.len() {
        shown /= 1024.0;
        unit += 1;
    }
    if bytes < 1024 { format!("{bytes} B") } else { format!("{shown:.2} {}", units[unit]) }
}

fn time(left: Duration) -> String {
    let seconds = left.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_far_it_is_and_how_long_it_takes() {
        let mib = 1 << 20;
        for (name, bytes, total, seconds, want) in [
            ("begun", 0, mib, 1, "[------------------------------] 0 B/1.00 MiB, 0 B/s, ? left"),
            ("half", 512 << 10, mib, 2, "[###############---------------] 512.00 KiB/1.00 MiB, 256.00 KiB/s, 2 s left"),
            (
                "long",
                mib,
                8_000 * mib,
                1,
                "[------------------------------] 1.00 MiB/7.81 GiB, 1.00 MiB/s, 2 h 13 min left",
            ),
            (
                "grown meanwhile",
                3 * mib,
                2 * mib,
                1,
                "[##############################] 3.00 MiB/2.00 MiB, 3.00 MiB/s, 0 s left",
            ),
            ("nothing to do", 0, 0, 0, "[##############################] 0 B/0 B, 0 B/s, ? left"),
        ] {
            assert_eq!(bar(bytes, total, Duration::from_secs(seconds)), want, "{name}");
        }
        assert_eq!(time(Duration::from_secs(3_599)), "59 min 59 s");
    }
}

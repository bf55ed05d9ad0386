//! Durations as people and configurations write them: `30m`, or several units in a row, `1h30m`.

use std::time::Duration;

/// Longer is a slip of the pen, and would overflow timestamps somewhere.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// Largest first.
const UNITS: [(&str, u64); 4] = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];

/// `30m`, `10s`, `1h`, `1d`, or several in a row: `1h30m`.
///
/// # Errors
/// What is wrong, as the end of a sentence about it: `is not a duration`.
pub fn parse(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "is not a duration";
    let mut rest = text;
    let mut total = Duration::ZERO;
    if text.is_empty() {
        return Err(WRONG.to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(WRONG)?;
        let number: u64 = number.parse().map_err(|_| WRONG.to_owned())?;
        let part = number.checked_mul(seconds).filter(|s| *s <= LONGEST.as_secs()).ok_or("is longer than ten years")?;
        total += Duration::from_secs(part);
        rest = after;
    }
    if total > LONGEST { Err("is longer than ten years".to_owned()) } else { Ok(total) }
}

/// The same the other way, in whole seconds.
pub fn show(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, seconds) in UNITS {
        if rest >= seconds {
            text.push_str(&format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

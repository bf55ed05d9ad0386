//! When an entitlement may be used: days, and a time of day in a time zone.
//!
//! A window belongs to the day that it begins on; one that ends at or before its beginning ends on the next day. What the clocks do
//! in a night of summer time is the time zone's matter: a time that does not exist is the moment after the gap.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};
use std::fmt;

/// Monday first, as people count.
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// `hours` of an entitlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    days: Vec<Weekday>,
    from: Time,
    /// `None`: midnight at the end of the day.
    to: Option<Time>,
    zone: TimeZone,
    said: String,
}

/// What is wrong with one of them: the key, and the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{1}")]
pub struct NoHours(pub &'static str, pub &'static str);

impl Hours {
    /// `mon-fri` or `mon,wed,sat-sun`; `08:00` and `18:00`, up to `24:00`; the name of a time zone, like `Europe/Berlin` or `UTC`.
    ///
    /// # Errors
    /// [`NoHours`]: which of the four is wrong, and how.
    pub fn new(days: &str, from: &str, to: &str, zone: &str) -> Result<Self, NoHours> {
        let said = format!("{days} {from} to {to} {zone}");
        let time = |key, text: &str| time(text).ok_or(NoHours(key, "is no time of day like 08:00"));
        let to = if to == "24:00" { None } else { Some(time("to", to)?) };
        let zone = TimeZone::get(zone).map_err(|_| NoHours("tz", "is no time zone that this host knows"))?;
        Ok(Self { days: weekdays(days)?, from: time("from", from)?, to, zone, said })
    }

    /// The end of the window that this moment lies in; `None`: it lies in none.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        let windows = [today.checked_sub(1.day()).ok(), Some(today)].into_iter().flatten();
        windows
            .filter_map(|day| self.window(day))
            .find(|(begin, end)| (*begin..*end).contains(&now))
            .map(|(_, end)| end)
    }

    /// When it next begins.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        let days = (0..8).filter_map(|ahead| today.checked_add(i64::from(ahead).days()).ok());
        days.filter_map(|day| self.window(day)).map(|(begin, _)| begin).find(|begin| *begin > now)
    }

    fn window(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.contains(&day.weekday()) {
            return None;
        }
        let last = match self.to {
            Some(to) if to > self.from => day,
            _ => day.checked_add(1.day()).ok()?,
        };
        let at = |day: Date, time: Time| Some(self.zone.to_zoned(day.to_datetime(time)).ok()?.timestamp());
        Some((at(day, self.from)?, at(last, self.to.unwrap_or(Time::midnight()))?))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

/// `08:00`, exactly.
fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<i8>().ok()).flatten()
    };
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

fn weekdays(text: &str) -> Result<Vec<Weekday>, NoHours> {
    let wrong = NoHours("days", "is no list of days like mon-fri or mon,wed,sat-sun");
    let place = |name: &str| DAYS.iter().position(|(known, _)| *known == name).ok_or_else(|| wrong.clone());
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (place(first)?, place(last)?);
        // `sat-mon` goes over the end of the week.
        let count = (last + DAYS.len() - first) % DAYS.len();
        days.extend((0..=count).filter_map(|step| DAYS.get((first + step) % DAYS.len())).map(|(_, day)| *day));
    }
    Ok(days)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_lies_in_a_window_or_before_the_next() {
        let office = Hours::new("mon-fri", "08:00", "18:00", "Europe/Berlin").unwrap();
        // 2026-11-20 is a Friday; Berlin is one hour ahead then.
        for (now, until, next) in [
            ("2026-11-20T06:59:59Z", None, "2026-11-20T07:00:00Z"),
            ("2026-11-20T07:00:00Z", Some("2026-11-20T17:00:00Z"), "2026-11-23T07:00:00Z"),
            ("2026-11-20T16:59:59Z", Some("2026-11-20T17:00:00Z"), "2026-11-23T07:00:00Z"),
            ("2026-11-20T17:00:00Z", None, "2026-11-23T07:00:00Z"),
            ("2026-11-22T12:00:00Z", None, "2026-11-23T07:00:00Z"),
        ] {
            assert_eq!(office.until(at(now)), until.map(at), "{now}");
            assert_eq!(office.next(at(now)), Some(at(next)), "{now}");
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_that_it_begins_on() {
        let night = Hours::new("sat-sun", "22:00", "06:00", "UTC").unwrap();
        assert_eq!(night.until(at("2026-11-21T23:00:00Z")), Some(at("2026-11-22T06:00:00Z")));
        assert_eq!(night.until(at("2026-11-23T05:00:00Z")), Some(at("2026-11-23T06:00:00Z")), "Sunday's, on Monday");
        assert_eq!(night.until(at("2026-11-21T05:00:00Z")), None, "Friday has none");
        let whole = Hours::new("sun", "00:00", "24:00", "UTC").unwrap();
        assert_eq!(whole.until(at("2026-11-22T23:59:59Z")), Some(at("2026-11-23T00:00:00Z")));
        assert_eq!(whole.until(at("2026-11-23T00:00:00Z")), None);
    }

    #[test]
    fn summer_time_moves_the_window_with_the_clocks() {
        let office = Hours::new("mon-sun", "02:30", "08:00", "Europe/Berlin").unwrap();
        // 02:30 does not exist on 2026-03-29: it is 03:30 then, 01:30 UTC.
        assert_eq!(office.until(at("2026-03-29T01:29:59Z")), None);
        assert_eq!(office.until(at("2026-03-29T01:30:00Z")), Some(at("2026-03-29T06:00:00Z")));
    }

    #[test]
    fn what_is_no_hours_says_which_part() {
        for (days, from, to, zone, key) in [
            ("mo-fr", "08:00", "18:00", "UTC", "days"),
            ("", "08:00", "18:00", "UTC", "days"),
            ("mon,", "08:00", "18:00", "UTC", "days"),
            ("mon", "8:00", "18:00", "UTC", "from"),
            ("mon", "24:00", "18:00", "UTC", "from"),
            ("mon", "08:00", "25:00", "UTC", "to"),
            ("mon", "08:00", "+1:00", "UTC", "to"),
            ("mon", "08:00", "18:00", "Mars/Olympus", "tz"),
        ] {
            assert_eq!(Hours::new(days, from, to, zone).unwrap_err().0, key, "{days} {from} {to} {zone}");
        }
        assert!(Hours::new("sat-mon,wed", "08:00", "24:00", "America/New_York").is_ok());
    }
}

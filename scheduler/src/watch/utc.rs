//! A time as text, in the calendar's terms.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time as date and time of day, UTC, for people.
pub(super) struct Utc(pub(super) SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = parts(self.0);
        write!(f, "{date} {time} UTC")
    }
}

/// The same for programs, by RFC 3339.
#[cfg(feature = "serde")]
pub(super) struct Rfc3339(pub(super) SystemTime);

#[cfg(feature = "serde")]
impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = parts(self.0);
        write!(f, "{date}T{time}Z")
    }
}

/// Date and time of day.
fn parts(time: SystemTime) -> (String, String) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (second, millis) = (second % 60, since.subsec_millis());
    (
        format!("{year}-{month:02}-{day:02}"),
        format!("{hour:02}:{minute:02}:{second:02}.{millis:03}"),
    )
}

/// Year, month and day of a day since the beginning of 1970. Source: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`, for days from then on.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Utc, civil};

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        let time = UNIX_EPOCH + Duration::from_millis(1_764_543_599_250);
        assert_eq!(Utc(time).to_string(), "2025-11-30 22:59:59.250 UTC");
    }
}

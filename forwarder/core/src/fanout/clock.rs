//! Times as text: `2026-01-27T15:37:03.886Z`.

use std::ops::RangeInclusive;

/// The milliseconds since 1970 that four digits of a year can tell: 0000-01-01 to 9999-12-31.
pub const WRITABLE: RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

const MILLIS_A_DAY: i64 = 86_400_000;

/// Writes times as `%Y-%m-%dT%H:%M:%S.mmmZ`, in UTC.
///
/// The date is worked out once a day; records that follow one another are of the same day as a rule.
#[derive(Clone, Debug)]
pub struct TimeText {
    day: i64,
    text: [u8; 24],
}

impl Default for TimeText {
    fn default() -> Self {
        Self {
            day: 0,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }
}

impl TimeText {
    /// The text of `millis` since 1970-01-01T00:00:00Z. Outside of [`WRITABLE`] it is that of the nearest time inside.
    pub fn format(&mut self, millis: i64) -> &str {
        let millis = millis.clamp(*WRITABLE.start(), *WRITABLE.end());
        let day = millis.div_euclid(MILLIS_A_DAY);
        if day != self.day {
            self.day = day;
            let (year, month, day) = date(day);
            digits(&mut self.text[0..4], year);
            digits(&mut self.text[5..7], month);
            digits(&mut self.text[8..10], day);
        }
        // Less than a day, which fits; 32 bits divide faster.
        let time = millis.rem_euclid(MILLIS_A_DAY) as u32;
        let seconds = time / 1000;
        digits(&mut self.text[11..13], seconds / 3600);
        digits(&mut self.text[14..16], seconds / 60 % 60);
        digits(&mut self.text[17..19], seconds % 60);
        digits(&mut self.text[20..23], time % 1000);
        // Digits only, so it is text.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

fn digits(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last of its year, and in eras of 400 years, which all
/// have the same number of days.
fn date(day: i64) -> (u32, u32, u32) {
    const ERA: i64 = 146_097;
    let from_march_0000 = day + 719_468;
    let era = from_march_0000.div_euclid(ERA);
    let day = from_march_0000.rem_euclid(ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    // The lengths of months from March repeat every five: 31 30 31 30 31.
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    // Inside of WRITABLE all three are small and not negative.
    ((era * 400 + year + carry) as u32, month as u32, of_month as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(millis: i64) -> String {
        TimeText::default().format(millis).to_owned()
    }

    #[test]
    fn known_times() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_769_528_223_886, "2026-01-27T15:37:03.886Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (-2_203_891_200_001, "1900-02-28T23:59:59.999Z"),
            (-2_203_891_200_000, "1900-03-01T00:00:00.000Z"),
            (*WRITABLE.start(), "0000-01-01T00:00:00.000Z"),
            (*WRITABLE.end(), "9999-12-31T23:59:59.999Z"),
            (WRITABLE.start() - 1, "0000-01-01T00:00:00.000Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
            (WRITABLE.end() + 1, "9999-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(text(millis), expected, "{millis}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let is_leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let (mut year, mut month, mut day) = (0, 1, 1);
        for number in WRITABLE.start() / MILLIS_A_DAY..=WRITABLE.end() / MILLIS_A_DAY {
            assert_eq!(date(number), (year, month, day));
            day += 1;
            let length = match month {
                2 => 28 + u32::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }

    proptest! {
        #[test]
        fn what_was_written_before_does_not_matter(times in prop::collection::vec(WRITABLE, 1..20), near in -100_000_000i64..100_000_000) {
            let mut reused = TimeText::default();
            for time in times.into_iter().flat_map(|time| [time, time.saturating_add(near)]) {
                let fresh = text(time);
                prop_assert_eq!(reused.format(time), fresh);
            }
        }
    }
}

//! Quantities in text form: `10mbit`, `20ms`, `64kB`, `2%`.
//!
//! Rates end in `bit`, `kbit`, `mbit` or `gbit`; durations in `ns`, `us`, `ms`, `s`, `min` or `h`;
//! sizes in `B`, `kB`, `MB` or `GB` (powers of ten). Ratios are a number from 0 to 1 or a
//! percentage.

use std::time::Duration;

/// The reason for refusing a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct UnitError {
    text: String,
    wanted: &'static str,
}

fn scaled(text: &str, units: &[(&str, f64)], wanted: &'static str) -> Result<f64, UnitError> {
    let error = || UnitError { text: text.chars().take(40).collect(), wanted };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| c.is_ascii_alphabetic() || c == '%').ok_or_else(error)?;
    let (number, unit) = trimmed.split_at(split);
    let factor = units.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1;
    let number: f64 = number.trim().parse().map_err(|_| error())?;
    let value = number * factor;
    // 2^53: up to here a float represents every whole number.
    if (0.0..=9_007_199_254_740_992.0).contains(&value) { Ok(value) } else { Err(error()) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "scaled() gives 0 to 2^53")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Bits per second from, for example, `10mbit`.
pub fn parse_rate_bps(text: &str) -> Result<u64, UnitError> {
    let units = [("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
    scaled(text, &units, "a rate: a number with bit, kbit, mbit or gbit, such as \"10mbit\"").map(whole)
}

/// A span from, for example, `20ms`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("min", 60e9), ("h", 3_600e9)];
    scaled(text, &units, "a duration: a number with us, ms, s, min or h, such as \"20ms\"")
        .map(|nanos| Duration::from_nanos(whole(nanos)))
}

/// Bytes from, for example, `64kB`.
pub fn parse_size_bytes(text: &str) -> Result<u64, UnitError> {
    let units = [("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)];
    scaled(text, &units, "a size: a number with B, kB, MB or GB, such as \"64kB\"").map(whole)
}

/// A ratio from, for example, `2%` or `0.02`.
pub fn parse_ratio(text: &str) -> Result<f64, UnitError> {
    let wanted = "a ratio: a percentage such as \"2%\" or a number from 0 to 1";
    let ratio = match text.trim().parse::<f64>() {
        Ok(number) => number,
        Err(_) => scaled(text, &[("%", 0.01)], wanted)?,
    };
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(UnitError { text: text.to_owned(), wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_written() {
        assert_eq!(parse_rate_bps("10mbit"), Ok(10_000_000));
        assert_eq!(parse_rate_bps("2.5 kbit"), Ok(2_500));
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_size_bytes("64kB"), Ok(64_000));
        assert_eq!(parse_ratio("2%"), Ok(0.02));
        assert_eq!(parse_ratio("0.5"), Ok(0.5));
    }

    #[test]
    fn nonsense_is_refused_with_what_was_wanted() {
        for text in ["", "10", "mbit", "10 megabit", "-1mbit", "1e400mbit", "nanmbit", "10mbit/s"] {
            assert!(parse_rate_bps(text).is_err(), "{text}");
        }
        for text in ["5", "-1ms", "1 fortnight"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["200%", "-1%", "1.5", "NaN"] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
        let message = parse_rate_bps("10").unwrap_err().to_string();
        assert!(message.contains("'10' is not a rate"), "{message}");
    }
}

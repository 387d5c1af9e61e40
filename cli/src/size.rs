//! Sizes as people write them: `512`, `64K`, `1.5G`, `4GiB`; and as they like to read them.
//!
//! Units are powers of 1024. `KB` and its like mean 1000 to some and 1024 to others, and are refused.

/// Unit letters by powers of 1024, from 1024^1.
const UNITS: &str = "KMGTPE";
/// Digits after the point that make sense: 2^60 / 10^18 is still above one byte.
const MAX_FRACTION_DIGITS: usize = 18;

/// Bytes, from a number with an optional fraction and an optional unit K, M, G, T, P or E (also as KiB ..), above 0.
/// The result must be whole.
///
/// # Errors
/// One line that says what is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = |why: &str| {
        Err(format!(
            "bad size {text:?}: {why}; write it like 512, 64K, 1.5G or 4GiB"
        ))
    };
    match text.chars().next() {
        Some('-') => return bad("sizes are not negative"),
        Some('+') => return bad("sizes have no sign"),
        _ => {}
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let Some(unit) = unit_bytes(unit) else {
        return bad(&format!("{unit:?} is no unit"));
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') || fraction.len() > MAX_FRACTION_DIGITS {
        return bad("it is not a number");
    }
    match scale(whole, fraction, unit) {
        Scaled::Bytes(0) => bad("it is nothing"),
        Scaled::Bytes(bytes) => Ok(bytes),
        Scaled::Partial => bad("it is not a whole number of bytes"),
        Scaled::TooMuch => bad("it is too large"),
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    let mut chars = unit.chars();
    let Some(letter) = chars.next() else {
        return Some(1);
    };
    match (letter.to_ascii_uppercase(), chars.as_str()) {
        ('B', "") => Some(1),
        (letter, "" | "iB") => UNITS.find(letter).map(|power| 1024 << (10 * power)),
        _ => None,
    }
}

enum Scaled {
    Bytes(u64),
    Partial,
    TooMuch,
}

/// `whole.fraction * unit`, exactly; both are digits only.
fn scale(whole: &str, fraction: &str, unit: u64) -> Scaled {
    let (Ok(whole), Ok(numerator)) = (whole.parse::<u64>(), fraction.parse::<u128>()) else {
        return Scaled::TooMuch;
    };
    // At most 18 digits: below 2^60, times a unit of at most 2^60.
    let product = numerator * u128::from(unit);
    let denominator = fraction.bytes().fold(1u128, |product, _| product * 10);
    if product % denominator != 0 {
        return Scaled::Partial;
    }
    let bytes = u128::from(whole) * u128::from(unit) + product / denominator;
    u64::try_from(bytes).map_or(Scaled::TooMuch, Scaled::Bytes)
}

/// For people: `512 B`, `64.0 KiB`, `1.5 GiB`.
pub fn human_size(bytes: u64) -> String {
    let power = |letter: &(usize, char)| bytes >> (10 * (letter.0 + 1)) > 0;
    let Some((power, letter)) = UNITS.chars().enumerate().take_while(power).last() else {
        return format!("{bytes} B");
    };
    let unit = 1024u128 << (10 * power);
    let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
    format!("{}.{} {letter}iB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_sizes() {
        for (text, bytes) in [
            ("1", 1),
            ("512", 512),
            ("512B", 512),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("64KiB", 64 << 10),
            ("1M", 1 << 20),
            ("1MiB", 1 << 20),
            ("4G", 4 << 30),
            ("4GiB", 4 << 30),
            ("1.5G", 3 << 29),
            ("0.5K", 512),
            ("1.50G", 3 << 29),
            ("1T", 1 << 40),
            ("7P", 7 << 50),
            ("7.5E", 15 << 59),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn bad_sizes() {
        for (text, why) in [
            ("", "not a number"),
            ("G", "not a number"),
            (".5G", "not a number"),
            ("1.G", "not a number"),
            ("1.2.3G", "not a number"),
            ("0.0000000009313225746E", "not a number"),
            ("-1", "not negative"),
            ("-5G", "not negative"),
            ("-", "not negative"),
            ("+1", "no sign"),
            ("1 G", "no unit"),
            ("12Q", "no unit"),
            ("1KB", "no unit"),
            ("1GB", "no unit"),
            ("1gib", "no unit"),
            ("1GiBs", "no unit"),
            ("1ü", "no unit"),
            ("0", "nothing"),
            ("0.0G", "nothing"),
            ("1.3K", "whole number"),
            ("0.5", "whole number"),
            ("16E", "too large"),
            ("18446744073709551616", "too large"),
            ("99999999999999999999999999999999999999999", "too large"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (3 << 29, "1.5 GiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}

//! The words that administrators give things: names of pools, hosts and places, tags, levels; and fractions.

use serde::{Deserialize, Serialize};

use super::AdminError;

/// Bytes of a word.
pub const MAX_WORD: usize = 64;
/// Tags of an OSD, or that a pool asks for.
pub const MAX_TAGS: usize = 16;

/// A word: ASCII letters, digits, `.`, `_` and `-`, 1 to [`MAX_WORD`] of them, a letter or digit first. `what` says in the
/// error what it was to be.
///
/// # Errors
/// `Invalid`, with the rule.
pub fn valid_word(what: &str, word: &str) -> Result<(), AdminError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = word.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && word.len() <= MAX_WORD && word.chars().all(plain) {
        return Ok(());
    }
    Err(AdminError::invalid(format!(
        "bad {what} {word:?}: give 1 to {MAX_WORD} letters, digits, '.', '_' and '-', a letter or digit first"
    )))
}

/// The name of a pool: a word that is not a number, for numbers are ids.
///
/// # Errors
/// `Invalid`, with the rule.
pub fn valid_pool_name(name: &str) -> Result<(), AdminError> {
    valid_word("pool name", name)?;
    if name.chars().all(|c| c.is_ascii_digit()) {
        return Err(AdminError::invalid(format!(
            "bad pool name {name:?}: it is a number, as pools' ids are; give it a letter"
        )));
    }
    Ok(())
}

/// How many of what there are, in words: `1 PG`, `3 PGs`. With a verb, that agrees, too: `1 PG is`, `3 PGs are`.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Tags, each once, ascending.
///
/// # Errors
/// `Invalid`, with the rule.
pub fn clean_tags(tags: &[String]) -> Result<Vec<String>, AdminError> {
    tags.iter().try_for_each(|tag| valid_word("tag", tag))?;
    let mut clean = tags.to_vec();
    clean.sort();
    clean.dedup();
    if clean.len() > MAX_TAGS {
        return Err(AdminError::invalid(format!(
            "{} tags: at most {MAX_TAGS} are possible",
            clean.len()
        )));
    }
    Ok(clean)
}

/// A fraction from 0 to 1, in thousandths; in JSON a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct Thousandths(u32);

impl Thousandths {
    /// 1.
    pub const ONE: Thousandths = Thousandths(1000);

    /// So many; what is above 1 counts as 1.
    #[must_use]
    pub fn new(thousandths: u32) -> Thousandths {
        Thousandths(thousandths.min(1000))
    }

    /// How many.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// This part of a number.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        u64::try_from(u128::from(whole) * u128::from(self.0) / 1000).unwrap_or(whole)
    }
}

impl Default for Thousandths {
    fn default() -> Thousandths {
        Thousandths::ONE
    }
}

impl From<Thousandths> for f64 {
    fn from(fraction: Thousandths) -> f64 {
        f64::from(fraction.0) / 1000.0
    }
}

impl TryFrom<f64> for Thousandths {
    type Error = String;

    fn try_from(fraction: f64) -> Result<Thousandths, String> {
        let bad = || format!("bad fraction {fraction}: give a number from 0 to 1, like 0.5");
        let near = |thousandths: &u32| (f64::from(*thousandths) - fraction * 1000.0).abs() <= 0.5;
        if !(0.0..=1.0).contains(&fraction) {
            return Err(bad());
        }
        (0..=1000).find(near).map(Thousandths).ok_or_else(bad)
    }
}

impl std::str::FromStr for Thousandths {
    type Err = String;

    fn from_str(text: &str) -> Result<Thousandths, String> {
        let fraction: f64 = text
            .parse()
            .map_err(|_| format!("bad fraction {text:?}: give a number from 0 to 1, like 0.5"))?;
        Thousandths::try_from(fraction)
    }
}

impl std::fmt::Display for Thousandths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let longest = "x".repeat(MAX_WORD);
        for word in ["a", "ssd", "rack-1", "h1.example.org", "7", "A_b", &longest] {
            assert!(valid_word("name", word).is_ok(), "{word}");
        }
        let longer = "x".repeat(MAX_WORD + 1);
        for word in ["", "-a", ".a", "a b", "a/b", "ü", "a\n", &longer] {
            assert!(valid_word("name", word).is_err(), "{word:?}");
        }
        assert!(valid_pool_name("p1").is_ok());
        assert!(valid_pool_name("17").is_err());
    }

    #[test]
    fn numbers_and_words_agree() {
        for (count, text) in [(0, "0 PGs are"), (1, "1 PG is"), (2, "2 PGs are")] {
            assert_eq!(counted(count, "PG is", "PGs are"), text);
        }
    }

    #[test]
    fn tags_are_sorted_once_each_and_few() {
        let tags = |tags: &[&str]| clean_tags(&tags.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(tags(&["b", "a", "b"]), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(tags(&["a b"]).is_err());
        let many: Vec<String> = (0..=MAX_TAGS).map(|n| format!("t{n}")).collect();
        assert!(clean_tags(&many).is_err());
    }

    #[test]
    fn fractions() {
        for (text, thousandths) in [
            ("0", 0),
            ("1", 1000),
            ("1.0", 1000),
            ("0.5", 500),
            ("0.333", 333),
            (".25", 250),
        ] {
            assert_eq!(text.parse(), Ok(Thousandths(thousandths)), "{text}");
        }
        for text in ["", "-0.1", "1.1", "x", "NaN", "inf"] {
            assert!(text.parse::<Thousandths>().is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&Thousandths(250)).unwrap(), "0.25");
        assert_eq!(serde_json::from_str::<Thousandths>("0.75").unwrap(), Thousandths(750));
        assert!(serde_json::from_str::<Thousandths>("2").is_err());
        assert_eq!((Thousandths(500).of(7), Thousandths::ONE.of(u64::MAX)), (3, u64::MAX));
        assert_eq!(Thousandths(50).to_string(), "0.050");
    }
}

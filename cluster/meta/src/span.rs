//! Which keys a watch is about.

/// The keys that begin with a prefix; of those, if there is an end, the ones that sort before it.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) prefix: String,
    pub(crate) end: Option<String>,
}

impl Span {
    /// All keys with this prefix.
    pub(crate) fn prefix(prefix: &str) -> Span {
        Span {
            prefix: prefix.to_owned(),
            end: None,
        }
    }

    /// All keys before this one.
    pub(crate) fn before(end: &str) -> Span {
        Span {
            prefix: String::new(),
            end: Some(end.to_owned()),
        }
    }

    /// Whether a key is one of them.
    pub(crate) fn has(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.end.as_deref().is_none_or(|end| key < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_span() {
        let keys = ["a/b", "usage", "usage/", "usage/1", "v"];
        let found = |span: &Span| keys.map(|key| span.has(key));
        assert_eq!(found(&Span::prefix("usage/")), [false, false, true, true, false]);
        assert_eq!(found(&Span::before("usage/")), [true, true, false, false, false]);
        assert_eq!(found(&Span::prefix("")), [true; 5]);
    }
}

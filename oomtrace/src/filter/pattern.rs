//! A name to search for, in which `*` stands for any text.

/// A name that may contain `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Pattern {
    /// Whether `text` is this name.
    pub fn matches(&self, text: &str) -> bool {
        is_match(&self.0, text)
    }

    /// Whether `id` starts with this name, if this has at least 12 digits: ids can be shortened.
    pub fn shortens(&self, id: &str) -> bool {
        const SHORT_ID: usize = 12;
        self.0.len() >= SHORT_ID && id.starts_with(&self.0)
    }

    /// The pattern for the names of `user`: the text after `UID/` for a user's own, and the whole pattern for
    /// the host's.
    pub fn of_user(&self, user: Option<u32>) -> Option<Self> {
        let Some(uid) = user else { return Some(self.clone()) };
        let (own, rest) = self.0.split_once('/')?;
        (own.parse() == Ok(uid)).then(|| rest.into())
    }
}

fn is_match(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    let mut text = text;
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, yes, no) in [
            ("api", &["api"][..], &["", "api2", "apI"][..]),
            ("api-*", &["api-", "api-1"], &["api", "xapi-1"]),
            ("*", &["", "a"], &[]),
            ("*:v2", &["a:v2", ":v2"], &["a:v2x"]),
            ("a*b*c", &["abc", "axbxc", "abcbc"], &["acb", "ab", "bc"]),
            ("aa*aa", &["aaaa", "aaxaa"], &["aaa", "aa"]),
            ("**", &["", "x"], &[]),
        ] {
            for text in yes {
                assert!(Pattern::from(pattern).matches(text), "{pattern} {text}");
            }
            for text in no {
                assert!(!Pattern::from(pattern).matches(text), "{pattern} {text}");
            }
        }
    }
}

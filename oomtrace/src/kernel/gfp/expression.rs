//! Evaluates a C constant expression of a tracefs `format`: integers, names of enumerators, casts to integer
//! types, `~ << >> & ^ |` and parentheses. The nesting is limited.

/// The limit for nesting. Kernels have about 20 levels, in `GFP_TRANSHUGE`.
const MAX_DEPTH: u32 = 64;

/// The value of `text`, with the values of `enumerators` for their names; `None` for any other text.
pub(super) fn value(text: &str, enumerators: &[(String, u64)]) -> Option<u64> {
    let mut parser = Parser { rest: text, enumerators };
    let value = parser.binary(0, 0)?;
    parser.rest.trim().is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
    enumerators: &'a [(String, u64)],
}

/// Binary operators, the weakest first.
const LEVELS: [&[&str]; 4] = [&["|"], &["^"], &["&"], &["<<", ">>"]];

impl<'a> Parser<'a> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, rest) = rest.split_at_checked(end)?;
        if word.is_empty() {
            return None;
        }
        self.rest = rest;
        Some(word)
    }

    fn binary(&mut self, level: usize, depth: u32) -> Option<u64> {
        let Some(operators) = LEVELS.get(level) else { return self.unary(depth) };
        let mut left = self.binary(level + 1, depth)?;
        while let Some(operator) = operators.iter().copied().find(|operator| self.take(operator)) {
            let right = self.binary(level + 1, depth)?;
            left = match operator {
                "|" => left | right,
                "^" => left ^ right,
                "&" => left & right,
                "<<" => left.checked_shl(u32::try_from(right).ok()?)?,
                _ => left.checked_shr(u32::try_from(right).ok()?)?,
            };
        }
        Some(left)
    }

    fn unary(&mut self, depth: u32) -> Option<u64> {
        let depth = depth + 1;
        if depth > MAX_DEPTH {
            return None;
        }
        if self.take("~") {
            return self.unary(depth).map(|value| !value);
        }
        if self.take("(") {
            if self.cast() {
                return self.unary(depth);
            }
            let value = self.binary(0, depth)?;
            return self.take(")").then_some(value);
        }
        let word = self.word()?;
        integer(word)
            .or_else(|| self.enumerators.iter().find(|(name, _)| name == word).map(|(_, value)| *value))
    }

    /// Takes the rest of `(type)`, if it is one.
    fn cast(&mut self) -> bool {
        let before = self.rest;
        while let Some(word) = self.word() {
            if !matches!(word, "unsigned" | "signed" | "long" | "int" | "gfp_t" | "u32" | "u64") {
                break;
            }
            if self.take(")") {
                return true;
            }
        }
        self.rest = before;
        false
    }
}

fn integer(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

//! What the scenarios did, kernel by kernel, as one table.
//!
//! In: console lines of guests. Out: a Markdown table (scenario × guest), the failures below it. A scenario that was to run and
//! said nothing has failed.

use std::fmt;

/// How one scenario ended in one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every fact agreed with the kernel.
    Pass,
    /// What differed: the field and both values, as the scenario tells it.
    Fail(String),
    /// Nothing to compare on this kernel: why.
    NotApplicable(String),
}

/// A line of the scenario program: `PASS name`, `FAIL name: what differs` or `n/a name: why`.
pub fn told_by(line: &str) -> Option<(&str, Outcome)> {
    if let Some(name) = line.strip_prefix("PASS ") {
        return Some((name.split_whitespace().next()?, Outcome::Pass));
    }
    let (build, rest): (fn(String) -> Outcome, _) = if let Some(rest) = line.strip_prefix("FAIL ") {
        (Outcome::Fail, rest)
    } else {
        (Outcome::NotApplicable, line.strip_prefix("n/a ")?)
    };
    let (name, text) = rest.split_once(':').unwrap_or((rest, ""));
    Some((name.trim(), build(text.trim().to_owned())))
}

/// A line of the scenario program on the kernel itself: `offers what: how`.
pub fn offered_by(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("offers ")?.split_once(": ")
}

/// All results so far.
#[derive(Default)]
pub struct Table {
    /// What a guest's kernel offers: guest, what, how.
    offers: Vec<(usize, String, String)>,
    guests: Vec<String>,
    scenarios: Vec<String>,
    cells: Vec<(usize, usize, Outcome)>,
}

impl Table {
    /// Gives `guest` its column.
    pub fn guest(&mut self, guest: &str) {
        position(&mut self.guests, guest);
    }

    /// Notes what the kernel of `guest` offers.
    pub fn offers(&mut self, guest: &str, what: &str, how: &str) {
        let guest = position(&mut self.guests, guest);
        if !self.offers.iter().any(|(known, name, _)| *known == guest && name == what) {
            self.offers.push((guest, what.to_owned(), how.to_owned()));
        }
    }

    /// What each guest's kernel offers, as Markdown: a guest a section, so that a sentence has room.
    pub fn offered(&self) -> String {
        let mut text = String::new();
        for (guest, name) in self.guests.iter().enumerate() {
            let offers = self.offers.iter().filter(|(of, ..)| *of == guest);
            for (index, (_, what, how)) in offers.enumerate() {
                if index == 0 {
                    text.push_str(&format!("\n### {name}\n\n"));
                }
                text.push_str(&format!("- {what}: {how}\n"));
            }
        }
        text
    }

    /// Notes how `scenario` ended in `guest`.
    pub fn add(&mut self, guest: &str, scenario: &str, outcome: Outcome) {
        let guest = position(&mut self.guests, guest);
        let scenario = position(&mut self.scenarios, scenario);
        self.cells.push((guest, scenario, outcome));
    }

    /// Whether `scenario` has said how it ended in `guest`.
    pub fn has(&self, guest: &str, scenario: &str) -> bool {
        self.cells.iter().any(|(column, row, _)| {
            self.guests.get(*column).is_some_and(|known| known == guest)
                && self.scenarios.get(*row).is_some_and(|known| known == scenario)
        })
    }

    /// Whether something passed and nothing failed.
    pub fn passed(&self) -> bool {
        self.cells.iter().any(|(.., outcome)| *outcome == Outcome::Pass)
            && !self.cells.iter().any(|(.., outcome)| matches!(outcome, Outcome::Fail(_)))
    }

    /// The outcome to show in a cell: a failure before anything else, should a scenario have run twice.
    fn cell(&self, guest: usize, scenario: usize) -> Option<&Outcome> {
        let mut here = self.cells.iter().filter(|(column, row, _)| (*column, *row) == (guest, scenario));
        here.clone()
            .find(|(.., outcome)| matches!(outcome, Outcome::Fail(_)))
            .or_else(|| here.next())
            .map(|(.., outcome)| outcome)
    }
}

/// Where `name` is in `names`, added if it is new.
fn position(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.scenarios.iter().map(String::len).max().unwrap_or(0).max("scenario".len());
        write!(f, "| {:first$} |", "scenario")?;
        for guest in &self.guests {
            write!(f, " {guest} |")?;
        }
        write!(f, "\n|{:-<1$}|", "", first + 2)?;
        for guest in &self.guests {
            write!(f, "{:-<1$}|", "", guest.len() + 2)?;
        }
        writeln!(f)?;
        for (row, scenario) in self.scenarios.iter().enumerate() {
            write!(f, "| {scenario:first$} |")?;
            for (column, guest) in self.guests.iter().enumerate() {
                let word = match self.cell(column, row) {
                    Some(Outcome::Pass) => "pass",
                    Some(Outcome::Fail(_)) => "FAIL",
                    Some(Outcome::NotApplicable(_)) => "n/a",
                    None => "",
                };
                write!(f, " {word:width$} |", width = guest.len())?;
            }
            writeln!(f)?;
        }
        let told = self.cells.iter().filter_map(|(column, row, outcome)| {
            let (word, text) = match outcome {
                Outcome::Pass => return None,
                Outcome::Fail(text) => ("FAIL", text),
                Outcome::NotApplicable(text) => ("n/a ", text),
            };
            Some((word, self.guests.get(*column)?, self.scenarios.get(*row)?, text))
        });
        for (index, (word, guest, scenario, text)) in told.enumerate() {
            if index == 0 {
                writeln!(f)?;
            }
            writeln!(f, "{word} {guest} {scenario}: {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_scenario_program_are_read() {
        assert_eq!(told_by("PASS memcg-limit"), Some(("memcg-limit", Outcome::Pass)));
        assert_eq!(
            told_by("FAIL memcg-limit: victim.rss 10 != 11"),
            Some(("memcg-limit", Outcome::Fail("victim.rss 10 != 11".to_owned())))
        );
        assert_eq!(
            told_by("n/a cpuset: one node"),
            Some(("cpuset", Outcome::NotApplicable("one node".to_owned())))
        );
        assert_eq!(told_by("2 passed, 0 failed"), None);
    }

    #[test]
    fn a_failure_is_in_the_table_and_told_below_it() {
        let mut table = Table::default();
        table.add("6.1 v2", "memcg-limit", Outcome::Pass);
        assert!(table.passed());
        table.add("6.12 v2", "memcg-limit", Outcome::Fail("victim.rss: kernel 10, event 11".to_owned()));
        table.add("6.12 v2", "cpuset", Outcome::NotApplicable("one node".to_owned()));
        assert!(!table.passed());
        assert!(table.has("6.1 v2", "memcg-limit") && !table.has("6.1 v2", "cpuset"));
        let expected = "\
| scenario    | 6.1 v2 | 6.12 v2 |
|-------------|--------|---------|
| memcg-limit | pass   | FAIL    |
| cpuset      |        | n/a     |

FAIL 6.12 v2 memcg-limit: victim.rss: kernel 10, event 11
n/a  6.12 v2 cpuset: one node
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn nothing_run_is_not_a_pass() {
        assert!(!Table::default().passed());
    }
}

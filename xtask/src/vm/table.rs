//! The results of the scenarios on each kernel, as one table.
//!
//! Takes the guests' console lines. Returns a Markdown table (scenario × guest) with the failures below it. A
//! scenario that did not report a result has failed.

use std::fmt;

use super::budget::VerifierCosts;

/// How one scenario ended in one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every fact agreed with the kernel.
    Pass,
    /// The difference: the field and both values, as the scenario prints it.
    Fail(String),
    /// Nothing can be compared on this kernel, for this reason.
    NotApplicable(String),
}

/// A line of the scenario program: `PASS name`, `FAIL name: what differs` or `n/a name: why`.
pub fn reported_by(line: &str) -> Option<(&str, Outcome)> {
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

/// A line of the scenario program about the kernel: `offers what: how`.
pub fn offered_by(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("offers ")?.split_once(": ")
}

/// All results so far.
#[derive(Default)]
pub struct Table {
    /// What a guest's kernel offers: guest, what, how.
    pub(super) offers: Vec<(usize, String, String)>,
    /// The verifier's costs of the programs.
    pub verified: VerifierCosts,
    pub(super) guests: Vec<String>,
    pub(super) scenarios: Vec<String>,
    pub(super) cells: Vec<(usize, usize, Outcome)>,
}

impl Table {
    /// Gives `guest` its column.
    pub fn guest(&mut self, guest: &str) {
        position(&mut self.guests, guest);
    }

    /// Adds what the kernel of `guest` offers.
    pub fn offers(&mut self, guest: &str, what: &str, how: &str) {
        let guest = position(&mut self.guests, guest);
        if !self.offers.iter().any(|(known, name, _)| *known == guest && name == what) {
            self.offers.push((guest, what.to_owned(), how.to_owned()));
        }
    }

    /// What the guests' kernels offer, as a Markdown list. What all offer is written once.
    pub fn offered(&self) -> String {
        let mut text = String::new();
        let mut written: Vec<&str> = Vec::new();
        for (_, what, _) in &self.offers {
            if written.contains(&what.as_str()) {
                continue;
            }
            written.push(what);
            let mut answers: Vec<(&str, Vec<&str>)> = Vec::new();
            let mut of_all: Vec<_> = self.offers.iter().filter(|(_, other, _)| other == what).collect();
            // In the order of the columns, not in the order in which guests reported.
            of_all.sort_by_key(|(guest, ..)| *guest);
            for (guest, _, how) in of_all {
                let guest = self.guests.get(*guest).map_or("", String::as_str);
                match answers.iter_mut().find(|(known, _)| known == how) {
                    Some((_, guests)) => guests.push(guest),
                    None => answers.push((how, vec![guest])),
                }
            }
            if let [(how, _)] = &*answers {
                text.push_str(&format!("- {what}: {how}\n"));
                continue;
            }
            text.push_str(&format!("- {what}:\n"));
            for (how, guests) in answers {
                text.push_str(&format!("  - {}: {how}\n", guests.join(", ")));
            }
        }
        text
    }

    /// Adds the result of `scenario` in `guest`.
    pub fn add(&mut self, guest: &str, scenario: &str, outcome: Outcome) {
        let guest = position(&mut self.guests, guest);
        let scenario = position(&mut self.scenarios, scenario);
        self.cells.push((guest, scenario, outcome));
    }

    /// Whether `scenario` has a result in `guest`.
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

    /// The outcome to show in a cell. If a scenario ran twice, a failure counts.
    fn cell(&self, guest: usize, scenario: usize) -> Option<&Outcome> {
        let mut here = self.cells.iter().filter(|(column, row, _)| (*column, *row) == (guest, scenario));
        here.clone()
            .find(|(.., outcome)| matches!(outcome, Outcome::Fail(_)))
            .or_else(|| here.next())
            .map(|(.., outcome)| outcome)
    }
}

/// The index of `name` in `names`. A new name is added.
fn position(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// The kernel of a guest and the way in which it is tested: `6.12` and `v2 auto` of `6.12 v2 auto`.
pub fn parts(guest: &str) -> (&str, &str) {
    guest.split_once(' ').unwrap_or((guest, ""))
}

impl Table {
    /// Writes the guests that are tested in one way as their own table.
    fn write_way(&self, f: &mut fmt::Formatter<'_>, columns: &[(usize, &str)]) -> fmt::Result {
        let first = self.scenarios.iter().map(String::len).max().unwrap_or(0).max("scenario".len());
        write!(f, "| {:first$} |", "scenario")?;
        for (_, name) in columns {
            write!(f, " {name:4} |")?;
        }
        write!(f, "\n|{:-<1$}|", "", first + 2)?;
        for (_, name) in columns {
            write!(f, "{:-<1$}|", "", name.len().max(4) + 2)?;
        }
        writeln!(f)?;
        for (row, scenario) in self.scenarios.iter().enumerate() {
            let cells: Vec<_> = columns.iter().map(|(column, _)| self.cell(*column, row)).collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            write!(f, "| {scenario:first$} |")?;
            for (cell, (_, name)) in cells.into_iter().zip(columns) {
                let word = match cell {
                    Some(Outcome::Pass) => "pass",
                    Some(Outcome::Fail(_)) => "FAIL",
                    Some(Outcome::NotApplicable(_)) => "n/a",
                    None => "",
                };
                write!(f, " {word:width$} |", width = name.len().max(4))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ways: Vec<(&str, Vec<(usize, &str)>)> = Vec::new();
        for (index, guest) in self.guests.iter().enumerate() {
            let (kernel, way) = parts(guest);
            match ways.iter_mut().find(|(known, _)| *known == way) {
                Some((_, columns)) => columns.push((index, kernel)),
                None => ways.push((way, vec![(index, kernel)])),
            }
        }
        if let [(_, columns)] = &mut *ways {
            for (index, name) in columns.iter_mut() {
                *name = self.guests.get(*index).map_or("", String::as_str);
            }
            self.write_way(f, columns)?;
        } else {
            for (index, (way, columns)) in ways.iter().enumerate() {
                write!(f, "{}### {way}\n\n", if index > 0 { "\n" } else { "" })?;
                self.write_way(f, columns)?;
            }
        }
        let mut written: Vec<String> = Vec::new();
        for (column, row, outcome) in &self.cells {
            let guest = self.guests.get(*column).map_or("", String::as_str);
            let scenario = self.scenarios.get(*row).map_or("", String::as_str);
            let line = match outcome {
                Outcome::Pass => continue,
                Outcome::Fail(text) => format!("- FAIL {guest} {scenario}: {text}"),
                // The reason is the same in every guest.
                Outcome::NotApplicable(text) => format!("- n/a {scenario}: {text}"),
            };
            if !written.contains(&line) {
                written.push(line);
            }
        }
        for (index, line) in written.iter().enumerate() {
            writeln!(f, "{}{line}", if index == 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_scenario_program_are_read() {
        assert_eq!(reported_by("PASS memcg-limit"), Some(("memcg-limit", Outcome::Pass)));
        assert_eq!(
            reported_by("FAIL memcg-limit: victim.rss 10 != 11"),
            Some(("memcg-limit", Outcome::Fail("victim.rss 10 != 11".to_owned())))
        );
        assert_eq!(
            reported_by("n/a cpuset: one node"),
            Some(("cpuset", Outcome::NotApplicable("one node".to_owned())))
        );
        assert_eq!(reported_by("2 passed, 0 failed"), None);
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

- FAIL 6.12 v2 memcg-limit: victim.rss: kernel 10, event 11
- n/a cpuset: one node
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn each_way_has_a_table_without_the_scenarios_that_it_does_not_run() {
        let mut table = Table::default();
        table.add("6.1 v2 auto", "plain", Outcome::Pass);
        table.add("6.1 v2 auto", "lockdown", Outcome::Pass);
        table.add("6.1 v1 none", "plain", Outcome::Fail("pid 1, not 2".to_owned()));
        let expected = "\
### v2 auto

| scenario | 6.1  |
|----------|------|
| plain    | pass |
| lockdown | pass |

### v1 none

| scenario | 6.1  |
|----------|------|
| plain    | FAIL |

- FAIL 6.1 v1 none plain: pid 1, not 2
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn what_all_kernels_offer_is_said_once() {
        let mut table = Table::default();
        table.guest("6.1 v2 auto");
        for (guest, hook) in
            [("6.12 v2 auto", "fentry"), ("6.1 v2 auto", "fentry"), ("7.3 v2 auto", "kprobe")]
        {
            table.offers(guest, "lockdown", "none");
            table.offers(guest, "hook", hook);
        }
        assert_eq!(
            table.offered(),
            "- lockdown: none\n- hook:\n  - 6.1 v2 auto, 6.12 v2 auto: fentry\n  - 7.3 v2 auto: kprobe\n"
        );
    }

    #[test]
    fn nothing_run_is_not_a_pass() {
        assert!(!Table::default().passed());
    }
}

//! The results of earlier guests. Takes the page's text and adds its results to the table of this run. A run
//! of some guests leaves the columns of the others as they are. Only a whole matrix starts with an empty
//! table.

use super::table::{Outcome, Table};

impl Table {
    /// Adds the page's results of guests and scenarios that did not run now.
    pub fn keep(&mut self, recorded: &str) {
        let mut all = Self { verified: std::mem::take(&mut self.verified), ..parse(recorded) };
        for guest in &self.guests {
            all.guest(guest);
        }
        let name = |names: &[String], at: usize| names.get(at).cloned().unwrap_or_default();
        for (guest, scenario, _) in &self.cells {
            all.forget(&name(&self.guests, *guest), &name(&self.scenarios, *scenario));
        }
        for (guest, scenario, outcome) in &self.cells {
            all.add(&name(&self.guests, *guest), &name(&self.scenarios, *scenario), outcome.clone());
        }
        for (guest, what, how) in &self.offers {
            let guest = name(&self.guests, *guest);
            all.withdraw(&guest, what);
            all.offers(&guest, what, how);
        }
        *self = all;
    }

    /// Removes the earlier result of a scenario.
    fn forget(&mut self, guest: &str, scenario: &str) {
        let at = |names: &[String], name: &str| names.iter().position(|known| known == name);
        let (guest, scenario) = (at(&self.guests, guest), at(&self.scenarios, scenario));
        self.cells.retain(|(column, row, _)| (Some(*column), Some(*row)) != (guest, scenario));
    }

    fn withdraw(&mut self, guest: &str, what: &str) {
        let guest = self.guests.iter().position(|known| known == guest);
        self.offers.retain(|(column, name, _)| Some(*column) != guest || name != what);
    }
}

/// The table of a page, as [`Table`] writes it.
fn parse(page: &str) -> Table {
    let mut table = Table::default();
    let (mut way, mut columns) = ("", Vec::new());
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            way = title;
        } else if let Some(cells) = cells(line) {
            let Some((scenario, words)) = cells.split_first() else { continue };
            if *scenario == "scenario" {
                columns =
                    words.iter().map(|kernel| format!("{kernel} {way}").trim_end().to_owned()).collect();
                columns.iter().for_each(|guest| table.guest(guest));
                continue;
            }
            for (guest, word) in columns.iter().zip(words) {
                if let Some(outcome) = outcome(page, guest, scenario, word) {
                    table.add(guest, scenario, outcome);
                }
            }
        }
    }
    offers(page, &mut table);
    table
}

/// The cells of a row of a table; empty for the line between head and body.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    (!inner.starts_with("--")).then(|| inner.split('|').map(str::trim).collect())
}

fn outcome(page: &str, guest: &str, scenario: &str, word: &str) -> Option<Outcome> {
    let said = |start: &str| {
        let text = page.lines().find_map(|line| line.strip_prefix(start)?.strip_prefix(": "));
        text.unwrap_or_default().to_owned()
    };
    match word {
        "pass" => Some(Outcome::Pass),
        "FAIL" => Some(Outcome::Fail(said(&format!("- FAIL {guest} {scenario}")))),
        "n/a" => Some(Outcome::NotApplicable(said(&format!("- n/a {scenario}")))),
        _ => None,
    }
}

/// Reads what the guests' kernels offer: `- what: how` for all, or `- what:` and a line for some guests each.
fn offers(page: &str, table: &mut Table) {
    let all = table.guests.clone();
    let mut what = "";
    for line in page.lines() {
        if let Some((guests, how)) = line.strip_prefix("  - ").and_then(|line| line.split_once(": ")) {
            for guest in guests.split(", ").filter(|guest| all.iter().any(|known| known == guest)) {
                table.offers(guest, what, how);
            }
        } else if let Some(line) =
            line.strip_prefix("- ").filter(|line| !line.starts_with("n/a ") && !line.starts_with("FAIL "))
        {
            if let Some((what, how)) = line.split_once(": ") {
                for guest in &all {
                    table.offers(guest, what, how);
                }
            } else {
                what = line.strip_suffix(':').unwrap_or(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::parts;
    use super::*;

    fn earlier() -> Table {
        let mut table = Table::default();
        for guest in ["6.1 v2 auto", "6.12 v2 auto", "6.1 v1 none"] {
            table.add(guest, "plain", Outcome::Pass);
            table.offers(guest, "lockdown", "none");
            table.offers(guest, "kernel", parts(guest).0);
        }
        table.add("6.1 v2 auto", "pinned", Outcome::Fail("6.1: no pins".to_owned()));
        table.add("6.1 v1 none", "oom_group", Outcome::NotApplicable("cgroup v1: none".to_owned()));
        table
    }

    fn page(table: &Table) -> String {
        format!("{table}\n3 guests took 4 s. The kernels say of themselves:\n\n{}", table.offered())
    }

    #[test]
    fn what_was_written_is_read_again() {
        let page = page(&earlier());
        let mut table = Table::default();
        table.keep(&page);
        assert_eq!(self::page(&table), page);
    }

    #[test]
    fn what_was_not_met_stays_and_the_rest_is_new() {
        let mut now = Table::default();
        now.add("6.1 v2 auto", "pinned", Outcome::Pass);
        now.add("6.1 v2 ftrace-off", "plain", Outcome::Pass);
        now.offers("6.1 v2 auto", "kernel", "6.1.99");
        now.keep(&page(&earlier()));
        let mut expected = earlier();
        expected.forget("6.1 v2 auto", "pinned");
        expected.withdraw("6.1 v2 auto", "kernel");
        expected.add("6.1 v2 auto", "pinned", Outcome::Pass);
        expected.add("6.1 v2 ftrace-off", "plain", Outcome::Pass);
        expected.offers("6.1 v2 auto", "kernel", "6.1.99");
        assert_eq!(now.to_string(), expected.to_string());
        assert_eq!(now.offered(), expected.offered());
        assert!(now.passed());
    }
}

//! Compares the verifier's cost of each program on each kernel with the recorded costs on the page.
//!
//! Takes the guests' console lines and the page's table. Returns the new table and the programs that grew by
//! more than a fifth. The verifier stops at a million instructions, and a start waits for it, so growth must
//! be noticed early. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

/// The cost of one program on one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Instructions that the verifier processed.
    pub instructions: u64,
    /// Time of the load, in the emulator.
    pub microseconds: u64,
}

/// A line of the scenario program about one program: `verified NAME: INSTRUCTIONS in MICROSECONDS`.
pub fn verified_by(line: &str) -> Option<(&str, Cost)> {
    let (program, cost) = line.strip_prefix("verified ")?.rsplit_once(": ")?;
    let (instructions, microseconds) = cost.split_once(" in ")?;
    Some((
        program,
        Cost { instructions: instructions.parse().ok()?, microseconds: microseconds.parse().ok()? },
    ))
}

/// Costs by program and kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifierCosts {
    kernels: Vec<String>,
    costs: BTreeMap<String, BTreeMap<String, Cost>>,
}

impl VerifierCosts {
    /// Reads the table of the page. Other text is ignored.
    pub fn parse(text: &str) -> Self {
        let mut budget = Self::default();
        let mut rows = text.lines().filter_map(cells);
        let Some(head) = rows.next() else { return budget };
        budget.kernels = head.iter().skip(1).map(|kernel| (*kernel).to_owned()).collect();
        for row in rows {
            let Some((program, costs)) = row.split_first() else { continue };
            for (kernel, cost) in budget.kernels.clone().iter().zip(costs) {
                let Some((instructions, milliseconds)) = cost.split_once(" · ") else { continue };
                let Ok(instructions) = instructions.parse() else { continue };
                let microseconds = milliseconds.replace('.', "").parse::<u64>().unwrap_or(0) * 100;
                budget.add(kernel, program, Cost { instructions, microseconds });
            }
        }
        budget
    }

    /// Adds a cost. The highest one of a kernel counts, because the programs differ with what the kernel
    /// offers.
    pub fn add(&mut self, kernel: &str, program: &str, cost: Cost) {
        if self.kernels.iter().all(|known| known != kernel) {
            self.kernels.push(kernel.to_owned());
        }
        let known = self.costs.entry(program.to_owned()).or_default().entry(kernel.to_owned()).or_default();
        known.instructions = known.instructions.max(cost.instructions);
        known.microseconds = known.microseconds.max(cost.microseconds);
    }

    /// Takes over the recorded costs of kernels and programs that did not run now.
    pub fn keep(&mut self, recorded: &Self) {
        let mut kernels = recorded.kernels.clone();
        kernels.extend(self.kernels.iter().filter(|kernel| !recorded.kernels.contains(kernel)).cloned());
        let met = std::mem::replace(&mut self.kernels, kernels);
        for (program, costs) in &recorded.costs {
            for (kernel, cost) in costs.iter().filter(|(kernel, _)| !met.contains(kernel)) {
                self.add(kernel, program, *cost);
            }
        }
    }

    /// Why this cost is too high: it is more than a fifth above the recorded one.
    pub fn too_high(&self, kernel: &str, program: &str, cost: Cost) -> Option<String> {
        let recorded = self.costs.get(program)?.get(kernel)?.instructions;
        (cost.instructions.saturating_mul(5) > recorded.saturating_mul(6)).then(|| {
            format!(
                "{program}: {} instructions, more than a fifth above the {recorded} on record",
                cost.instructions
            )
        })
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from("| program |");
        for kernel in &self.kernels {
            // Writing to a `String` cannot fail.
            let _ok = write!(text, " {kernel} |");
        }
        text.push_str("\n|---|");
        text.push_str(&"--:|".repeat(self.kernels.len()));
        text.push('\n');
        for (program, costs) in &self.costs {
            let _ok = write!(text, "| {program} |");
            for kernel in &self.kernels {
                let cost = costs.get(kernel).map_or_else(String::new, |cost| {
                    let tenths = cost.microseconds / 100;
                    format!("{} · {}.{}", cost.instructions, tenths / 10, tenths % 10)
                });
                let _ok = write!(text, " {cost} |");
            }
            text.push('\n');
        }
        text
    }
}

/// The cells of a table row. The line between head and body has none.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    (!inner.starts_with("---")).then(|| inner.split('|').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn cost(instructions: u64) -> Cost {
        Cost { instructions, microseconds: 1500 }
    }

    #[test]
    fn a_line_of_the_scenario_program_is_read() {
        let (program, cost) = verified_by("verified mark_victim (raw_tracepoint): 17042 in 9941").unwrap();
        assert_eq!(
            (program, cost.instructions, cost.microseconds),
            ("mark_victim (raw_tracepoint)", 17042, 9941)
        );
        assert_eq!(verified_by("PASS plain"), None);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut budget = VerifierCosts::default();
        budget.add("5.10", "mark_victim", cost(17_042));
        budget.add("6.1", "mark_victim", cost(16_000));
        budget.add("6.1", "signal_generate", cost(673));
        let table = "| program | 5.10 | 6.1 |\n|---|--:|--:|\n\
            | mark_victim | 17042 · 1.5 | 16000 · 1.5 |\n| signal_generate |  | 673 · 1.5 |\n";
        assert_eq!(budget.table(), table);
        assert_eq!(VerifierCosts::parse(&format!("words\n\n{table}\nmore\n")), budget);
    }

    #[test]
    fn a_fifth_is_the_most() {
        let mut recorded = VerifierCosts::default();
        recorded.add("6.1", "mark_victim", cost(1000));
        assert_eq!(recorded.too_high("6.1", "mark_victim", cost(1200)), None);
        let said = recorded.too_high("6.1", "mark_victim", cost(1201)).unwrap();
        assert_eq!(said, "mark_victim: 1201 instructions, more than a fifth above the 1000 on record");
        assert_eq!(recorded.too_high("6.12", "mark_victim", cost(9999)), None);
    }

    #[test]
    fn what_was_not_met_stays_on_record() {
        let mut recorded = VerifierCosts::default();
        recorded.add("5.10", "mark_victim", cost(1));
        recorded.add("6.1", "mark_victim", cost(2));
        recorded.add("6.1", "gone", cost(3));
        let mut met = VerifierCosts::default();
        met.add("6.1", "mark_victim", cost(4));
        met.keep(&recorded);
        assert_eq!(
            met.table(),
            "| program | 5.10 | 6.1 |\n|---|--:|--:|\n| mark_victim | 1 · 1.5 | 4 · 1.5 |\n"
        );
    }
}

//! Options of a command line that set the size of a heap.

use crate::event::HeapOption;

/// An option and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Which.
    pub option: HeapOption,
    /// The size.
    pub bytes: Option<u64>,
    /// The share, without its fraction.
    pub percent: Option<u64>,
}

/// The options in a command line, arguments separated by blanks. Of one that is given twice, the last. `cut`:
/// the end is missing, so the last argument may be too.
pub fn heaps(command_line: &str, cut: bool) -> Vec<Heap> {
    let mut arguments: Vec<&str> = command_line.split(' ').collect();
    if cut {
        arguments.pop();
    }
    let last = |option| arguments.iter().rev().find_map(|argument| heap(option, argument));
    [HeapOption::Xmx, HeapOption::MaxRamPercentage, HeapOption::MaxOldSpaceSize]
        .into_iter()
        .filter_map(last)
        .collect()
}

fn heap(option: HeapOption, argument: &str) -> Option<Heap> {
    let (bytes, percent) = match option {
        HeapOption::Xmx => (Some(java_size(argument.strip_prefix("-Xmx")?)?), None),
        HeapOption::MaxRamPercentage => {
            let number = argument.strip_prefix("-XX:MaxRAMPercentage=")?;
            let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
            let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
            (None, Some(digits(whole).filter(|percent| is_number && *percent <= 100)?))
        }
        HeapOption::MaxOldSpaceSize => {
            let name = argument.replace('_', "-");
            let number = name.strip_prefix("--max-old-space-size=")?;
            (Some(digits(number)?.checked_mul(1 << 20)?), None)
        }
    };
    Some(Heap { option, bytes, percent })
}

/// Digits, perhaps with `k`, `m`, `g` or `t`.
fn java_size(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (text.get(..at)?, 10),
        (at, 'm' | 'M') => (text.get(..at)?, 20),
        (at, 'g' | 'G') => (text.get(..at)?, 30),
        (at, 't' | 'T') => (text.get(..at)?, 40),
        _ => (text, 0),
    };
    digits(number)?.checked_mul(1 << unit)
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_heaps() {
        let of = |line: &str| {
            heaps(line, false)
                .into_iter()
                .map(|heap| (heap.option, heap.bytes.or(heap.percent)))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("java -Xmx512m -jar a.jar"), [(HeapOption::Xmx, Some(512 << 20))]);
        assert_eq!(of("java -Xmx1g -Xmx2G x"), [(HeapOption::Xmx, Some(2 << 30))]);
        assert_eq!(of("java -XX:MaxRAMPercentage=82.5 x"), [(HeapOption::MaxRamPercentage, Some(82))]);
        assert_eq!(of("node --max-old-space-size=400 x"), [(HeapOption::MaxOldSpaceSize, Some(400 << 20))]);
        assert_eq!(of("node --max_old_space_size=400 x"), [(HeapOption::MaxOldSpaceSize, Some(400 << 20))]);
        for none in [
            "java -Xmx",
            "java -Xmxm",
            "java -Xmx-1m",
            "java -Xmx1.5g",
            "java -XX:MaxRAMPercentage=",
            "java x-Xmx1g",
            "java -XX:MaxRAMPercentage=80.",
            "java -XX:MaxRAMPercentage=101",
            "node --max-old-space-size",
            "",
            "java -Xmx99999999999999999999g",
            "java -Xmx18446744073709551615t",
            "java -Xmx5é",
        ] {
            assert_eq!(of(none), [], "{none}");
        }
    }

    #[test]
    fn an_argument_that_may_be_cut_is_not_read() {
        assert_eq!(heaps("java -Xmx51", true), []);
        assert_eq!(heaps("java -Xmx51 ", true).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_safe(text: String, cut: bool) {
            let _any = heaps(&text, cut);
            let _any = heaps(&format!("-Xmx{text} -XX:MaxRAMPercentage={text} --max-old-space-size={text}"), cut);
        }
    }
}

//! Names of allocation flags: reads what the running kernel publishes about its `gfp_t`, and gives names as
//! the kernel's own log prints them (`%pGg`).
//!
//! The bits differ between kernels and configurations, so no number is built in. If the kernel publishes
//! nothing there are no names.

use expression::value;

mod expression;

/// Names of this kernel's allocation flags, in the order in which the kernel tries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GfpNames {
    /// Mask and name; never a mask of 0.
    table: Vec<(u32, String)>,
}

impl GfpNames {
    /// Names from the text of tracefs `events/kmem/mm_page_alloc/format`, whose `print fmt` contains the
    /// table that `%pGg` uses.
    ///
    /// `enumerators` are those of the enum of `___GFP_*_BIT` if BTF has it (6.9 and later): some kernels
    /// write their names into the text instead of their values. An entry that cannot be evaluated is left
    /// out. `None` if there is no entry.
    pub fn from_format(format: &str, enumerators: &[(String, u64)]) -> Option<Self> {
        let (_, mut rest) = format.split_once("__print_flags(")?;
        let mut table = Vec::new();
        while let Some((_, entry)) = rest.split_once('{') {
            let Some((entry, after)) = entry.split_once('}') else { break };
            rest = after;
            let Some((expression, name)) = entry.rsplit_once(',') else { break };
            // The table ends with `{ 0, NULL }`.
            let Some(name) = name.trim().strip_prefix('"').and_then(|name| name.strip_suffix('"')) else {
                break;
            };
            match value(expression, enumerators).and_then(mask) {
                Some(mask) if mask != 0 => table.push((mask, name.to_owned())),
                _ => {}
            }
        }
        (!table.is_empty()).then_some(Self { table })
    }

    /// Names only from the enumerators of the enum of `___GFP_*_BIT` (BTF of 6.9 and later).
    ///
    /// Combinations of bits (`GFP_KERNEL`, …) are built here as in these kernels. `None` if there is no such
    /// enumerator.
    pub fn from_bits(enumerators: &[(String, u64)]) -> Option<Self> {
        let bits: Vec<(&str, u32)> = enumerators
            .iter()
            .filter_map(|(name, bit)| {
                let name = name.strip_prefix("___GFP_")?.strip_suffix("_BIT")?;
                // Neither is a flag: an unused number, and the end.
                if matches!(name, "UNUSED" | "LAST") {
                    return None;
                }
                Some((name, 1_u32.checked_shl(u32::try_from(*bit).ok()?)?))
            })
            .collect();
        if bits.is_empty() {
            return None;
        }
        let bit = |wanted: &str| bits.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, mask)| *mask);

        // `include/linux/gfp_types.h`. A bit that the configuration leaves out is 0 there too.
        let reclaim = bit("DIRECT_RECLAIM") | bit("KSWAPD_RECLAIM");
        let nofs = reclaim | bit("IO");
        let kernel = nofs | bit("FS");
        let user = kernel | bit("HARDWALL");
        let highuser = user | bit("HIGHMEM");
        let movable = highuser | bit("MOVABLE") | bit("SKIP_KASAN");
        let huge_light = (movable | bit("COMP") | bit("NOMEMALLOC") | bit("NOWARN")) & !reclaim;
        // `include/trace/events/mmflags.h`: the entry with the most bits comes first.
        let composites = [
            ("GFP_TRANSHUGE", huge_light | bit("DIRECT_RECLAIM")),
            ("GFP_TRANSHUGE_LIGHT", huge_light),
            ("GFP_HIGHUSER_MOVABLE", movable),
            ("GFP_HIGHUSER", highuser),
            ("GFP_USER", user),
            ("GFP_KERNEL_ACCOUNT", kernel | bit("ACCOUNT")),
            ("GFP_KERNEL", kernel),
            ("GFP_NOFS", nofs),
            ("GFP_ATOMIC", bit("HIGH") | bit("KSWAPD_RECLAIM")),
            ("GFP_NOIO", reclaim),
            ("GFP_NOWAIT", bit("KSWAPD_RECLAIM") | bit("NOWARN")),
            ("GFP_DMA", bit("DMA")),
            ("GFP_DMA32", bit("DMA32")),
            ("__GFP_RECLAIM", reclaim),
        ];
        let composites = composites.into_iter().map(|(name, mask)| (mask, name.to_owned()));
        let single = bits.iter().map(|(name, mask)| (*mask, format!("__GFP_{name}")));
        Some(Self { table: composites.chain(single).filter(|(mask, _)| *mask != 0).collect() })
    }

    /// `mask` by name, as in the kernel log: `GFP_KERNEL`, `GFP_HIGHUSER_MOVABLE|__GFP_ZERO`. Bits without a
    /// name follow as one hexadecimal number. `none` for 0.
    pub fn names(&self, mask: u32) -> String {
        let mut left = mask;
        let mut names = String::new();
        let mut push = |name: &str| {
            if !names.is_empty() {
                names.push('|');
            }
            names.push_str(name);
        };
        for (mask, name) in &self.table {
            if left == 0 {
                break;
            }
            if left & mask == *mask {
                push(name);
                left &= !mask;
            }
        }
        if left != 0 {
            push(&format!("{left:#x}"));
        }
        if names.is_empty() { "none".to_owned() } else { names }
    }
}

/// A value as a `gfp_t`, which has 32 bits: `~` may have set all higher bits.
fn mask(value: u64) -> Option<u32> {
    let high = value >> 32;
    if high != 0 && high != u64::from(u32::MAX) {
        return None;
    }
    u32::try_from(value & u64::from(u32::MAX)).ok()
}

#[cfg(test)]
mod tests;

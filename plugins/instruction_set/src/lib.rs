//! Which instruction set the loops of a process use: the widest that the processor has, or one that was asked for.
//!
//! The choice is made once for each process (for each plugin library in it) and holds to its end: the first of [`choose`] and
//! [`current`] makes it. The kernels follow it, and so do matrix products where `third_party/gemm` stands in for the crate `gemm`;
//! [`products`] tells. Everything else that Burn computes on the processor (element-wise operations and its own sums, through the crate
//! `macerator`) finds out for itself what there is.
//!
//! On processors other than x86-64 there is only [`InstructionSet::Plain`]: what every processor of the target has.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Instruction sets that loops are compiled for, from the narrowest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every processor of the target has.
    Plain,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, on top of AVX2 and FMA.
    Avx512,
}

/// Whether this processor has a feature. The macro of the standard library takes literals only.
macro_rules! features {
    ($detect:ident: $($name:tt),*) => {
        [$(($name, std::arch::$detect!($name))),*]
    };
}

/// The features of this processor that numbers or speed may depend on, and whether it has them.
#[cfg(target_arch = "x86_64")]
fn features() -> [(&'static str, bool); 11] {
    features!(is_x86_feature_detected:
        "sse4.1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16", "avx512fp16")
}

/// The features of this processor that numbers or speed may depend on, and whether it has them.
#[cfg(target_arch = "aarch64")]
fn features() -> [(&'static str, bool); 5] {
    features!(is_aarch64_feature_detected: "neon", "fp16", "bf16", "sve", "sve2")
}

/// The features of this processor that numbers or speed may depend on, and whether it has them.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> [(&'static str, bool); 0] {
    []
}

/// Names of the features of this processor that numbers or speed may depend on: `avx2`, `fma`, `avx512f`.
#[must_use]
pub fn processor_flags() -> Vec<&'static str> {
    let there = features().into_iter().filter(|(_, there)| *there);
    there.map(|(name, _)| name).collect()
}

impl InstructionSet {
    /// All, from the narrowest to the widest.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Avx2, Self::Avx512];

    /// Name in requests and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The one of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// Features that loops compiled for it use.
    #[must_use]
    pub const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Avx2 => &["avx2", "fma"],
            Self::Avx512 => &["avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"],
        }
    }

    /// Features that it needs and this processor lacks.
    #[must_use]
    pub fn lacks(self) -> Vec<&'static str> {
        let flags = processor_flags();
        let needs = self.needs().iter().copied();
        needs.filter(|name| !flags.contains(name)).collect()
    }

    /// The widest that this processor has.
    #[must_use]
    pub fn widest() -> Self {
        let there = |set: &Self| set.lacks().is_empty();
        Self::ALL.into_iter().rfind(there).unwrap_or(Self::Plain)
    }

    const fn code(self) -> u8 {
        self as u8 + 1
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Plain),
            2 => Some(Self::Avx2),
            3 => Some(Self::Avx512),
            _ => None,
        }
    }
}

/// The code of what was chosen; 0 before.
static CHOSEN: AtomicU8 = AtomicU8::new(0);
/// Whether a matrix product has asked.
static PRODUCTS: AtomicBool = AtomicBool::new(false);

/// The instruction set of this process; the widest, and that to the end, if none was chosen before.
#[inline]
#[must_use]
pub fn current() -> InstructionSet {
    match InstructionSet::from_code(CHOSEN.load(Ordering::Relaxed)) {
        Some(set) => set,
        None => settle(InstructionSet::widest()),
    }
}

/// What was chosen before, or this from now on.
#[cold]
fn settle(set: InstructionSet) -> InstructionSet {
    let before = CHOSEN.compare_exchange(0, set.code(), Ordering::Relaxed, Ordering::Relaxed);
    before.map_or_else(
        |code| InstructionSet::from_code(code).unwrap_or(set),
        |_| set,
    )
}

/// Chooses by name, `auto` (or nothing) for whatever is in force or else the widest; returns what is in force from now on.
///
/// # Errors
/// An unknown name, one that the processor lacks, or another one than this process already computes with.
pub fn choose(name: &str) -> Result<InstructionSet, ChoiceError> {
    if matches!(name, "" | "auto") {
        return Ok(current());
    }
    let wanted =
        InstructionSet::from_name(name).ok_or_else(|| ChoiceError::Unknown(name.into()))?;
    let lacks = wanted.lacks();
    if !lacks.is_empty() {
        return Err(ChoiceError::Lacking { wanted, lacks });
    }
    match settle(wanted) {
        set if set == wanted => Ok(set),
        chosen => Err(ChoiceError::Settled { wanted, chosen }),
    }
}

/// As [`current`], for whoever multiplies matrices: it makes [`products`] true.
#[inline]
#[must_use]
pub fn for_products() -> InstructionSet {
    if !PRODUCTS.load(Ordering::Relaxed) {
        PRODUCTS.store(true, Ordering::Relaxed);
    }
    current()
}

/// Whether a matrix product of this process has followed the choice.
#[must_use]
pub fn products() -> bool {
    PRODUCTS.load(Ordering::Relaxed)
}

/// Why an instruction set was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChoiceError {
    /// No instruction set has this name.
    Unknown(String),
    /// The processor cannot.
    Lacking {
        /// What was asked for.
        wanted: InstructionSet,
        /// The features that are missing.
        lacks: Vec<&'static str>,
    },
    /// The process has chosen already.
    Settled {
        /// What was asked for.
        wanted: InstructionSet,
        /// What is in force.
        chosen: InstructionSet,
    },
}

impl fmt::Display for ChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                let known = InstructionSet::ALL.map(InstructionSet::name).join(", ");
                write!(
                    f,
                    "kernels \"{name}\" are not known; there are: auto, {known}"
                )
            }
            Self::Lacking { wanted, lacks } => write!(
                f,
                "kernels \"{}\" need {}, which this processor lacks; the widest it can run is \"{}\" (auto)",
                wanted.name(),
                lacks.join(", "),
                InstructionSet::widest().name()
            ),
            Self::Settled { wanted, chosen } => write!(
                f,
                "kernels \"{}\" were asked for, but this process already computes with \"{}\": they are chosen once for each process",
                wanted.name(),
                chosen.name()
            ),
        }
    }
}

impl std::error::Error for ChoiceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_back_and_every_need_is_a_feature_that_is_looked_for() {
        let known: Vec<&str> = features().into_iter().map(|(name, _)| name).collect();
        for set in InstructionSet::ALL {
            assert_eq!(InstructionSet::from_name(set.name()), Some(set));
            assert_eq!(InstructionSet::from_code(set.code()), Some(set));
            if cfg!(target_arch = "x86_64") {
                assert!(set.needs().iter().all(|need| known.contains(need)));
            }
        }
        assert_eq!(InstructionSet::from_code(0), None);
    }

    /// The oracle is the operating system: it lists features under names of its own, without the dots.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn flags_are_those_that_the_operating_system_lists() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let line = text.lines().find(|line| line.starts_with("flags")).unwrap();
        let listed: Vec<&str> = line.split_whitespace().collect();
        let spelled = |name: &str| match name {
            "sse4.1" => "sse4_1".to_owned(),
            "avx512bf16" | "avx512fp16" => name.replacen("avx512", "avx512_", 1),
            name => name.to_owned(),
        };
        for (name, there) in features() {
            assert_eq!(listed.contains(&spelled(name).as_str()), there, "{name}");
        }
    }

    #[test]
    fn a_refusal_says_what_can_be_done() {
        let text = choose("avx3").unwrap_err().to_string();
        assert!(text.contains("auto, plain, avx2, avx512"), "{text}");
        let lacking = ChoiceError::Lacking {
            wanted: InstructionSet::Avx512,
            lacks: vec!["avx512f", "avx512bw"],
        };
        let text = lacking.to_string();
        assert!(text.contains("\"avx512\" need avx512f, avx512bw"), "{text}");
        for set in InstructionSet::ALL
            .into_iter()
            .filter(|set| !set.lacks().is_empty())
        {
            assert!(matches!(
                choose(set.name()),
                Err(ChoiceError::Lacking { .. })
            ));
        }
    }
}

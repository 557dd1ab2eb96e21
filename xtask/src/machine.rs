//! The hardware that a figure belongs to.

/// Name of the processor as the system tells it; empty where it does not.
pub(crate) fn processor() -> String {
    processor_fact("model name")
}

/// What the system tells of the processor under a key such as `cpu family`; empty where it does not.
pub(crate) fn processor_fact(key: &str) -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let fact = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key);
    fact.map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// The widest vector instructions of the processor that either side may use.
pub(crate) fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "AVX2 + FMA";
        }
    }
    std::env::consts::ARCH
}

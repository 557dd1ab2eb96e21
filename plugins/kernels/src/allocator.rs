//! Keeps freed tensor memory in the process.

/// Makes glibc keep large freed buffers instead of returning them to the kernel; returns whether it could.
///
/// By default glibc maps every buffer above 128 KiB afresh, so that each tensor of a training step pays for page faults
/// and zeroing. Call once, early, in the main program: a plugin shares the allocator of its host. The price is that the
/// process keeps its peak memory.
///
/// Does nothing where the allocator is not glibc's.
pub fn tune_allocator() -> bool {
    tune()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn tune() -> bool {
    // Measured with 2 threads on a training step of three norm-linear-GELU-dropout-linear blocks, 10,240 rows of 128:
    // 450 -> 330 ms, whether the step runs on the main thread or on another.
    const TOP_PAD_BYTES: libc::c_int = 256 << 20;
    // mallopt takes an int, so 2 GiB is as good as "never".
    let settings = [
        (libc::M_MMAP_THRESHOLD, libc::c_int::MAX),
        (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
        (libc::M_TOP_PAD, TOP_PAD_BYTES),
    ];
    settings.into_iter().all(|(name, value)| {
        // SAFETY: mallopt takes two integers and may be called from any thread at any time.
        unsafe { libc::mallopt(name, value) == 1 }
    })
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn tune() -> bool {
    false
}

#[cfg(test)]
mod tests {
    #[test]
    fn tuning_succeeds_exactly_where_the_allocator_is_glibc() {
        assert_eq!(
            super::tune_allocator(),
            cfg!(all(target_os = "linux", target_env = "gnu"))
        );
    }
}

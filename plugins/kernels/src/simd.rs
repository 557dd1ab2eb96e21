//! One source, several instruction sets: compiles a function for each and picks at run time the one that the process has chosen.
//!
//! All kernels call fused multiply-add explicitly and fix the order of their sums, so that the bits of a result do not
//! depend on the instruction set. A processor without such an instruction (x86 before 2013) is right, but slow. Matrix products
//! are those of `third_party/gemm`, here and in Burn, in the same set: plain loops round a product before they add it, the others fuse the
//! two, and long sums are cut by the sizes of caches. So their last bits may differ from one set and one processor to another, never with
//! the number of threads.
//!
//! * **AVX-512**: the same bodies in the same eight lanes, for the thirty-two registers and the masks, and for what compilers make of
//!   element-wise loops. Sixteen lanes would be other bits than AVX2, as every sum, product and maximum is cut into eight lanes and that
//!   cut is part of the result.
//! * **ARM (aarch64)**: vectors (NEON) and fused multiply-add belong to the base of the target, so compilers turn the arrays of eight
//!   numbers of [`Level::Plain`] into them. No code here names an ARM instruction.
//!
//! Tests run every level that their processor has and compare bits. Plain and AVX2 are tested so; AVX-512 has been compiled and not run,
//! and ARM has been neither, for want of the machines.

pub(crate) use equivbench_instruction_set::InstructionSet as Level;

/// The instruction set of this process: see [`equivbench_instruction_set::choose`].
#[inline]
pub(crate) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::forced() {
        return level;
    }
    equivbench_instruction_set::current()
}

/// Defines a function generic over a [`Scalar`](crate::scalar::Scalar) whose body is compiled once per [`Level`].
///
/// `fn name<T, L>(...)`: the body may use `T` and its [`Lanes`](crate::lanes::Lanes) `L`; callers write `name(...)` or
/// `name::<T>(...)`. Everything that the body calls must be `#[inline(always)]`, or small, to be compiled for the level too.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$scalar:ident, $lanes:ident>($($argument:ident: $kind:ty),* $(,)?) $(-> $output:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<$scalar: crate::scalar::Scalar>($($argument: $kind),*) $(-> $output)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters, reason = "element-wise bodies need no lanes")]
            fn body<$scalar: crate::scalar::Scalar, $lanes: crate::lanes::Lanes<$scalar>>($($argument: $kind),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512<$scalar: crate::scalar::Scalar>($($argument: $kind),*) $(-> $output)? {
                body::<$scalar, $scalar::Avx2>($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<$scalar: crate::scalar::Scalar>($($argument: $kind),*) $(-> $output)? {
                body::<$scalar, $scalar::Avx2>($($argument),*)
            }

            match crate::simd::level() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `level` names no set that the processor lacks; it has seen these instructions on this processor.
                crate::simd::Level::Avx512 => unsafe { avx512::<$scalar>($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                crate::simd::Level::Avx2 => unsafe { avx2::<$scalar>($($argument),*) },
                _ => body::<$scalar, [$scalar; crate::lanes::LANES]>($($argument),*),
            }
        }
    };
}

pub(crate) use simd;

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Level;

    /// 0 for the widest level, else one more than the number of the level.
    static FORCED: AtomicU8 = AtomicU8::new(0);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    pub(super) fn forced() -> Option<Level> {
        let forced = FORCED.load(Ordering::Relaxed);
        (forced != 0).then(|| Level::ALL[usize::from(forced) - 1])
    }

    /// Runs `work` once per level that the processor has. Tests that run meanwhile see the level change, which must not
    /// matter to them: results are the same at all levels.
    pub(crate) fn at_every_level<R>(mut work: impl FnMut() -> R) -> Vec<R> {
        let _guard = ONE_AT_A_TIME.lock();
        let widest = Level::ALL
            .iter()
            .position(|&known| known == super::level())
            .expect("the level is listed");
        let results = (0..=widest).map(|number| {
            FORCED.store(number as u8 + 1, Ordering::Relaxed);
            work()
        });
        let results = results.collect();
        FORCED.store(0, Ordering::Relaxed);
        results
    }
}

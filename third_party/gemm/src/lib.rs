//! The crate `gemm` finds out by itself which instructions the processor has, and offers no way to say it. This crate stands in for it
//! (`[patch.crates-io]`), for Burn as well as for the kernels: the same function, the same loops of `gemm-f32` and `gemm-f64`, but in the
//! instruction set that the process has chosen. Left to itself it takes the same loops as the crate `gemm`, and gives the same bits.
//!
//! * Not covered: 16-bit floats, which follow the processor, and sizes of blocks, which `gemm-common` takes from the sizes of its caches:
//!   they cut sums of more than some hundred terms. Complex numbers are left out, as nobody here multiplies them.
//! * On anything but x86-64 there is one set of loops, and they are those of the crate `gemm`.

use core::any::TypeId;

pub use gemm_common::{
    DEFAULT_WASM_SIMD128, Parallelism,
    gemm::{
        DEFAULT_LHS_PACKING_THRESHOLD_MULTI_THREAD, DEFAULT_LHS_PACKING_THRESHOLD_SINGLE_THREAD,
        DEFAULT_RHS_PACKING_THRESHOLD, DEFAULT_THREADING_THRESHOLD,
        get_lhs_packing_threshold_multi_thread, get_lhs_packing_threshold_single_thread,
        get_rhs_packing_threshold, get_threading_threshold, set_lhs_packing_threshold_multi_thread,
        set_lhs_packing_threshold_single_thread, set_rhs_packing_threshold,
        set_threading_threshold,
    },
    get_wasm_simd128, set_wasm_simd128,
};
#[cfg(feature = "f16")]
pub use gemm_f16::f16;

/// A product as the loops take it: `dst = alpha dst + beta lhs rhs`, `[m, k] [k, n]`, with a step between columns (`_cs`) and rows (`_rs`)
/// of each matrix.
#[derive(Clone, Copy)]
struct Product<T> {
    m: usize,
    n: usize,
    k: usize,
    dst: *mut T,
    dst_cs: isize,
    dst_rs: isize,
    read_dst: bool,
    lhs: *const T,
    lhs_cs: isize,
    lhs_rs: isize,
    rhs: *const T,
    rhs_cs: isize,
    rhs_rs: isize,
    alpha: T,
    beta: T,
    parallelism: Parallelism,
}

/// The function that the crates of one element type offer, for the processor to choose.
macro_rules! call {
    ($function:expr, $p:ident $(, $before:expr)?; $($after:expr),*) => {
        $function(
            $($before,)? $p.m, $p.n, $p.k, $p.dst, $p.dst_cs, $p.dst_rs, $p.read_dst, $p.lhs, $p.lhs_cs, $p.lhs_rs, $p.rhs, $p.rhs_cs,
            $p.rhs_rs, $p.alpha, $p.beta, false, false, false, $($after,)* $p.parallelism,
        )
    };
}

/// The loops of one element type in each instruction set; `$lanes` numbers fill 128 bits.
macro_rules! loops {
    ($name:ident, $scalar:ty, $loops:ident, $lanes:literal) => {
        mod $name {
            use super::*;

            #[cfg(target_arch = "x86_64")]
            macro_rules! set {
                ($set:ident, $simd:ident, $width:expr) => {
                    #[inline(never)]
                    pub(super) unsafe fn $set(p: Product<$scalar>) {
                        use gemm_common::simd::{$simd, MixedSimd};
                        use $loops::microkernel::$set::$name::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                        const WIDTH: usize = $width;
                        let simd = <$simd as MixedSimd<$scalar, $scalar, $scalar, $scalar>>::try_new();
                        let simd = simd.expect("instructions that the process has chosen are there");
                        // SAFETY: promised by the caller.
                        unsafe {
                            call!(
                                gemm_common::gemm::gemm_basic_generic::<_, $scalar, WIDTH, { MR_DIV_N * WIDTH }, NR, MR_DIV_N, H_M, H_N>,
                                p, simd; |a, b, c| a * b + c, &UKR, &H_UKR, false
                            );
                        }
                    }
                };
            }
            #[cfg(target_arch = "x86_64")]
            set!(scalar, Scalar, 1);
            #[cfg(target_arch = "x86_64")]
            set!(fma, V3, 2 * $lanes);
            #[cfg(all(target_arch = "x86_64", feature = "x86-v4"))]
            set!(avx512f, V4, 4 * $lanes);

            /// # Safety
            /// As [`gemm`](crate::gemm).
            pub(super) unsafe fn multiply(p: Product<$scalar>) {
                use equivbench_instruction_set::{InstructionSet, for_products};
                let set = for_products();
                // SAFETY: promised by the caller.
                unsafe {
                    match set {
                        #[cfg(target_arch = "x86_64")]
                        InstructionSet::Plain => scalar(p),
                        #[cfg(target_arch = "x86_64")]
                        InstructionSet::Avx2 => fma(p),
                        #[cfg(all(target_arch = "x86_64", feature = "x86-v4"))]
                        InstructionSet::Avx512 => avx512f(p),
                        #[allow(unreachable_patterns, reason = "depends on target and features")]
                        _ => call!($loops::gemm::$name::get_gemm_fn(), p;),
                    }
                }
            }
        }
    };
}
loops!(f32, f32, gemm_f32, 4);
loops!(f64, f64, gemm_f64, 2);

impl<T: Copy> Product<T> {
    /// The loops write the result along its columns, with steps that are not negative: other products are transposed or turned round.
    fn turned(mut self) -> Self {
        if self.dst_cs.abs() < self.dst_rs.abs() {
            self = Self {
                m: self.n,
                n: self.m,
                dst_cs: self.dst_rs,
                dst_rs: self.dst_cs,
                lhs: self.rhs,
                lhs_cs: self.rhs_rs,
                lhs_rs: self.rhs_cs,
                rhs: self.lhs,
                rhs_cs: self.lhs_rs,
                rhs_rs: self.lhs_cs,
                ..self
            };
        }
        let last = |count: usize, step: isize| count.saturating_sub(1) as isize * step;
        if self.dst_rs < 0 {
            self.dst = self.dst.wrapping_offset(last(self.m, self.dst_rs));
            self.lhs = self.lhs.wrapping_offset(last(self.m, self.lhs_rs));
            (self.dst_rs, self.lhs_rs) = (-self.dst_rs, -self.lhs_rs);
        }
        if self.dst_cs < 0 {
            self.dst = self.dst.wrapping_offset(last(self.n, self.dst_cs));
            self.rhs = self.rhs.wrapping_offset(last(self.n, self.rhs_cs));
            (self.dst_cs, self.rhs_cs) = (-self.dst_cs, -self.rhs_cs);
        }
        if self.lhs_cs < 0 {
            self.lhs = self.lhs.wrapping_offset(last(self.k, self.lhs_cs));
            self.rhs = self.rhs.wrapping_offset(last(self.k, self.rhs_rs));
            (self.lhs_cs, self.rhs_rs) = (-self.lhs_cs, -self.rhs_rs);
        }
        self
    }

    /// The same product, of elements of a type that turned out to be `T`.
    ///
    /// # Safety
    /// `U` is `T`.
    unsafe fn of<U: Copy>(self) -> Product<U> {
        debug_assert_eq!(size_of::<T>(), size_of::<U>());
        // SAFETY: the caller promises that it is one type under two names.
        let number = |x: T| unsafe { core::mem::transmute_copy::<T, U>(&x) };
        Product {
            m: self.m,
            n: self.n,
            k: self.k,
            dst: self.dst.cast(),
            dst_cs: self.dst_cs,
            dst_rs: self.dst_rs,
            read_dst: self.read_dst,
            lhs: self.lhs.cast(),
            lhs_cs: self.lhs_cs,
            lhs_rs: self.lhs_rs,
            rhs: self.rhs.cast(),
            rhs_cs: self.rhs_cs,
            rhs_rs: self.rhs_rs,
            alpha: number(self.alpha),
            beta: number(self.beta),
            parallelism: self.parallelism,
        }
    }
}

/// `dst = alpha dst + beta lhs rhs` of real matrices `[m, n]`, `[m, k]` and `[k, n]`, or `beta lhs rhs` unless `read_dst`; `_cs` and `_rs` are
/// steps from a column and from a row to the next, in elements. Conjugation, the last three switches, changes nothing in real numbers.
///
/// # Panics
/// If `T` is not `f32`, `f64` or, with that feature, `f16`.
///
/// # Safety
/// All elements of `lhs` and `rhs` can be read, all of `dst` written, and read if `read_dst`.
#[allow(
    clippy::too_many_arguments,
    reason = "the signature of the crate that it stands in for"
)]
pub unsafe fn gemm<T: Copy + 'static>(
    m: usize,
    n: usize,
    k: usize,
    dst: *mut T,
    dst_cs: isize,
    dst_rs: isize,
    read_dst: bool,
    lhs: *const T,
    lhs_cs: isize,
    lhs_rs: isize,
    rhs: *const T,
    rhs_cs: isize,
    rhs_rs: isize,
    alpha: T,
    beta: T,
    _conj_dst: bool,
    _conj_lhs: bool,
    _conj_rhs: bool,
    parallelism: Parallelism,
) {
    let product = Product {
        m,
        n,
        k,
        dst,
        dst_cs,
        dst_rs,
        read_dst,
        lhs,
        lhs_cs,
        lhs_rs,
        rhs,
        rhs_cs,
        rhs_rs,
        alpha,
        beta,
        parallelism,
    }
    .turned();
    let of = TypeId::of::<T>();
    // SAFETY: `T` is the type that was asked for, and the rest is promised by the caller.
    unsafe {
        if of == TypeId::of::<f32>() {
            return f32::multiply(product.of());
        }
        if of == TypeId::of::<f64>() {
            return f64::multiply(product.of());
        }
        #[cfg(feature = "f16")]
        if of == TypeId::of::<f16>() {
            let product: Product<f16> = product.of();
            return call!(gemm_f16::gemm::f16::get_gemm_fn(), product;);
        }
    }
    panic!("no product of matrices of {}", core::any::type_name::<T>());
}

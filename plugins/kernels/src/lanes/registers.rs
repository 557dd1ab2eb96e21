//! Small products in the registers of AVX2.
//!
//! Twelve sums, three inputs and one factor are all sixteen registers: compilers load two factors at once and then keep a
//! sum in memory, which halves the speed (measured: 36 instead of 76 billion operations per second on one core).

use std::arch::asm;
use std::arch::x86_64::__m256;

use super::ROWS;

/// Loads the factor of a row, `offset` bytes behind its place, and adds its products with the inputs to the sums of the row.
macro_rules! row {
    ($load:literal, $row:literal, $offset:literal) => {
        concat!(
            concat!($load, " {factor}, [{f", $row, "} + ", $offset, "]\n"),
            concat!("vfmadd231ps {s", $row, "0}, {factor}, {i0}\n"),
            concat!("vfmadd231ps {s", $row, "1}, {factor}, {i1}\n"),
            concat!("vfmadd231ps {s", $row, "2}, {factor}, {i2}"),
        )
    };
}

/// Loads the inputs, at that distance behind their places.
macro_rules! inputs {
    ($behind:literal) => {
        concat!(
            concat!("vmovups {i0}, [{p0}", $behind, "]\n"),
            concat!("vmovups {i1}, [{p1}", $behind, "]\n"),
            concat!("vmovups {i2}, [{p2}", $behind, "]"),
        )
    };
}

/// A function that adds one product of each row with each input to the sums, and loads factors by the instruction.
macro_rules! product {
    ($(#[$meta:meta])* $name:ident, $load:literal) => {
        $(#[$meta])*
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        pub(super) unsafe fn $name(
            [[s00, s01, s02], [s10, s11, s12], [s20, s21, s22], [s30, s31, s32]]: &mut [[__m256; 3]; ROWS],
            [f0, f1, f2, f3]: [*const f32; ROWS],
            [i0, i1, i2]: [__m256; 3],
        ) {
            // SAFETY: reads what the caller promises to be readable, and writes the registers that it names.
            unsafe {
                asm!(
                    row!($load, 0, 0), row!($load, 1, 0), row!($load, 2, 0), row!($load, 3, 0),
                    f0 = in(reg) f0, f1 = in(reg) f1, f2 = in(reg) f2, f3 = in(reg) f3,
                    i0 = in(ymm_reg) i0, i1 = in(ymm_reg) i1, i2 = in(ymm_reg) i2,
                    factor = out(ymm_reg) _,
                    s00 = inout(ymm_reg) *s00, s01 = inout(ymm_reg) *s01, s02 = inout(ymm_reg) *s02,
                    s10 = inout(ymm_reg) *s10, s11 = inout(ymm_reg) *s11, s12 = inout(ymm_reg) *s12,
                    s20 = inout(ymm_reg) *s20, s21 = inout(ymm_reg) *s21, s22 = inout(ymm_reg) *s22,
                    s30 = inout(ymm_reg) *s30, s31 = inout(ymm_reg) *s31, s32 = inout(ymm_reg) *s32,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
        }
    };
}

product!(
    /// See [`Lanes::add_scaled`](super::Lanes::add_scaled).
    ///
    /// # Safety
    /// The factors are readable.
    add_scaled,
    "vbroadcastss"
);
product!(
    /// See [`Lanes::add_products`](super::Lanes::add_products).
    ///
    /// # Safety
    /// The factors are readable for eight numbers each.
    add_products,
    "vmovups"
);

/// See [`Lanes::add_three_scaled`](super::Lanes::add_three_scaled).
///
/// # Safety
/// Factors and inputs are readable.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn add_three_scaled(
    [
        [s00, s01, s02],
        [s10, s11, s12],
        [s20, s21, s22],
        [s30, s31, s32],
    ]: &mut [[__m256; 3]; ROWS],
    [f0, f1, f2, f3]: [*const f32; ROWS],
    [p0, p1, p2]: [*const f32; 3],
    step: isize,
) {
    // SAFETY: reads what the caller promises to be readable, and writes the registers that it names.
    unsafe {
        asm!(
            inputs!(""), row!("vbroadcastss", 0, 0), row!("vbroadcastss", 1, 0), row!("vbroadcastss", 2, 0), row!("vbroadcastss", 3, 0),
            inputs!(" + {step}"), row!("vbroadcastss", 0, 4), row!("vbroadcastss", 1, 4), row!("vbroadcastss", 2, 4), row!("vbroadcastss", 3, 4),
            inputs!(" + 2*{step}"), row!("vbroadcastss", 0, 8), row!("vbroadcastss", 1, 8), row!("vbroadcastss", 2, 8), row!("vbroadcastss", 3, 8),
            f0 = in(reg) f0, f1 = in(reg) f1, f2 = in(reg) f2, f3 = in(reg) f3,
            p0 = in(reg) p0, p1 = in(reg) p1, p2 = in(reg) p2, step = in(reg) 4 * step,
            i0 = out(ymm_reg) _, i1 = out(ymm_reg) _, i2 = out(ymm_reg) _,
            factor = out(ymm_reg) _,
            s00 = inout(ymm_reg) *s00, s01 = inout(ymm_reg) *s01, s02 = inout(ymm_reg) *s02,
            s10 = inout(ymm_reg) *s10, s11 = inout(ymm_reg) *s11, s12 = inout(ymm_reg) *s12,
            s20 = inout(ymm_reg) *s20, s21 = inout(ymm_reg) *s21, s22 = inout(ymm_reg) *s22,
            s30 = inout(ymm_reg) *s30, s31 = inout(ymm_reg) *s31, s32 = inout(ymm_reg) *s32,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}

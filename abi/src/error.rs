//! The error that crosses the boundary: a code and a sentence.

use abi_stable::{
    StableAbi,
    std_types::{RResult, RString},
};

/// Codes of [`AbiError`]; a host treats an unknown code as [`code::OTHER`].
pub mod code {
    /// Anything without a code of its own.
    pub const OTHER: u32 = 1;
    /// The request or the batch is wrong: unknown size, missing field, wrong shape.
    pub const BAD_REQUEST: u32 = 2;
    /// The data are damaged, foreign or not finite.
    pub const BAD_DATA: u32 = 3;
    /// The device is not there or refuses.
    pub const DEVICE: u32 = 4;
    /// The capability is not offered.
    pub const UNSUPPORTED: u32 = 5;
    /// The plugin panicked; the guard of the author crate caught it.
    pub const PANIC: u32 = 101;
}

/// What went wrong inside a plugin.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiError {
    /// One of [`code`].
    pub code: u32,
    /// What was tried, on what, and what to do.
    pub message: RString,
}

/// Result of every call across the boundary.
pub type AbiResult<T> = RResult<T, AbiError>;

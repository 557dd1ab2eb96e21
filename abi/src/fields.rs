//! A batch says how it transforms: named arrays, each with its field kind.

use abi_stable::{
    StableAbi,
    std_types::{RSlice, RSliceMut, RStr},
};

/// How the entries of a field change when the sample is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Nothing changes: species, time, residue index.
    Invariant,
    /// The last axis has length 3 and rotates: positions, forces, velocities.
    Vector,
    /// The last three axes are a cubic grid, whose voxels are permuted by a cube rotation.
    VoxelGrid,
}

/// What the first axis of a field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One row for each sample of the batch.
    Sample,
    /// One row for each point (atom, residue); [`Batch::offsets`] says which rows belong to which sample.
    Point,
}

/// The element type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 32-bit float, native byte order.
    F32,
    /// 64-bit float, native byte order.
    F64,
    /// 64-bit signed integer, native byte order.
    I64,
}

/// Codes cross the boundary as `u32`, so that a new variant does not change a layout.
macro_rules! coded {
    ($type:ident { $($variant:ident = $code:literal),* }) => {
        impl $type {
            /// The code that crosses the boundary.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self { $(Self::$variant => $code),* }
            }
            /// The variant of a code, or `None` for a code of a newer version.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
coded!(FieldKind { Invariant = 0, Vector = 1, VoxelGrid = 2 });
coded!(Rows { Sample = 0, Point = 1 });
coded!(ElementType { F32 = 0, F64 = 1, I64 = 2 });

impl ElementType {
    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// One named array, read by the plugin. The memory belongs to the host and is aligned for its element type.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Field<'a> {
    /// Name, for example `positions`.
    pub name: RStr<'a>,
    /// [`FieldKind::code`].
    pub kind: u32,
    /// [`Rows::code`].
    pub rows: u32,
    /// [`ElementType::code`].
    pub element: u32,
    /// Row-major shape; the first axis counts samples or points.
    pub shape: RSlice<'a, u64>,
    /// The elements, `shape.product() * element.bytes()` bytes.
    pub bytes: RSlice<'a, u8>,
}

/// One named array that a dataset fills.
#[repr(C)]
#[derive(StableAbi)]
pub struct FieldMut<'a> {
    /// Name, for example `positions`.
    pub name: RStr<'a>,
    /// [`ElementType::code`].
    pub element: u32,
    /// Row-major shape; the first axis counts samples or points.
    pub shape: RSlice<'a, u64>,
    /// The elements to write.
    pub bytes: RSliceMut<'a, u8>,
}

/// Several samples side by side. Samples differ in their number of points; nothing is padded.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Batch<'a> {
    /// Number of samples.
    pub samples: u64,
    /// `[samples + 1]`: sample `s` owns the points `offsets[s]..offsets[s + 1]`.
    pub offsets: RSlice<'a, u64>,
    /// The arrays.
    pub fields: RSlice<'a, Field<'a>>,
}

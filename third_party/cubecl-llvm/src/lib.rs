//! Stand-in for `cubecl-llvm` that needs no LLVM.
//!
//! The real crate's build script downloads an LLVM distribution, which an offline build cannot do. `cubecl-cuda` links it
//! unconditionally but calls it only when its `cpp` feature is off. With `cpp` on, kernels become CUDA C++ that NVRTC
//! compiles on the user's machine, and nothing here runs. This crate has the items that `cubecl-cuda` 0.11.3 names, so that
//! it compiles; whatever reaches them anyway fails with a sentence that says what to do.

use cubecl_core::{Compiler, prelude::KernelDefinition};
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::{compiler::CompilationError, kernel::BufferIOAttr};

/// PTX target names.
pub mod nvptx {
    /// Versions of the PTX language.
    pub mod ptx_version {
        /// The PTX version of a driver; carried, never interpreted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct PtxVersion(i32);

        impl PtxVersion {
            /// Wraps the driver version.
            #[must_use]
            pub fn for_driver(driver: i32) -> Option<Self> {
                Some(Self(driver))
            }
        }

        impl core::fmt::Display for PtxVersion {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "driver{}", self.0)
            }
        }
    }
}

/// What the back ends share.
pub mod shared {
    /// Features that LLVM would withdraw.
    pub mod lowered_features {
        /// A GPU family.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA.
            Nvptx,
        }

        /// Withdraws device features that the LLVM back end lacks. Called only without the `cpp` feature.
        ///
        /// # Panics
        /// Always: the CUDA C++ back end keeps every feature and never calls this.
        pub fn restrict_features(_properties: &mut cubecl_core::ir::DeviceProperties, _target: GpuTarget) {
            panic!("this build has no LLVM: enable cubecl-cuda's `cpp` feature");
        }
    }
}

/// Code-generation target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// Host processor.
    #[default]
    Cpu,
    /// NVIDIA PTX.
    Nvptx,
}

/// The compiler that is not there.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// Code-generation target.
    pub target: LlvmTarget,
}

/// Options of the compiler.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD architecture.
    pub arch: Option<cubecl_core::ir::amd::GfxArch>,
    /// NVIDIA architecture.
    pub sm_arch: Option<cubecl_core::ir::nvidia::SmArch>,
    /// PTX version.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether kernel arguments are grid constants.
    pub grid_constants: bool,
    /// Keeps the struct open.
    pub reserved: (),
}

/// A compiled PTX module.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text, terminated by 0.
    pub ptx: Vec<core::ffi::c_char>,
    /// Name of the kernel.
    pub entrypoint: String,
    /// Intermediate representation.
    pub ir: String,
    /// Shared memory in bytes.
    pub shared_memory_size: usize,
    /// How each buffer is used.
    pub io: Vec<BufferIOAttr>,
}

/// The result of a compilation.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// PTX.
    NvptxCode(NvptxModule),
    /// Nothing: there is no LLVM.
    Unavailable,
}

impl core::fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("unavailable")
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _kernel: KernelDefinition, _options: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this build has no LLVM back end; use the CUDA C++ back end (cubecl-cuda feature `cpp`)".into(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

//! The root module of a plugin library.

use crate::{AbiResult, DatasetBox, ModelBox};
use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{RStr, RString},
};

/// What a plugin library exports. New fields go last, with a default.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef)))]
#[sabi(missing_field(panic))]
pub struct PluginRoot {
    /// `PluginDescriptor` as JSON.
    pub describe: extern "C" fn() -> AbiResult<RString>,
    /// Opens a model; the argument is a `ModelRequest` as JSON.
    pub open_model: extern "C" fn(RStr<'_>) -> AbiResult<ModelBox>,
    /// Opens a dataset; the argument is a `DatasetRequest` as JSON.
    #[sabi(last_prefix_field)]
    pub open_dataset: extern "C" fn(RStr<'_>) -> AbiResult<DatasetBox>,
}

impl RootModule for PluginRootRef {
    declare_root_module_statics! {PluginRootRef}
    const BASE_NAME: &'static str = "equivbench_plugin";
    const NAME: &'static str = "equivbench_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

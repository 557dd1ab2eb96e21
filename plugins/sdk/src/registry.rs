//! What a plugin library exports: its list of models and datasets, and the macros that make it loadable.

use crate::{
    DatasetPlugin, ModelPlugin, PluginError, PluginResult, Trainer, available_devices,
    dataset::Served, guard::guard,
};
use equivbench_abi::{
    self as abi, AbiResult, Dataset_TO, DatasetBox, Model_TO, ModelBox,
    abi_stable::{
        sabi_trait::TD_Opaque,
        std_types::{RStr, RString},
    },
    descriptor::{
        DatasetRequest, DatasetSummary, ModelDescriptor, ModelRequest, PluginDescriptor,
        SizeDescriptor,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// One model of a library, with its type erased.
pub struct ModelEntry {
    describe: fn() -> PluginResult<ModelDescriptor>,
    open: fn(&ModelRequest) -> PluginResult<ModelBox>,
    name: &'static str,
}

impl ModelEntry {
    /// The entry of a model type.
    #[must_use]
    pub const fn of<M: ModelPlugin>() -> Self {
        Self {
            describe: describe_model::<M>,
            open: open_one::<M>,
            name: M::NAME,
        }
    }
}

/// One dataset of a library, with its type erased.
pub struct DatasetEntry {
    describe: fn() -> PluginResult<DatasetSummary>,
    open: fn(&DatasetRequest) -> PluginResult<DatasetBox>,
    name: &'static str,
}

impl DatasetEntry {
    /// The entry of a dataset type.
    #[must_use]
    pub const fn of<D: DatasetPlugin>() -> Self {
        Self {
            describe: describe_dataset::<D>,
            open: open_data::<D>,
            name: D::NAME,
        }
    }
}

fn describe_model<M: ModelPlugin>() -> PluginResult<ModelDescriptor> {
    let sizes = M::sizes().into_iter().map(|(name, config)| {
        let parameters = M::parameter_count(&config);
        Ok(SizeDescriptor {
            name: name.into(),
            parameters,
            config: to_json(&config)?.into(),
        })
    });
    Ok(ModelDescriptor {
        name: M::NAME.into(),
        about: M::ABOUT.into(),
        sizes: sizes.collect::<PluginResult<_>>()?,
        tasks: M::TASKS.iter().map(|&t| t.into()).collect(),
        default_datasets: M::DEFAULT_DATASETS.iter().map(|&d| d.into()).collect(),
        symmetry: M::SYMMETRY.into(),
        inputs: M::inputs(),
        output: M::output(),
        capabilities: M::CAPABILITIES.iter().map(|&c| c.into()).collect(),
    })
}

fn open_one<M: ModelPlugin>(request: &ModelRequest) -> PluginResult<ModelBox> {
    Ok(Model_TO::from_value(
        Trainer::<M>::open(request)?,
        TD_Opaque,
    ))
}

fn describe_dataset<D: DatasetPlugin>() -> PluginResult<DatasetSummary> {
    Ok(DatasetSummary {
        name: D::NAME.into(),
        about: D::ABOUT.into(),
        tasks: D::TASKS.iter().map(|&t| t.into()).collect(),
        embedded: D::EMBEDDED.map(Into::into),
        options: to_json(&D::Options::default())?.into(),
    })
}

fn open_data<D: DatasetPlugin>(request: &DatasetRequest) -> PluginResult<DatasetBox> {
    let options: D::Options = merge("dataset", &D::Options::default(), &request.options)?;
    Ok(Dataset_TO::from_value(
        Served(D::open_for(options, request)?),
        TD_Opaque,
    ))
}

/// The `describe` function of a root module.
pub fn describe_plugin(
    name: &str,
    version: &str,
    models: &[ModelEntry],
    datasets: &[DatasetEntry],
) -> AbiResult<RString> {
    guard(|| {
        to_json(&PluginDescriptor {
            name: name.into(),
            version: version.into(),
            abi_version: abi::ABI_VERSION.into(),
            models: models
                .iter()
                .map(|m| (m.describe)())
                .collect::<PluginResult<_>>()?,
            datasets: datasets
                .iter()
                .map(|d| (d.describe)())
                .collect::<PluginResult<_>>()?,
            devices: available_devices(),
        })
    })
}

/// The `open_model` function of a root module.
pub fn open_model(request: RStr<'_>, models: &[ModelEntry]) -> AbiResult<ModelBox> {
    guard(|| {
        let request: ModelRequest = from_json(request.as_str())?;
        let names = || models.iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
        let entry = models.iter().find(|m| m.name == request.model);
        let entry = entry.ok_or_else(|| {
            PluginError::BadRequest(format!(
                "no model \"{}\" here; there are: {}",
                request.model,
                names()
            ))
        })?;
        (entry.open)(&request)
    })
}

/// The `open_dataset` function of a root module.
pub fn open_dataset(request: RStr<'_>, datasets: &[DatasetEntry]) -> AbiResult<DatasetBox> {
    guard(|| {
        let request: DatasetRequest = from_json(request.as_str())?;
        let names = || {
            datasets
                .iter()
                .map(|d| d.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let entry = datasets.iter().find(|d| d.name == request.dataset);
        let entry = entry.ok_or_else(|| {
            PluginError::BadRequest(format!(
                "no dataset \"{}\" here; there are: {}",
                request.dataset,
                names()
            ))
        })?;
        (entry.open)(&request)
    })
}

/// A document for the boundary.
pub(crate) fn to_json<T: Serialize>(value: &T) -> PluginResult<RString> {
    serde_json::to_string(value)
        .map(Into::into)
        .map_err(|e| PluginError::Other(format!("a descriptor could not be written: {e}")))
}

fn from_json<T: DeserializeOwned>(text: &str) -> PluginResult<T> {
    serde_json::from_str(text)
        .map_err(|e| PluginError::BadRequest(format!("the request could not be read: {e}")))
}

/// Lays the keys of a JSON object over a value. Unknown keys are refused with the nearest known one.
pub(crate) fn merge<T: Serialize + DeserializeOwned>(
    section: &str,
    base: &T,
    overrides: &str,
) -> PluginResult<T> {
    use serde_json::Value;
    let bad = |what: String| PluginError::BadRequest(format!("[{section}] {what}"));
    let mut merged = serde_json::to_value(base).map_err(|e| bad(e.to_string()))?;
    if !overrides.is_empty() {
        let Value::Object(over) =
            serde_json::from_str(overrides).map_err(|e| bad(e.to_string()))?
        else {
            return Err(bad("overrides must be a table of keys".into()));
        };
        let Value::Object(keys) = &mut merged else {
            return Err(bad("there is nothing to override".into()));
        };
        for (key, value) in over {
            if !keys.contains_key(&key) {
                let nearest = keys
                    .keys()
                    .min_by_key(|known| strsim::damerau_levenshtein(known, &key))
                    .cloned()
                    .unwrap_or_default();
                let known = keys.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(bad(format!(
                    "key \"{key}\" is not known; did you mean \"{nearest}\"? Known keys: {known}"
                )));
            }
            keys.insert(key, value);
        }
    }
    serde_json::from_value(merged).map_err(|e| bad(e.to_string()))
}

/// Exports one model: `export_model!(PointMlp);`.
#[macro_export]
macro_rules! export_model {
    ($model:ty) => {
        $crate::export_plugin! { name = <$model as $crate::ModelPlugin>::NAME, models = [$model], datasets = [] }
    };
}

/// Exports one dataset: `export_dataset!(SpringCloud);`.
#[macro_export]
macro_rules! export_dataset {
    ($dataset:ty) => {
        $crate::export_plugin! { name = <$dataset as $crate::DatasetPlugin>::NAME, models = [], datasets = [$dataset] }
    };
}

/// Exports a library of several models and datasets: `export_plugin! { name = "mine", models = [A, B], datasets = [C] }`.
#[macro_export]
macro_rules! export_plugin {
    (name = $name:expr, models = [$($model:ty),* $(,)?], datasets = [$($dataset:ty),* $(,)?]) => {
        const _: () = {
            use $crate::private::abi;
            use abi::abi_stable::{
                library::{CheckTypeLayout, LibHeader, RootModuleResult, __call_root_module_loader},
                prefix_type::PrefixTypeTrait,
                std_types::{RStr, RString},
            };
            static MODELS: &[$crate::private::ModelEntry] = &[$($crate::private::ModelEntry::of::<$model>()),*];
            static DATASETS: &[$crate::private::DatasetEntry] = &[$($crate::private::DatasetEntry::of::<$dataset>()),*];
            extern "C" fn describe() -> abi::AbiResult<RString> {
                $crate::private::describe_plugin($name, env!("CARGO_PKG_VERSION"), MODELS, DATASETS)
            }
            extern "C" fn open_model(request: RStr<'_>) -> abi::AbiResult<abi::ModelBox> {
                $crate::private::open_model(request, MODELS)
            }
            extern "C" fn open_dataset(request: RStr<'_>) -> abi::AbiResult<abi::DatasetBox> {
                $crate::private::open_dataset(request, DATASETS)
            }
            fn root() -> abi::PluginRootRef {
                abi::PluginRoot { describe, open_model, open_dataset }.leak_into_prefix()
            }
            extern "C" fn erased_root() -> RootModuleResult {
                __call_root_module_loader(root)
            }
            // The hand-written form of `#[export_root_module]`, which would need `abi_stable` as a direct dependency.
            // SAFETY: the name is reserved by abi_stable for exactly this static, and one library exports one plugin.
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals)]
            pub static _1as_0lib_1header_0root_bmodule_bloader: LibHeader =
                // SAFETY: `erased_root` returns the root module of the type that is named here.
                unsafe { LibHeader::from_constructor::<abi::PluginRootRef>(erased_root, CheckTypeLayout::Yes) };
        };
    };
}

//! What is checked, and how it is opened.

use crate::verdict::{Kind, Stop, fail};
use equivbench_abi::descriptor::{DatasetRequest, ModelDescriptor, ModelRequest, PluginDescriptor};
use equivbench_host::{HostError, Library, LoadedDataset, LoadedModel};
use serde::{Deserialize, Serialize};

/// A model or a dataset of a library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    /// A model in one of its sizes.
    Model {
        /// Name of the model family.
        model: String,
        /// Named size; empty for the first.
        #[serde(default)]
        size: String,
        /// Configuration overrides, a JSON object as text; may be empty.
        #[serde(default)]
        config: String,
        /// Device; empty for the processor.
        #[serde(default)]
        device: String,
    },
    /// A dataset.
    Dataset {
        /// Name of the dataset family.
        dataset: String,
        /// Options, a JSON object as text; may be empty.
        #[serde(default)]
        options: String,
    },
}

impl Target {
    /// What kind of target it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Model { .. } => Kind::Model,
            Self::Dataset { .. } => Kind::Dataset,
        }
    }
}

/// Everything there is to check in a library: each model in its smallest size, each dataset that carries data inside. A dataset that
/// needs files is checked with the options that name them.
#[must_use]
pub fn targets(descriptor: &PluginDescriptor) -> Vec<Target> {
    let models = descriptor.models.iter().map(|model| Target::Model {
        model: model.name.clone(),
        size: model
            .sizes
            .iter()
            .min_by_key(|s| s.parameters)
            .map_or(String::new(), |s| s.name.clone()),
        config: String::new(),
        device: String::new(),
    });
    let datasets = descriptor
        .datasets
        .iter()
        .filter(|dataset| dataset.embedded.is_some())
        .map(|dataset| Target::Dataset {
            dataset: dataset.name.clone(),
            options: String::new(),
        });
    models.chain(datasets).collect()
}

/// A model that is checked.
pub(crate) struct ModelSubject<'a> {
    library: &'a Library,
    pub(crate) descriptor: &'a ModelDescriptor,
    request: ModelRequest,
}

impl<'a> ModelSubject<'a> {
    pub(crate) fn new(library: &'a Library, target: &Target) -> Result<Self, Stop> {
        let Target::Model {
            model,
            size,
            config,
            device,
        } = target
        else {
            return fail("the target is no model");
        };
        let Some(descriptor) = library.descriptor.models.iter().find(|m| m.name == *model) else {
            return fail(format!(
                "there is no model \"{model}\" in {}",
                library.path.display()
            ));
        };
        let request = ModelRequest {
            model: model.clone(),
            size: size.clone(),
            config: config.clone(),
            seed: 1,
            device: device.clone(),
            steps_per_epoch: 10,
            total_steps: 1000,
            ..ModelRequest::default()
        };
        Ok(Self {
            library,
            descriptor,
            request,
        })
    }

    /// The request with which instances are opened.
    pub(crate) fn request(&self) -> ModelRequest {
        self.request.clone()
    }

    /// Opens an instance with a request of its own.
    pub(crate) fn open_with(&self, request: &ModelRequest) -> Result<LoadedModel, HostError> {
        self.library.open_model(request)
    }

    /// A fresh instance in f32, the precision in which models are trained.
    pub(crate) fn open(&self) -> Result<LoadedModel, HostError> {
        self.open_with(&ModelRequest {
            precision: "f32".into(),
            ..self.request()
        })
    }

    /// A fresh instance in f32 with overrides of its recipe.
    pub(crate) fn open_recipe(&self, recipe: &str) -> Result<LoadedModel, HostError> {
        self.open_with(&ModelRequest {
            precision: "f32".into(),
            recipe: recipe.into(),
            ..self.request()
        })
    }

    /// A fresh instance in f64 if the model can, else in f32.
    pub(crate) fn open_precise(&self) -> Result<LoadedModel, HostError> {
        self.open_with(&ModelRequest {
            precision: "f64".into(),
            ..self.request()
        })
        .or_else(|_| self.open())
    }
}

/// A dataset that is checked.
pub(crate) struct DatasetSubject<'a> {
    library: &'a Library,
    request: DatasetRequest,
}

impl<'a> DatasetSubject<'a> {
    pub(crate) fn new(library: &'a Library, target: &Target) -> Self {
        let (dataset, options) = match target {
            Target::Dataset { dataset, options } => (dataset.clone(), options.clone()),
            Target::Model { .. } => Default::default(),
        };
        Self {
            library,
            request: DatasetRequest {
                dataset,
                options,
                seed: 1,
                ..DatasetRequest::default()
            },
        }
    }

    /// The request with which the dataset is opened.
    pub(crate) fn request(&self) -> DatasetRequest {
        self.request.clone()
    }

    /// Opens the dataset.
    pub(crate) fn open(&self) -> Result<LoadedDataset, HostError> {
        self.library.open_dataset(&self.request)
    }

    /// Opens the dataset with a request of its own.
    pub(crate) fn open_with(&self, request: &DatasetRequest) -> Result<LoadedDataset, HostError> {
        self.library.open_dataset(request)
    }
}

//! Fixtures of the three models as the harness sees them: the plugin with their weights, their samples, their rotations.

mod escaip;
mod proteina;
mod voxmol;

use crate::library;
use equivbench_abi::descriptor::{ModelRequest, ParameterDescriptor};
use equivbench_core::{Model, Rotation, RotationPlan, Supervised};
use equivbench_host::{Library, LoadedModel};
use equivbench_testkit::{Array, read_arrays, transpose};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// A reference model with its inputs and results.
pub struct Reference {
    /// Model family.
    pub model: &'static str,
    /// Name of the fixture.
    pub name: String,
    /// Its tensors.
    pub arrays: BTreeMap<String, Array>,
    /// What stands beside them.
    pub about: Value,
    /// The configuration in the words of the plugin.
    config: String,
}

impl Reference {
    /// The fixtures of a model: our own, and the reference's where they are there.
    ///
    /// # Panics
    /// For another model than the three, and where fixtures cannot be read.
    #[must_use]
    pub fn all(model: &'static str) -> Vec<Self> {
        let config: fn(&Value) -> Option<String> = match model {
            "escaip" => escaip::config,
            "proteina" => proteina::config,
            "voxmol" => voxmol::config,
            other => panic!("no fixtures of {other}"),
        };
        equivbench_testkit::fixtures(model, |path| Self::read(model, path, config))
    }

    fn read(
        model: &'static str,
        path: &Path,
        config: fn(&Value) -> Option<String>,
    ) -> Option<Self> {
        let text = std::fs::read_to_string(path).expect("a fixture can be read");
        let about: Value = serde_json::from_str(&text).expect("it is JSON");
        let file = path.file_name().expect("it has a name").to_string_lossy();
        let name = file.strip_suffix(".config.json")?.to_owned();
        let config = config(&about)?;
        Some(Self {
            model,
            arrays: read_arrays(&path.with_file_name(format!("{name}.safetensors"))),
            name,
            about,
            config,
        })
    }

    /// A tensor.
    ///
    /// # Panics
    /// Where there is none of that name.
    #[must_use]
    pub fn array(&self, name: &str) -> &Array {
        self.arrays
            .get(name)
            .unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }

    /// A number.
    #[must_use]
    pub fn scalar(&self, name: &str) -> f64 {
        self.array(name).values[0]
    }

    /// Inputs and targets.
    #[must_use]
    pub fn samples(&self) -> Supervised {
        match self.model {
            "escaip" => escaip::samples(self),
            "proteina" => proteina::samples(self),
            _ => voxmol::samples(self),
        }
    }

    /// The rotations of the fixture for every sample, as independent draws.
    #[must_use]
    pub fn plans(&self, samples: usize) -> Vec<RotationPlan> {
        let matrix =
            |m: &[f64]| Rotation([[m[0], m[1], m[2]], [m[3], m[4], m[5]], [m[6], m[7], m[8]]]);
        let rotations = self.array("in.rotations").values.chunks(9);
        let rotations: Vec<Rotation> = rotations.map(matrix).collect();
        let plan = RotationPlan {
            cosets: rotations.len(),
            rotations,
        };
        vec![plan; samples]
    }

    /// The plugin's model with the weights of the fixture.
    ///
    /// # Panics
    /// Where it cannot be opened.
    #[must_use]
    pub fn open(&self, precision: &str) -> LoadedModel {
        let plugin = Library::open(&library(&format!("equivbench_{}", self.model)))
            .expect("the plugin was built");
        let request = ModelRequest {
            model: self.model.into(),
            size: "nano".into(),
            config: self.config.clone(),
            precision: precision.into(),
            ..Default::default()
        };
        let mut model = plugin.open_model(&request).expect("it opens");
        let parameters = model.instance().parameters.iter();
        let values: Vec<f64> = parameters.flat_map(|p| self.weight(p)).collect();
        model.set_parameters("all", &values).expect("all weights");
        model
    }

    /// Whether a parameter lies transposed in the plugin: matrices `[in, out]`.
    fn is_transposed(&self, parameter: &ParameterDescriptor) -> bool {
        let is_matrix = parameter.shape.len() == 2;
        match self.model {
            "escaip" => is_matrix && escaip::is_transposed(&parameter.name),
            "proteina" => is_matrix && parameter.name.ends_with(".weight"),
            _ => false,
        }
    }

    fn weight(&self, parameter: &ParameterDescriptor) -> Vec<f64> {
        let array = self.array(&format!("w.{}", parameter.name));
        if self.is_transposed(parameter) {
            return transpose(&array.values, array.shape[0], array.shape[1]);
        }
        array.values.clone()
    }

    /// Where each scalar of a group of the plugin stands in the same parameters as the reference flattens them.
    ///
    /// # Panics
    /// For an unknown group.
    #[must_use]
    pub fn order(&self, model: &LoadedModel, group: &str) -> Vec<usize> {
        let instance = model.instance();
        let group = instance.groups.iter().find(|g| g.name == group);
        let mut first = 0;
        let mut order = Vec::new();
        for name in &group.expect("a group of the model").parameters {
            let parameter = instance.parameters.iter().find(|p| p.name == *name);
            let parameter = parameter.expect("a parameter of the model");
            let shape: Vec<usize> = parameter.shape.iter().map(|&n| n as usize).collect();
            let count: usize = shape.iter().product();
            order.extend((0..count).map(|at| match self.is_transposed(parameter) {
                true => first + at % shape[1] * shape[0] + at / shape[1],
                false => first + at,
            }));
            first += count;
        }
        order
    }
}

//! Per-atom multilayer perceptron: the smallest model that is not equivariant.

use burn::{
    nn::{Linear, LinearConfig},
    prelude::*,
    tensor::activation::silu,
};
use equivbench_plugin::{Batch, ModelPlugin, PluginResult, Recipe, export_model};

/// Sizes of the network.
#[derive(Config, Debug)]
pub struct PointMlpConfig {
    /// Width of the hidden layer.
    pub hidden: usize,
}

/// Predicts one vector per atom from the position of that atom alone.
#[derive(Module, Debug)]
pub struct PointMlp {
    lift: Linear,
    head: Linear,
}

impl ModelPlugin for PointMlp {
    type Config = PointMlpConfig;
    const NAME: &'static str = "point-mlp";
    const ABOUT: &'static str =
        "one MLP on the position of one atom: the smallest model that is not equivariant";
    const DEFAULT_DATASETS: &'static [&'static str] = &["spring-cloud"];

    fn sizes() -> Vec<(&'static str, PointMlpConfig)> {
        vec![
            ("tiny", PointMlpConfig::new(16)),
            ("small", PointMlpConfig::new(256)),
        ]
    }

    fn init(config: &PointMlpConfig, device: &Device) -> Self {
        Self {
            lift: LinearConfig::new(3, config.hidden).init(device),
            head: LinearConfig::new(config.hidden, 3).init(device),
        }
    }

    /// `positions [atoms, 3]` to `forces [atoms, 3]`.
    fn forward(&self, batch: &Batch) -> PluginResult<Tensor<2>> {
        Ok(self
            .head
            .forward(silu(self.lift.forward(batch.tensor("positions")?))))
    }

    fn recipe(_: &PointMlpConfig) -> Recipe {
        Recipe::adamw(1e-2)
    }
}

export_model!(PointMlp);

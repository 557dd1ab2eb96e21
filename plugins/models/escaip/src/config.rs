//! Sizes and switches of EScAIP, their checks, and the closed formula for the number of parameters.

use burn::config::Config;
use equivbench_plugin::{PluginError, PluginResult, Recipe};

/// Every size of the architecture. The letters are those of the published description.
#[derive(Config, Debug, PartialEq)]
pub struct EscaipConfig {
    /// Width `H` of node and edge states.
    pub hidden: usize,
    /// Attention heads `h`; divides `hidden`.
    pub heads: usize,
    /// Blocks `L`.
    pub layers: usize,
    /// Width `A` of the atom tables.
    #[config(default = 128)]
    pub atom_embedding: usize,
    /// Rows `E` of the atom tables: atomic numbers `1..E` are known.
    #[config(default = 110)]
    pub elements: usize,
    /// Gaussians `B` of the radial expansion.
    #[config(default = 600)]
    pub radial_functions: usize,
    /// Width `D` of the radial embedding.
    #[config(default = 512)]
    pub radial_embedding: usize,
    /// Bond-orientational orders `K`: l = 0..K.
    #[config(default = 10)]
    pub boo_orders: usize,
    /// Width `V` of their embedding.
    #[config(default = 64)]
    pub boo_embedding: usize,
    /// Cutoff radius in angstrom.
    #[config(default = 12.0)]
    pub cutoff: f64,
    /// Neighbour slots `M` of each atom.
    #[config(default = 20)]
    pub neighbours: usize,
    /// Hidden multiplier `f` of the feed-forward networks in the blocks.
    #[config(default = 2)]
    pub block_multiplier: usize,
    /// Hidden multiplier `r` of the readouts.
    #[config(default = 2)]
    pub readout_multiplier: usize,
    /// Hidden multiplier `o` of the output heads.
    #[config(default = 2)]
    pub output_multiplier: usize,
    /// Dropout of attention weights.
    #[config(default = 0.1)]
    pub attention_dropout: f64,
    /// Dropout after the affine maps.
    #[config(default = 0.05)]
    pub mlp_dropout: f64,
    /// Chance that a molecule skips an attention branch.
    #[config(default = 0.0)]
    pub stochastic_depth: f64,
    /// Whether the model has the energy head that the loss `reference` needs.
    #[config(default = true)]
    pub energy_head: bool,
}

impl EscaipConfig {
    /// The sizes that can be asked for by name; the first is the default.
    ///
    /// `6M` is the public configuration. The paper gives no configuration for `4M` and `1M`: these are the closest.
    /// `nano` is our own, for a run of minutes on two cores.
    #[must_use]
    pub fn named() -> Vec<(&'static str, Self)> {
        let nano = Self::new(32, 4, 2)
            .with_atom_embedding(16)
            .with_radial_functions(128)
            .with_radial_embedding(64)
            .with_boo_embedding(8)
            .with_neighbours(16)
            .with_attention_dropout(0.0)
            .with_mlp_dropout(0.0);
        vec![
            ("nano", nano),
            ("1M", Self::new(64, 8, 1)),
            ("4M", Self::new(128, 8, 4)),
            ("6M", Self::new(128, 8, 6)),
        ]
    }

    /// Width of the concatenated edge attributes: `D + 2V + 2A`.
    #[must_use]
    pub fn attributes(&self) -> usize {
        self.radial_embedding + 2 * self.boo_embedding + 2 * self.atom_embedding
    }

    /// Number of trained scalars, without building the model.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let affine = |a: usize, b: usize| a * b + b;
        let (h, layers) = (self.hidden, self.layers);
        let ffn = |multiplier: usize| affine(h, multiplier * h) + affine(multiplier * h, h);
        let tables = 2 * self.elements * self.atom_embedding;
        let embedding = tables
            + 2 * affine(self.boo_orders, self.boo_embedding)
            + affine(self.radial_functions, self.radial_embedding)
            + affine(self.attributes(), h);
        let input = embedding + ffn(1) + 3 * h;
        let attention = affine(h, 3 * h) + affine(h, h) + 1;
        let block =
            embedding + 2 * affine(2 * h, h) + attention + 2 * ffn(self.block_multiplier) + 3 * h;
        let readouts = (layers + 1) * (2 * ffn(self.readout_multiplier) + 2 * h);
        let projection = 2 * affine((layers + 1) * h, h) + 2 * (layers + 1) * h + 2 * h;
        let head = |outputs: usize| ffn(self.output_multiplier) + outputs * h;
        let energy = if self.energy_head { head(1) } else { 0 };
        (input + layers * block + readouts + projection + head(3) + head(1) + energy) as u64
    }

    /// Checks that the sizes can work together.
    ///
    /// # Errors
    /// Names the key and the remedy.
    pub fn validate(&self) -> PluginResult<()> {
        let bad = |what: String| Err(PluginError::BadRequest(format!("escaip: {what}")));
        let sizes = [
            ("hidden", self.hidden),
            ("heads", self.heads),
            ("layers", self.layers),
            ("atom_embedding", self.atom_embedding),
            ("radial_embedding", self.radial_embedding),
            ("boo_orders", self.boo_orders),
            ("boo_embedding", self.boo_embedding),
            ("neighbours", self.neighbours),
            ("block_multiplier", self.block_multiplier),
            ("readout_multiplier", self.readout_multiplier),
            ("output_multiplier", self.output_multiplier),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return bad(format!("{name} is 0; it must be at least 1"));
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return bad(format!(
                "hidden = {} is not divisible by heads = {}",
                self.hidden, self.heads
            ));
        }
        if self.elements < 2 {
            return bad(format!(
                "elements = {} leaves no atomic number; rows are needed for 1..elements",
                self.elements
            ));
        }
        if self.radial_functions < 2 {
            return bad(format!(
                "radial_functions = {} gives the expansion no spacing; use at least 2",
                self.radial_functions
            ));
        }
        if !(self.cutoff.is_finite() && self.cutoff > 0.0) {
            return bad(format!(
                "cutoff = {} must be a positive number of angstrom",
                self.cutoff
            ));
        }
        let dropouts = [
            ("attention_dropout", self.attention_dropout),
            ("mlp_dropout", self.mlp_dropout),
            ("stochastic_depth", self.stochastic_depth),
        ];
        match dropouts.iter().find(|(_, p)| !(0.0..1.0).contains(p)) {
            Some((name, p)) => bad(format!("{name} = {p} is not a probability below 1")),
            None => Ok(()),
        }
    }

    /// How this size is trained unless a suite says otherwise: the public recipe, and a faster one for `nano`-like sizes.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        let published = Recipe {
            lr: 1e-5,
            weight_decay: 0.01,
            no_decay: ["embedding", "bias", "frequencies"]
                .map(String::from)
                .to_vec(),
            clip_norm: 10.0,
            ema_decay: 0.999,
            schedule: "warmup-cosine".into(),
            warmup_epochs: 0.1,
            warmup_factor: 0.2,
            schedule_epochs: 30.0,
            min_factor: 0.5,
            batch_size: 64,
            epochs: 30.0,
            ..Recipe::default()
        };
        if self.hidden >= 64 {
            return published;
        }
        Recipe {
            lr: 2e-3,
            batch_size: 8,
            epochs: 4.0,
            schedule_epochs: 4.0,
            min_factor: 0.05,
            ..published
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closed_formula_gives_the_published_counts() {
        let count = |name: &str| {
            EscaipConfig::named()
                .into_iter()
                .find(|s| s.0 == name)
                .unwrap()
                .1
                .parameter_count()
        };
        assert_eq!(count("6M"), 6_137_222);
        assert_eq!(count("4M"), 4_374_660);
        assert_eq!(count("1M"), 997_889);
        let without = |h, heads, l| {
            EscaipConfig::new(h, heads, l)
                .with_energy_head(false)
                .parameter_count()
        };
        assert_eq!(
            [without(128, 8, 6), without(128, 8, 4), without(64, 8, 1)],
            [6_071_174, 4_308_612, 981_249]
        );
        assert_eq!(
            EscaipConfig::new(128, 8, 6)
                .with_output_multiplier(1)
                .parameter_count(),
            6_038_534
        );
    }

    #[test]
    fn impossible_sizes_are_refused_by_name() {
        let refused = |config: EscaipConfig| config.validate().unwrap_err().to_string();
        let base = || EscaipConfig::new(32, 4, 1);
        assert!(base().validate().is_ok());
        assert!(
            refused(EscaipConfig::new(30, 4, 1))
                .contains("hidden = 30 is not divisible by heads = 4")
        );
        assert!(refused(base().with_neighbours(0)).contains("neighbours is 0"));
        assert!(refused(base().with_elements(1)).contains("elements"));
        assert!(refused(base().with_cutoff(f64::NAN)).contains("cutoff"));
        assert!(refused(base().with_mlp_dropout(1.0)).contains("mlp_dropout"));
        assert!(refused(base().with_radial_functions(1)).contains("radial_functions"));
    }

    #[test]
    fn a_configuration_survives_json() {
        for (_, config) in EscaipConfig::named() {
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<EscaipConfig>(&text).unwrap(), config);
        }
    }
}

//! Sizes and switches of Proteina, their checks, and the closed formula for the number of parameters.

use burn::config::Config;
use equivbench_plugin::{PluginError, PluginResult, Recipe};

/// Every size of the architecture and of its losses. The letters are those of the published description.
#[derive(Config, Debug, PartialEq)]
pub struct ProteinaConfig {
    /// Width `d` of tokens.
    pub token_width: usize,
    /// Attention heads `h`; divides `token_width`.
    pub heads: usize,
    /// Trunk layers `L`.
    pub layers: usize,
    /// Width `c` of the conditioning vector.
    #[config(default = 512)]
    pub conditioning_width: usize,
    /// Width `p` of the pair representation.
    #[config(default = 256)]
    pub pair_width: usize,
    /// Hidden width `q` of the triangle multiplications.
    #[config(default = 196)]
    pub triangle_width: usize,
    /// Width of the embedding of the flow time.
    #[config(default = 256)]
    pub time_width: usize,
    /// Width of the embedding of the residue number, even.
    #[config(default = 128)]
    pub index_width: usize,
    /// Width of each of the three fold vectors.
    #[config(default = 256)]
    pub fold_width: usize,
    /// Classes of distances in the noisy cloud.
    #[config(default = 64)]
    pub position_bins: usize,
    /// First boundary of these classes.
    #[config(default = 0.1)]
    pub position_from_nm: f64,
    /// Last boundary of these classes.
    #[config(default = 3.0)]
    pub position_to_nm: f64,
    /// Classes of distances in the self-conditioning cloud.
    #[config(default = 128)]
    pub self_conditioning_bins: usize,
    /// First boundary of these classes.
    #[config(default = 0.1)]
    pub self_conditioning_from_nm: f64,
    /// Last boundary of these classes.
    #[config(default = 3.0)]
    pub self_conditioning_to_nm: f64,
    /// Classes of differences of residue numbers, odd.
    #[config(default = 127)]
    pub sequence_separation_bins: usize,
    /// Learnt tokens `r` in front of every chain.
    #[config(default = 10)]
    pub registers: usize,
    /// The pair representation is updated after every so many layers, but not after the last; 0 for never.
    #[config(default = 0)]
    pub update_every: usize,
    /// Order of the columns of the token features: index, chain break, self-conditioning if true, index, self-conditioning,
    /// chain break if false.
    #[config(default = true)]
    pub chain_break_first: bool,
    /// Chance that a training step of the loss `flow-matching` conditions on a first prediction of its own.
    #[config(default = 0.5)]
    pub self_conditioning_probability: f64,
    /// Weight of the distogram term of the loss `flow-matching`; it exists where the pair representation is updated.
    #[config(default = 1.0)]
    pub distogram_weight: f64,
    /// Classes of distances in the distogram, from 0 nm on.
    #[config(default = 64)]
    pub distogram_bins: usize,
    /// Last boundary of these classes.
    #[config(default = 1.0)]
    pub distogram_to_nm: f64,
    /// The distogram term is for flow times above this one.
    #[config(default = 0.3)]
    pub distogram_after: f64,
}

impl ProteinaConfig {
    /// The sizes that can be asked for by name; the first is the default.
    ///
    /// `60M` and `400M` are those of the paper. `nano` is our own, for a run of minutes on two cores.
    #[must_use]
    pub fn named() -> Vec<(&'static str, Self)> {
        let nano = Self::new(64, 4, 3)
            .with_conditioning_width(32)
            .with_pair_width(32)
            .with_triangle_width(32)
            .with_time_width(64)
            .with_index_width(32)
            .with_fold_width(16)
            .with_position_bins(32)
            .with_self_conditioning_bins(32)
            .with_sequence_separation_bins(65)
            .with_registers(4);
        let small = || Self::new(512, 8, 10);
        let large = |width, heads, layers| {
            Self::new(width, heads, layers)
                .with_pair_width(512)
                .with_chain_break_first(false)
        };
        vec![
            ("nano", nano),
            ("60M", small()),
            ("60M-tri", small().with_update_every(2)),
            ("200M", large(768, 12, 15)),
            ("200M-tri", large(768, 12, 15).with_update_every(3)),
            ("400M", large(1024, 16, 18).with_update_every(5)),
        ]
    }

    /// Whether the pair representation is updated after a layer.
    #[must_use]
    pub fn updates_after(&self, layer: usize) -> bool {
        self.update_every > 0 && layer + 1 < self.layers && layer.is_multiple_of(self.update_every)
    }

    /// Whether the pair representation is ever updated: then there is a distogram head.
    #[must_use]
    pub fn updates_pairs(&self) -> bool {
        (0..self.layers).any(|layer| self.updates_after(layer))
    }

    /// Columns of the token features: residue number, chain break, self-conditioning coordinates.
    pub(crate) fn sequence_features(&self) -> usize {
        self.index_width + 4
    }

    /// Rows of the pair features: sequence separation, distances of the self-conditioning cloud and of the noisy one.
    pub(crate) fn pair_features(&self) -> usize {
        self.sequence_separation_bins + self.self_conditioning_bins + self.position_bins
    }

    /// Number of trained scalars, without building the model.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let affine = |a: usize, b: usize| a * b + b;
        let (d, c, p, q) = (
            self.token_width,
            self.conditioning_width,
            self.pair_width,
            self.triangle_width,
        );
        let fold = 3 * self.fold_width;
        let conditioning = fold + (self.time_width + fold) * c + 2 * (4 * c * c + 2 * c * c);
        let tokens = (3 + self.sequence_features() + self.registers) * d;
        let adaptive = |width: usize| 2 * c + affine(c, width) + c * width;
        let pairs = self.pair_features() * p + 2 * p + self.time_width * c + 2 * c + adaptive(p);
        let attention =
            2 * d + affine(d, 3 * d) + 2 * affine(d, d) + 4 * d + 2 * p + p * self.heads;
        let layer = attention + 12 * d * d + 2 * (adaptive(d) + affine(c, d));
        let triangle = 2 * p + 4 * affine(p, q) + 2 * q + affine(q, p) + affine(p, p);
        let transition = 2 * p + affine(p, 2 * p) + affine(2 * p, p);
        let update = 2 * d + d * 2 * p + 2 * triangle + transition;
        let updates = (0..self.layers)
            .filter(|&layer| self.updates_after(layer))
            .count();
        let distogram = if self.updates_pairs() {
            2 * p + affine(p, self.distogram_bins)
        } else {
            0
        };
        (conditioning
            + tokens
            + pairs
            + self.layers * layer
            + updates * update
            + distogram
            + 2 * d
            + 3 * d) as u64
    }

    /// Checks that the sizes can work together.
    ///
    /// # Errors
    /// Names the key and the remedy.
    pub fn validate(&self) -> PluginResult<()> {
        self.check_sizes()
            .and_then(|()| self.check_bins())
            .and_then(|()| self.check_losses())
            .map_err(|e| {
                let text = format!("proteina: {e}");
                PluginError::BadRequest(text)
            })
    }

    fn check_sizes(&self) -> Result<(), String> {
        let least = [
            ("token_width", self.token_width, 1),
            ("heads", self.heads, 1),
            ("layers", self.layers, 1),
            ("conditioning_width", self.conditioning_width, 1),
            ("pair_width", self.pair_width, 1),
            ("triangle_width", self.triangle_width, 1),
            ("fold_width", self.fold_width, 1),
            ("registers", self.registers, 1),
            // The slowest phase is reached in time_width / 2 - 1 steps.
            ("time_width", self.time_width, 4),
            ("index_width", self.index_width, 2),
            // A class below, one above, and one between two boundaries.
            ("position_bins", self.position_bins, 3),
            ("self_conditioning_bins", self.self_conditioning_bins, 3),
            ("sequence_separation_bins", self.sequence_separation_bins, 3),
            ("distogram_bins", self.distogram_bins, 3),
        ];
        if let Some((name, size, least)) = least.iter().find(|(_, size, least)| size < least) {
            return Err(format!("{name} is {size}; it must be at least {least}"));
        }
        if !self.token_width.is_multiple_of(self.heads) {
            return Err(format!(
                "token_width = {} is not divisible by heads = {}",
                self.token_width, self.heads
            ));
        }
        if !self.index_width.is_multiple_of(2) {
            return Err(format!(
                "index_width = {} must be even: it holds sines and cosines",
                self.index_width
            ));
        }
        if self.sequence_separation_bins.is_multiple_of(2) {
            return Err(format!(
                "sequence_separation_bins = {} must be odd: 0 is the middle class",
                self.sequence_separation_bins
            ));
        }
        Ok(())
    }

    fn check_bins(&self) -> Result<(), String> {
        let ranges = [
            ("position", self.position_from_nm, self.position_to_nm),
            (
                "self_conditioning",
                self.self_conditioning_from_nm,
                self.self_conditioning_to_nm,
            ),
            ("distogram", 0.0, self.distogram_to_nm),
        ];
        match ranges
            .iter()
            .find(|(_, from, to)| !(from.is_finite() && to.is_finite() && from < to))
        {
            Some((name, from, to)) => Err(format!(
                "{name}_to_nm = {to} must be finite and above the first boundary, {from} nm"
            )),
            None => Ok(()),
        }
    }

    fn check_losses(&self) -> Result<(), String> {
        let p = self.self_conditioning_probability;
        if !(0.0..=1.0).contains(&p) {
            return Err(format!(
                "self_conditioning_probability = {p} is not a probability; use 0 to 1"
            ));
        }
        if !(self.distogram_weight.is_finite() && self.distogram_weight >= 0.0) {
            return Err(format!(
                "distogram_weight = {} must be finite and not negative",
                self.distogram_weight
            ));
        }
        if !(0.0..=1.0).contains(&self.distogram_after) {
            return Err(format!(
                "distogram_after = {} is not a flow time; use 0 to 1",
                self.distogram_after
            ));
        }
        Ok(())
    }

    /// How this size is trained unless a suite says otherwise: the public recipe, and a faster one for `nano`-like sizes.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        let published = Recipe {
            optimiser: "adam".into(),
            lr: 1e-4,
            clip_norm: 1.0,
            ema_decay: 0.999,
            loss: "flow-matching".into(),
            batch_size: 3,
            ..Recipe::default()
        };
        if self.token_width > 128 {
            return published;
        }
        Recipe {
            lr: 1e-3,
            batch_size: 4,
            epochs: 4.0,
            ..published
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> ProteinaConfig {
        ProteinaConfig::named()
            .into_iter()
            .find(|s| s.0 == name)
            .unwrap()
            .1
    }

    #[test]
    fn the_closed_formula_gives_the_published_counts() {
        let published = [
            ("60M", 64_641_280),
            ("60M-tri", 70_477_360),
            ("200M", 190_713_856),
            ("200M-tri", 207_614_512),
            ("400M", 397_191_168),
        ];
        for (name, count) in published {
            assert_eq!(named(name).parameter_count(), count, "{name}");
        }
        // The head is what the paper calls 1.5k parameters.
        assert_eq!(3 * named("60M").token_width, 1536);
    }

    #[test]
    fn pairs_are_updated_after_the_published_layers() {
        let layers = |name: &str| {
            (0..32)
                .filter(|&layer| named(name).updates_after(layer))
                .collect::<Vec<_>>()
        };
        assert_eq!(layers("60M-tri"), [0, 2, 4, 6, 8]);
        assert_eq!(layers("200M-tri"), [0, 3, 6, 9, 12]);
        assert_eq!(layers("400M"), [0, 5, 10, 15]);
        assert!(!named("60M").updates_pairs() && named("60M-tri").updates_pairs());
    }

    #[test]
    fn impossible_sizes_are_refused_by_name() {
        let refused = |config: ProteinaConfig| config.validate().unwrap_err().to_string();
        let base = || named("nano");
        assert!(
            ProteinaConfig::named()
                .iter()
                .all(|(_, config)| config.validate().is_ok())
        );
        assert!(
            refused(base().with_time_width(3)).contains("time_width is 3; it must be at least 4")
        );
        assert!(refused(base().with_registers(0)).contains("registers is 0"));
        assert!(
            refused(ProteinaConfig::new(30, 4, 1))
                .contains("token_width = 30 is not divisible by heads = 4")
        );
        assert!(refused(base().with_index_width(7)).contains("index_width = 7 must be even"));
        assert!(refused(base().with_sequence_separation_bins(64)).contains("must be odd"));
        assert!(refused(base().with_position_to_nm(0.1)).contains("position_to_nm"));
        assert!(refused(base().with_distogram_to_nm(f64::NAN)).contains("distogram_to_nm"));
        assert!(
            refused(base().with_self_conditioning_probability(1.5))
                .contains("self_conditioning_probability")
        );
        assert!(refused(base().with_distogram_weight(-1.0)).contains("distogram_weight"));
        assert!(refused(base().with_distogram_after(f64::NAN)).contains("distogram_after"));
    }

    #[test]
    fn a_configuration_survives_json() {
        for (_, config) in ProteinaConfig::named() {
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(
                serde_json::from_str::<ProteinaConfig>(&text).unwrap(),
                config
            );
        }
    }
}

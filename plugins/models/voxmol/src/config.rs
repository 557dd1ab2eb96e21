//! Sizes and switches of VoxMol, their checks, and the closed formula for the number of parameters.

use burn::config::Config;
use equivbench_plugin::{PluginError, PluginResult, Recipe};

/// Every size of the architecture. The letters are those of the published description.
#[derive(Config, Debug, PartialEq)]
pub struct VoxmolConfig {
    /// Base width `n`: channels of the first convolution and of the last norm.
    pub width: usize,
    /// Groups `g` of every group norm; divides `width`.
    pub groups: usize,
    /// Channels `C` of the density, one for each element.
    #[config(default = 8)]
    pub elements: usize,
    /// Widths of the levels, each relative to the level before: `m_0 … m_{L-1}`. A level has half the side of the one before.
    #[config(default = "vec![1, 2, 2, 4]")]
    pub multipliers: Vec<usize>,
    /// Whether the blocks of a level have attention: `a_0 … a_{L-1}`. The middle always has it.
    #[config(default = "vec![false, false, true, true]")]
    pub attention: Vec<bool>,
    /// Residual blocks `b` of a level on the way down; there is one more on the way up.
    #[config(default = 2)]
    pub blocks: usize,
    /// Chance that training drops an element in front of the second convolution of a residual block.
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Side `G` of the grids that the model is trained on; divisible by `2^(L-1)`. Batches may bring another such side.
    #[config(default = 64)]
    pub grid: usize,
}

impl VoxmolConfig {
    /// The sizes that can be asked for by name; the first is the default.
    ///
    /// `111M` is the published one; `28M` and `7M` halve its width once and twice. `nano` is our own, for a run of minutes on two
    /// cores.
    #[must_use]
    pub fn named() -> Vec<(&'static str, Self)> {
        let nano = Self::new(4, 2)
            .with_multipliers(vec![1, 2, 2])
            .with_attention(vec![false, false, true])
            .with_blocks(1)
            .with_grid(16);
        vec![
            ("nano", nano),
            ("7M", Self::new(8, 8)),
            ("28M", Self::new(16, 16)),
            ("111M", Self::new(32, 16)),
        ]
    }

    /// Number of levels `L`.
    pub(crate) fn levels(&self) -> usize {
        self.multipliers.len()
    }

    /// Channels of every level.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let wider = |width: &mut usize, by: &usize| {
            *width *= by;
            Some(*width)
        };
        self.multipliers.iter().scan(self.width, wider).collect()
    }

    /// Channels of the lowest level.
    pub(crate) fn deepest_width(&self) -> usize {
        self.width * self.multipliers.iter().product::<usize>()
    }

    /// What the side of a grid must be divisible by.
    pub(crate) fn shrinkage(&self) -> usize {
        1 << (self.levels() - 1)
    }

    /// Number of scalars in all parameters, those of the norms that are never used included, without building the model.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let conv = |taps: usize, from: usize, to: usize| taps * from * to + to;
        let residual = |from: usize, to: usize| {
            let shortcut = if from == to { 0 } else { conv(1, from, to) };
            2 * from + conv(27, from, to) + 2 * to + conv(27, to, to) + shortcut
        };
        let attention =
            |width: usize| 2 * width + conv(1, width, 3 * width) + conv(1, width, width);
        let n = self.width;
        let mut count = conv(27, self.elements, n) + 2 * n + conv(27, n, self.elements);
        let mut above = n;
        for (level, (width, attends)) in self.widths().into_iter().zip(&self.attention).enumerate()
        {
            let block = |from: usize, to: usize| {
                residual(from, to) + if *attends { attention(to) } else { 0 }
            };
            count += block(above, width) + (self.blocks - 1) * block(width, width);
            count += self.blocks * block(2 * width, width) + block(width + above, above);
            count += if level + 1 < self.levels() {
                conv(27, width, width)
            } else {
                0
            };
            count += if level > 0 { conv(64, above, above) } else { 0 };
            above = width;
        }
        (count + 2 * residual(above, above) + attention(above)) as u64
    }

    /// Checks that the sizes can work together.
    ///
    /// # Errors
    /// Names the key and the remedy.
    pub fn validate(&self) -> PluginResult<()> {
        self.check_sizes()
            .and_then(|()| self.check_levels())
            .and_then(|()| self.check_count())
            .map_err(|e| PluginError::BadRequest(format!("voxmol: {e}")))
    }

    fn check_sizes(&self) -> Result<(), String> {
        let sizes = [
            ("width", self.width),
            ("groups", self.groups),
            ("elements", self.elements),
            ("blocks", self.blocks),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("{name} is 0; it must be at least 1"));
        }
        if !self.width.is_multiple_of(self.groups) {
            return Err(format!(
                "width = {} is not divisible by groups = {}",
                self.width, self.groups
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!(
                "dropout = {} is not a chance that leaves something; use 0 to below 1",
                self.dropout
            ));
        }
        Ok(())
    }

    /// The formula of [`parameter_count`](Self::parameter_count) from above, in numbers that cannot overflow.
    fn check_count(&self) -> Result<(), String> {
        /// Thirty times the largest published size; it would fill 160 GB with the moments of an optimiser.
        const MOST: f64 = 1e10;
        let deepest = self
            .multipliers
            .iter()
            .fold(self.width as f64, |width, &by| width * by as f64);
        let levels = self.levels() as f64;
        // A block holds three convolutions at most, each of 27 taps between twice the deepest width and the deepest.
        let above = 162.0 * deepest * deepest * levels * (2.0 * self.blocks as f64 + 4.0)
            + 54.0 * self.width as f64 * self.elements as f64;
        if above > MOST
            && (deepest > 1e6
                || self.blocks > 1000
                || self.elements > 100_000
                || self.parameter_count() as f64 > MOST)
        {
            return Err(format!(
                "width = {}, multipliers = {:?}, blocks = {} and elements = {} need more than {MOST:.0e} parameters; lower them",
                self.width, self.multipliers, self.blocks, self.elements
            ));
        }
        Ok(())
    }

    fn check_levels(&self) -> Result<(), String> {
        /// Deeper, a side would not fit into memory.
        const MOST: usize = 16;
        let levels = self.levels();
        if !(1..=MOST).contains(&levels) || self.multipliers.contains(&0) {
            return Err(format!(
                "multipliers = {:?}; use 1 to {MOST} numbers, each at least 1",
                self.multipliers
            ));
        }
        if self.attention.len() != levels {
            let flags = self.attention.len();
            return Err(format!(
                "attention has {flags} flags, multipliers {levels} levels; give one flag for each level"
            ));
        }
        if self.grid == 0 || !self.grid.is_multiple_of(self.shrinkage()) {
            return Err(format!(
                "grid = {} is not divisible by {}, as {levels} levels need",
                self.grid,
                self.shrinkage()
            ));
        }
        Ok(())
    }

    /// How this size is trained unless a suite says otherwise: the public recipe, and a faster one for `nano`-like sizes.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        let published = Recipe {
            optimiser: "adamw".into(),
            lr: 2e-5,
            beta1: 0.99,
            beta2: 0.999,
            eps: 0.0,
            weight_decay: 1e-2,
            ema_decay: 0.999,
            loss: "sse".into(),
            batch_size: 64,
            ..Recipe::default()
        };
        if self.deepest_width() > 64 {
            return published;
        }
        Recipe {
            lr: 2e-3,
            beta1: 0.9,
            ema_decay: 0.99,
            batch_size: 8,
            epochs: 4.0,
            ..published
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> VoxmolConfig {
        VoxmolConfig::named()
            .into_iter()
            .find(|s| s.0 == name)
            .unwrap()
            .1
    }

    #[test]
    fn the_closed_formula_gives_the_published_counts() {
        for (name, count) in [
            ("7M", 6_982_256),
            ("28M", 27_896_408),
            ("111M", 111_520_424),
        ] {
            assert_eq!(named(name).parameter_count(), count, "{name}");
        }
        assert_eq!(
            named("111M")
                .with_elements(5)
                .with_grid(32)
                .parameter_count(),
            111_515_237
        );
        // The other reading of the two smaller sizes: narrow deep levels instead of a narrow start.
        let narrow = |width: usize| {
            VoxmolConfig::new(width, 16)
                .with_multipliers(vec![1, 1, 2, 4])
                .parameter_count()
        };
        assert_eq!([narrow(32), narrow(16)], [28_318_088, 7_089_608]);
    }

    #[test]
    fn widths_multiply_from_level_to_level() {
        assert_eq!(named("111M").widths(), [32, 64, 128, 512]);
        assert_eq!(named("111M").deepest_width(), 512);
        assert_eq!(named("111M").shrinkage(), 8);
    }

    #[test]
    fn impossible_sizes_are_refused_by_name() {
        let refused = |config: VoxmolConfig| config.validate().unwrap_err().to_string();
        let base = || named("nano");
        assert!(
            VoxmolConfig::named()
                .iter()
                .all(|(_, config)| config.validate().is_ok())
        );
        assert!(refused(VoxmolConfig::new(8, 0)).contains("groups is 0; it must be at least 1"));
        assert!(
            refused(VoxmolConfig::new(8, 16)).contains("width = 8 is not divisible by groups = 16")
        );
        assert!(refused(base().with_blocks(0)).contains("blocks is 0"));
        assert!(refused(base().with_blocks(1_000_000)).contains("more than 1e10 parameters"));
        assert!(refused(base().with_multipliers(vec![1, usize::MAX, 2])).contains("lower them"));
        assert!(refused(base().with_elements(0)).contains("elements is 0"));
        assert!(refused(base().with_dropout(1.0)).contains("dropout = 1"));
        assert!(refused(base().with_dropout(f64::NAN)).contains("dropout = NaN"));
        assert!(refused(base().with_multipliers(vec![])).contains("multipliers = []"));
        assert!(
            refused(base().with_multipliers(vec![1, 0, 2])).contains("multipliers = [1, 0, 2]")
        );
        assert!(refused(base().with_multipliers(vec![1; 99])).contains("1 to 16 numbers"));
        assert!(
            refused(base().with_attention(vec![true]))
                .contains("attention has 1 flags, multipliers 3 levels")
        );
        assert!(refused(base().with_grid(18)).contains("grid = 18 is not divisible by 4"));
        assert!(refused(base().with_grid(0)).contains("grid = 0"));
    }

    #[test]
    fn a_configuration_survives_json() {
        for (_, config) in VoxmolConfig::named() {
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<VoxmolConfig>(&text).unwrap(), config);
        }
    }
}

//! Small random clouds whose points are joined by springs: the smallest dataset plugin, made on the fly and exactly labelled.

use equivbench_plugin::{
    DatasetDescriptor, DatasetPlugin, FieldBuffers, PluginError, PluginResult, SplitDescriptor,
    export_dataset, field,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Keys of a suite's `[dataset.options]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpringOptions {
    /// Clouds in the split `train`; `valid` and `test` have a quarter each.
    pub clouds: u64,
    /// Points in the smallest cloud; the largest has three more.
    pub points: u64,
}

impl Default for SpringOptions {
    fn default() -> Self {
        Self {
            clouds: 512,
            points: 4,
        }
    }
}

/// The dataset.
pub struct SpringCloud {
    options: SpringOptions,
    seed: u64,
}

/// Splits and the share of `clouds` that they hold, as a divisor.
const SPLITS: [(&str, u64); 3] = [("train", 1), ("valid", 4), ("test", 4)];

impl SpringCloud {
    fn size(&self, split: &str) -> PluginResult<u64> {
        let found = SPLITS
            .iter()
            .find(|(name, _)| *name == split)
            .map(|(_, divisor)| (self.options.clouds / divisor).max(1));
        found.ok_or_else(|| {
            PluginError::BadRequest(format!(
                "split \"{split}\" is not known; there are: train, valid, test"
            ))
        })
    }

    fn check(&self, split: &str, index: u64) -> PluginResult<()> {
        let size = self.size(split)?;
        if index < size {
            Ok(())
        } else {
            Err(PluginError::BadRequest(format!(
                "sample {index} of split {split} is not there; it has {size}"
            )))
        }
    }

    /// The clouds follow from these numbers and this version of the code.
    fn content_hash(&self) -> String {
        let content = format!(
            "spring-cloud 1: {} {} {}",
            self.seed, self.options.clouds, self.options.points
        );
        Sha256::digest(content.as_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    fn points_of(&self, index: u64) -> u64 {
        self.options.points + index % 4
    }

    /// Positions of one cloud: normal numbers from a stream of its own.
    fn cloud(&self, split: &str, index: u64) -> Vec<[f64; 3]> {
        let place = SPLITS
            .iter()
            .position(|(name, _)| *name == split)
            .unwrap_or_default() as u64;
        let mut stream = ChaCha8Rng::seed_from_u64(self.seed);
        stream.set_stream(3 * index + place);
        let mut uniform = || ((stream.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let mut normal =
            || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        (0..self.points_of(index))
            .map(|_| [normal(), normal(), normal()])
            .collect()
    }
}

/// Force on each point: every pair is a spring of length 1 and stiffness 1.
fn forces(points: &[[f64; 3]]) -> Vec<[f64; 3]> {
    let pull = |a: &[f64; 3], b: &[f64; 3]| {
        let d: [f64; 3] = std::array::from_fn(|i| b[i] - a[i]);
        let length = d.iter().map(|x| x * x).sum::<f64>().sqrt();
        d.map(|x| {
            if length > 0.0 {
                x * (length - 1.0) / length
            } else {
                0.0
            }
        })
    };
    points
        .iter()
        .map(|a| {
            points
                .iter()
                .map(|b| pull(a, b))
                .fold([0.0; 3], |s, f| std::array::from_fn(|i| s[i] + f[i]))
        })
        .collect()
}

impl DatasetPlugin for SpringCloud {
    type Options = SpringOptions;
    const NAME: &'static str = "spring-cloud";
    const ABOUT: &'static str = "random clouds of points joined by springs, made on the fly";
    const EMBEDDED: Option<&'static str> = Some("spring-cloud (exact)");

    fn open(options: SpringOptions, seed: u64) -> PluginResult<Self> {
        if options.clouds == 0 || options.points == 0 {
            return Err(PluginError::BadRequest(
                "[dataset.options] clouds and points must be at least 1".into(),
            ));
        }
        Ok(Self { options, seed })
    }

    fn describe(&self) -> DatasetDescriptor {
        let split = |(name, divisor): (&str, u64)| {
            let samples = (self.options.clouds / divisor).max(1);
            SplitDescriptor {
                name: name.into(),
                samples,
                groups: samples,
            }
        };
        DatasetDescriptor {
            name: "spring-cloud (exact)".into(),
            source: "made on the fly".into(),
            licence: "CC0-1.0".into(),
            level_of_theory: "springs".into(),
            content_hash: self.content_hash(),
            tasks: vec!["force-field".into()],
            fields: vec![
                field("positions", "vector", "point", "f64", &[3], "spring length"),
                field("species", "invariant", "point", "i64", &[], ""),
                field(
                    "forces",
                    "vector",
                    "point",
                    "f64",
                    &[3],
                    "stiffness × length",
                ),
            ],
            splits: SPLITS.into_iter().map(split).collect(),
            ..DatasetDescriptor::default()
        }
    }

    fn points(&self, split: &str, indices: &[u64], out: &mut [u64]) -> PluginResult<()> {
        for (&index, points) in indices.iter().zip(out) {
            self.check(split, index)?;
            *points = self.points_of(index);
        }
        Ok(())
    }

    fn samples(
        &mut self,
        split: &str,
        indices: &[u64],
        out: &mut FieldBuffers<'_>,
    ) -> PluginResult<()> {
        let mut row = 0;
        for &index in indices {
            self.check(split, index)?;
            let points = self.cloud(split, index);
            let rows = row..row + points.len();
            out.f64("positions")?[3 * rows.start..3 * rows.end]
                .copy_from_slice(points.as_flattened());
            out.f64("forces")?[3 * rows.start..3 * rows.end]
                .copy_from_slice(forces(&points).as_flattened());
            out.i64("species")?[rows.clone()].fill(1);
            row = rows.end;
        }
        Ok(())
    }
}

export_dataset!(SpringCloud);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forces_are_minus_the_gradient_of_the_spring_energy_and_sum_to_zero() {
        let data = SpringCloud::open(SpringOptions::default(), 3).unwrap();
        let points = data.cloud("train", 2);
        let energy = |p: &[[f64; 3]]| -> f64 {
            let pair = |i: usize, j: usize| {
                let length = (0..3)
                    .map(|k| (p[i][k] - p[j][k]).powi(2))
                    .sum::<f64>()
                    .sqrt();
                0.5 * (length - 1.0).powi(2)
            };
            (0..p.len())
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| pair(i, j))
                .sum()
        };
        let f = forces(&points);
        for i in 0..points.len() {
            for k in 0..3 {
                let at = |h: f64| {
                    let mut moved = points.clone();
                    moved[i][k] += h;
                    energy(&moved)
                };
                // Central difference: error of order h² = 1e-10.
                assert!((f[i][k] + (at(1e-5) - at(-1e-5)) / 2e-5).abs() < 1e-8);
            }
        }
        for k in 0..3 {
            assert!(f.iter().map(|v| v[k]).sum::<f64>().abs() < 1e-12);
        }
    }
}

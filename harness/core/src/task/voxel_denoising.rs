//! Denoising of voxelised densities: from a noisy grid to the clean one, at one noise level.
//!
//! A molecule is centred on the mean of its atoms, turned, shifted and voxelised to the clean grid `x` (see [`voxelise`]); the model
//! sees `y = x + σ ε` with standard normal `ε` on every voxel of every channel and predicts `x`.

use super::{
    Baseline, Examples, Preparation, Supervised, Task, TaskRequest,
    cloud::{centre, check_vectors, turn},
};
use crate::{
    Batch, CoreError, Field, FieldKind, FiniteGroup, GridRotation, RESOLUTION_ANGSTROM, Rotation,
    Rows, Scheme, Seed, Stream, Values, VoxelAtom, cube16_a, cube16_b,
    elements::{atomic_number, first_elements},
    seed::{below, normal_pair, uniform},
    voxelise,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Inputs: `density [samples, channels, grid, grid, grid]`, noisy. Target: the clean density of the same shape, between 0 and 1.
///
/// Measured samples are turned, shifted and made noisy as training samples are, each once and for all by its own stream.
#[derive(Clone, Debug, PartialEq)]
pub struct VoxelDenoising {
    settings: Settings,
    /// Atomic number of each channel.
    channels: Vec<i64>,
}

/// How molecules are placed before they become grids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// A Haar rotation of the coordinates and a shift.
    Continuous,
    /// As the reference: three uniform Euler angles (not uniform over rotations) and a shift.
    ContinuousEuler,
    /// One of the 24 cube rotations of the clean grid.
    Cube,
    /// One of the set `cube16-a` of 16 of them.
    #[serde(rename = "cube16-a")]
    Cube16A,
    /// One of the set `cube16-b` of 16 of them.
    #[serde(rename = "cube16-b")]
    Cube16B,
    /// Centred only.
    None,
}

impl Augmentation {
    /// The rotations of the cube that clean grids are turned by, one of them drawn for each; none where molecules are placed otherwise.
    fn cube_rotations(self) -> Vec<Rotation> {
        match self {
            Self::Cube => FiniteGroup::Octahedral.elements(),
            Self::Cube16A => cube16_a(),
            Self::Cube16B => cube16_b(),
            Self::Continuous | Self::ContinuousEuler | Self::None => Vec::new(),
        }
    }
}

/// The best affine function of the noisy value in each channel. The noise is independent of the density `x` and known, so the slope is
/// `Var x / (Var x + σ²)` and the offset `(1 − slope) E x`, with the moments of training densities.
struct Affine {
    /// Slope and offset of each channel.
    channels: Vec<(f64, f64)>,
    /// Voxels of a channel of one sample.
    voxels: usize,
}

impl Affine {
    /// From the number of voxels of a channel, and the sums of their densities and of the squares.
    fn of(moments: &[(f64, f64, f64)], sigma: f64, voxels: usize) -> Self {
        let line = |&(count, sum, squares): &(f64, f64, f64)| {
            let count = count.max(1.0);
            let mean = sum / count;
            let variance = (squares / count - mean * mean).max(0.0);
            let noisy = variance + sigma * sigma;
            let slope = if noisy > 0.0 { variance / noisy } else { 0.0 };
            (slope, (1.0 - slope) * mean)
        };
        Self {
            channels: moments.iter().map(line).collect(),
            voxels,
        }
    }
}

impl Baseline for Affine {
    fn about(&self) -> String {
        let line = |(slope, offset): &(f64, f64)| format!("{slope:.4} y + {offset:.6}");
        let all: Vec<String> = self.channels.iter().map(line).collect();
        format!(
            "the best affine function of the noisy value in each channel: {}",
            all.join(", ")
        )
    }

    fn predict(&self, samples: &Supervised) -> Result<Vec<f64>, CoreError> {
        let mut values = samples
            .inputs
            .field("density")?
            .values
            .widened()
            .into_owned();
        let channels = self.channels.iter().cycle();
        for (grid, (slope, offset)) in values.chunks_mut(self.voxels.max(1)).zip(channels) {
            grid.iter_mut().for_each(|y| *y = slope * *y + offset);
        }
        Ok(values)
    }
}

/// Voxels of training densities from which a baseline is fitted at most.
const FITTED_VOXELS: usize = 1 << 26;

/// Keys of a suite's `[task]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Voxels along an axis; 0 for what the model reads.
    grid: usize,
    /// Symbols of the channels; empty for as many as the model reads.
    elements: Vec<String>,
    /// Standard deviation of the noise.
    sigma: f64,
    /// How molecules are placed.
    augmentation: Augmentation,
    /// Largest shift along an axis with a continuous augmentation, Å.
    shift_angstrom: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grid: 0,
            elements: Vec::new(),
            sigma: 0.9,
            augmentation: Augmentation::Continuous,
            shift_angstrom: 0.5,
        }
    }
}

const NAME: &str = "voxel-denoising";
/// Grid and channels where neither suite nor model says: those of the drug-like molecules of the paper.
const PUBLISHED: (usize, usize) = (64, 8);
/// Standard deviation of the noise at most: far above any density.
const MOST_NOISE: f64 = 1e4;
/// Voxels along an axis at most: a density of one channel then has 134 million voxels.
const MOST: usize = 512;

impl VoxelDenoising {
    /// Reads the settings and fits grid and channels to what the model reads.
    ///
    /// # Errors
    /// An unknown key, a value that cannot be, or a grid that the model does not read.
    pub fn configure(request: &TaskRequest<'_>) -> Result<Self, CoreError> {
        let bad = |what: String| CoreError::Setting {
            task: NAME.into(),
            what,
        };
        let mut settings: Settings =
            serde_json::from_value(Value::Object(request.settings.clone()))
                .map_err(|e| bad(format!("settings: {e}")))?;
        let read = (request.input_width)("density").unwrap_or_default();
        let read = |axis: usize| read.get(axis).copied().filter(|&n| n > 0);
        if settings.elements.is_empty() {
            let count = read(0).unwrap_or(PUBLISHED.1);
            settings.elements = first_elements(count).ok_or_else(|| {
                bad(format!(
                    "the model reads {count} channels; name them in task.elements"
                ))
            })?;
        }
        if settings.grid == 0 {
            settings.grid = read(1).unwrap_or(PUBLISHED.0);
        }
        settings.check().map_err(bad)?;
        for (what, ours, theirs) in [
            ("channels", settings.elements.len(), read(0)),
            ("voxels along an axis", settings.grid, read(1)),
        ] {
            if theirs.is_some_and(|theirs| theirs != ours) {
                let theirs = theirs.unwrap_or_default();
                return Err(bad(format!(
                    "the task makes grids with {ours} {what}, the model reads {theirs}; set the model's configuration, and leave task.grid and task.elements out"
                )));
            }
        }
        let channels = settings
            .elements
            .iter()
            .map(|symbol| atomic_number(symbol))
            .collect::<Result<_, _>>()?;
        Ok(Self { settings, channels })
    }

    /// Clean and noisy density of one molecule.
    fn fill(
        &self,
        molecule: &Molecule<'_>,
        stream: &mut Stream,
        clean: &mut [f64],
        noisy: &mut [f64],
    ) -> Result<(), CoreError> {
        let Settings {
            grid,
            sigma,
            augmentation,
            shift_angstrom,
            ..
        } = self.settings;
        let mut cloud = molecule.positions.to_vec();
        centre(&mut cloud);
        let rotation = match augmentation {
            Augmentation::Continuous => Some(Rotation::haar(stream)),
            Augmentation::ContinuousEuler => Some(euler_rotation(
                [(); 3].map(|()| std::f64::consts::TAU * uniform(stream)),
            )),
            _ => None,
        };
        if let Some(rotation) = rotation {
            turn(&mut cloud, &rotation);
            let shift = [(); 3].map(|()| (2.0 * uniform(stream) - 1.0) * shift_angstrom);
            cloud
                .iter_mut()
                .zip(shift.iter().cycle())
                .for_each(|(x, by)| *x += by);
        }
        voxelise(&self.atoms(molecule, &cloud)?, grid, clean);
        let turns = augmentation.cube_rotations();
        if !turns.is_empty() {
            turn_grids(stream, &turns, grid, clean);
        }
        for (noisy, clean) in noisy.chunks_mut(2).zip(clean.chunks(2)) {
            noisy
                .iter_mut()
                .zip(clean)
                .zip(normal_pair(stream))
                .for_each(|((y, x), e)| *y = x + sigma * e);
        }
        Ok(())
    }

    fn atoms(&self, molecule: &Molecule<'_>, cloud: &[f64]) -> Result<Vec<VoxelAtom>, CoreError> {
        let atom = |(species, at): (&i64, &[f64])| {
            let channel = self.channels.iter().position(|z| z == species).ok_or_else(|| {
                let what = format!(
                    "sample {} of the batch has an atom of atomic number {species}; the grid has channels for {}. Drop such molecules in the dataset's options, or name the element in task.elements",
                    molecule.sample,
                    self.settings.elements.join(", ")
                );
                CoreError::Shape(what)
            })?;
            Ok(VoxelAtom {
                position: [at[0], at[1], at[2]],
                channel,
            })
        };
        molecule
            .species
            .iter()
            .zip(cloud.chunks_exact(3))
            .map(atom)
            .collect()
    }
}

impl Settings {
    fn check(&self) -> Result<(), String> {
        if self.grid < 2 || self.grid > MOST || !self.grid.is_multiple_of(2) {
            return Err(format!(
                "task.grid = {} must be even and lie between 2 and {MOST}",
                self.grid
            ));
        }
        if !(0.0..=MOST_NOISE).contains(&self.sigma) {
            return Err(format!(
                "task.sigma = {} must lie between 0 and {MOST_NOISE}; densities lie between 0 and 1",
                self.sigma
            ));
        }
        let edge = self.grid as f64 * RESOLUTION_ANGSTROM;
        if !(0.0..=edge).contains(&self.shift_angstrom) {
            return Err(format!(
                "task.shift_angstrom = {} must lie between 0 and {edge}, the edge of the grid",
                self.shift_angstrom
            ));
        }
        match self
            .elements
            .iter()
            .enumerate()
            .find(|(i, symbol)| self.elements[..*i].contains(symbol))
        {
            Some((_, twice)) => Err(format!("task.elements names {twice} twice")),
            None => Ok(()),
        }
    }
}

/// One molecule of a batch.
struct Molecule<'a> {
    sample: usize,
    positions: &'a [f64],
    species: &'a [i64],
}

impl Task for VoxelDenoising {
    fn name(&self) -> &'static str {
        NAME
    }

    fn settings(&self) -> Map<String, Value> {
        match serde_json::to_value(&self.settings) {
            Ok(Value::Object(settings)) => settings,
            _ => Map::new(),
        }
    }

    fn fit_baseline(&self, examples: &mut Examples<'_>) -> Result<Arc<dyn Baseline>, CoreError> {
        let voxels = self.settings.grid.pow(3);
        let mut moments = vec![(0.0, 0.0, 0.0); self.channels.len()];
        let mut seen = 0;
        for example in examples {
            let example = example?;
            let clean = example.target_values()?;
            for (at, grid) in clean.chunks_exact(voxels).enumerate() {
                let (count, sum, squares) = &mut moments[at % self.channels.len()];
                *count += voxels as f64;
                *sum += grid.iter().sum::<f64>();
                *squares += grid.iter().map(|x| x * x).sum::<f64>();
            }
            seen += clean.len();
            if seen >= FITTED_VOXELS {
                break;
            }
        }
        Ok(Arc::new(Affine::of(&moments, self.settings.sigma, voxels)))
    }

    /// All rotations of the cube: exact, nothing is sampled.
    fn default_scheme(&self) -> &'static str {
        "octahedral"
    }

    fn check_scheme(&self, scheme: &Scheme) -> Result<(), CoreError> {
        let exact = |rotation: &Rotation| rotation.as_signed_permutation().is_some();
        if !scheme.is_sampled() && scheme.plan(Seed::new(0), 0).rotations.iter().all(exact) {
            return Ok(());
        }
        Err(CoreError::Setting {
            task: NAME.into(),
            what: format!(
                "voxels can be permuted by the rotations of the cube only, scheme {} has others; use octahedral, cube16-a, cube16-b or tetrahedral",
                scheme.name()
            ),
        })
    }

    fn prepare(&self, mut raw: Batch, how: &Preparation<'_>) -> Result<Supervised, CoreError> {
        raw.check_finite()?;
        let (positions, species) = (raw.take("positions")?, raw.take("species")?);
        check_vectors(&positions, "voxel denoising")?;
        let (coordinates, Values::Index(species)) = (positions.reals()?, &species.values) else {
            return Err(CoreError::Shape(
                "field \"species\" must hold atomic numbers as integers".into(),
            ));
        };
        if 3 * species.len() != coordinates.len() {
            return Err(CoreError::Shape(format!(
                "{} species for {} coordinates",
                species.len(),
                coordinates.len()
            )));
        }
        let (samples, grid) = (raw.samples(), self.settings.grid);
        let shape = vec![samples, self.channels.len(), grid, grid, grid];
        let width: usize = shape[1..].iter().product();
        let (mut clean, mut noisy) = (vec![0.0; samples * width], vec![0.0; samples * width]);
        clean
            .par_chunks_mut(width)
            .zip(noisy.par_chunks_mut(width))
            .enumerate()
            .try_for_each(|(sample, (clean, noisy))| {
                let atoms = raw.offsets[sample]..raw.offsets[sample + 1];
                let molecule = Molecule {
                    sample,
                    positions: &coordinates[3 * atoms.start..3 * atoms.end],
                    species: &species[atoms],
                };
                self.fill(&molecule, &mut (how.stream)(sample), clean, noisy)
            })?;
        let density = |name: &str, values| {
            Field::real(
                name,
                FieldKind::VoxelGrid,
                Rows::Sample,
                shape.clone(),
                values,
            )
        };
        // Grids have no points; atoms stay behind, so that a model cannot read them.
        let inputs = Batch {
            offsets: vec![0; samples + 1],
            fields: vec![density("density", noisy)],
        };
        Ok(Supervised {
            inputs,
            target: Some(density("target", clean)),
            labels: Vec::new(),
        })
    }
}

/// `Rz(c) Ry(b) Rx(a)` for angles `[a, b, c]`, with the reference's `Ry = [[cos, 0, −sin], [0, 1, 0], [sin, 0, cos]]`.
#[must_use]
pub fn euler_rotation(angles: [f64; 3]) -> Rotation {
    let [a, b, c] = angles;
    let x = Rotation::about([1.0, 0.0, 0.0], a);
    let y = Rotation::about([0.0, 1.0, 0.0], -b);
    let z = Rotation::about([0.0, 0.0, 1.0], c);
    z.compose(&y.compose(&x))
}

/// Turns every channel by the same rotation of the cube, one of these.
fn turn_grids(stream: &mut Stream, elements: &[Rotation], grid: usize, density: &mut [f64]) {
    let rotation = &elements[below(stream, elements.len() as u64) as usize];
    let turn = GridRotation::new(rotation, grid).expect("the rotations of the cube permute voxels");
    let mut turned = vec![0.0; turn.points()];
    for channel in density.chunks_exact_mut(turn.points()) {
        turn.rotate(channel, &mut turned);
        channel.copy_from_slice(&turned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Occasion;
    use serde_json::json;

    fn configured(settings: Value, width: Option<Vec<usize>>) -> Result<VoxelDenoising, CoreError> {
        let Value::Object(settings) = settings else {
            panic!("settings are an object")
        };
        VoxelDenoising::configure(&TaskRequest {
            settings: &settings,
            input_width: &|_| width.clone(),
        })
    }

    /// Carbon monoxide and water, far from the origin.
    fn molecules() -> Batch {
        let positions = [
            5.0, 1.0, 2.0, 6.1, 1.0, 2.0, -3.0, 0.0, 0.0, -3.6, 0.7, 0.2, -2.4, 0.7, -0.1,
        ];
        Batch {
            offsets: vec![0, 2, 5],
            fields: vec![
                Field::real(
                    "positions",
                    FieldKind::Vector,
                    Rows::Point,
                    vec![5, 3],
                    positions.to_vec(),
                ),
                Field {
                    name: "species".into(),
                    kind: FieldKind::Invariant,
                    rows: Rows::Point,
                    shape: vec![5],
                    values: Values::Index(vec![6, 8, 8, 1, 1]),
                },
            ],
        }
    }

    fn prepared(settings: Value, seed: u64) -> Supervised {
        let task = configured(settings, None).unwrap();
        let stream = |sample: usize| Seed::new(seed).indexed_stream("test", sample as u64);
        task.prepare(
            molecules(),
            &Preparation {
                occasion: Occasion::Training,
                normaliser: &|_| None,
                stream: &stream,
            },
        )
        .unwrap()
    }

    fn noise(s: &Supervised, sigma: f64) -> Vec<f64> {
        let noisy = s.inputs.field("density").unwrap().reals().unwrap();
        noisy
            .iter()
            .zip(s.target_values().unwrap())
            .map(|(y, x)| (y - x) / sigma)
            .collect()
    }

    #[test]
    fn a_model_sees_a_noisy_grid_and_nothing_else() {
        let s = prepared(json!({"grid": 16, "elements": ["C", "H", "O"]}), 1);
        assert_eq!(
            s.inputs
                .fields
                .iter()
                .map(|f| f.name.as_str())
                .collect::<Vec<_>>(),
            ["density"]
        );
        assert_eq!(s.inputs.field("density").unwrap().shape, [2, 3, 16, 16, 16]);
        assert_eq!((s.inputs.samples(), s.inputs.points()), (2, 0));
        let noise = noise(&s, 0.9);
        let n = noise.len() as f64;
        let (mean, variance) = (
            noise.iter().sum::<f64>() / n,
            noise.iter().map(|e| e * e).sum::<f64>() / n,
        );
        // Four standard errors of mean and variance of n standard normal numbers.
        assert!(
            mean.abs() < 4.0 / n.sqrt() && (variance - 1.0).abs() < 4.0 * (2.0 / n).sqrt(),
            "{mean} {variance}"
        );
        // Carbon monoxide has no hydrogen, water no carbon.
        let clean = s.target_values().unwrap();
        let power = |from: usize| clean[from * 4096..(from + 1) * 4096].iter().sum::<f64>();
        assert_eq!((power(1), power(3)), (0.0, 0.0));
        assert!([0, 2, 4, 5].iter().all(|&c| power(c) > 30.0));
    }

    #[test]
    fn continuous_and_euler_augmentation_turn_and_shift_while_none_keeps_the_molecule() {
        let grid = |augmentation: &str, seed| {
            let settings =
                json!({"grid": 16, "elements": ["C", "H", "O"], "augmentation": augmentation});
            prepared(settings, seed).target_values().unwrap().to_vec()
        };
        assert_eq!(grid("none", 1), grid("none", 2));
        for law in ["continuous", "continuous-euler", "cube"] {
            assert_ne!(grid(law, 1), grid(law, 2), "{law}");
            assert_eq!(grid(law, 1), grid(law, 1), "{law}");
        }
    }

    #[test]
    fn the_cube_augmentation_turns_the_clean_grid_exactly() {
        let settings =
            |law: &str| json!({"grid": 8, "elements": ["C", "H", "O"], "augmentation": law});
        let still = prepared(settings("none"), 0)
            .target_values()
            .unwrap()
            .to_vec();
        let of = |rotation: &Rotation| {
            let turn = GridRotation::new(rotation, 8).unwrap();
            let mut turned = vec![0.0; 3 * 512];
            turned
                .chunks_exact_mut(512)
                .zip(still.chunks_exact(512))
                .for_each(|(to, from)| turn.rotate(from, to));
            turned
        };
        let all: Vec<Vec<f64>> = FiniteGroup::Octahedral.elements().iter().map(of).collect();
        let first = |grid: &Vec<f64>| {
            all.iter()
                .position(|turned| turned == grid)
                .expect("a turned grid is one of the 24")
        };
        let mut seen: Vec<usize> = (0..300)
            .map(|seed| {
                first(
                    &prepared(settings("cube"), seed).target_values().unwrap()[..3 * 512].to_vec(),
                )
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        let mut distinct: Vec<usize> = all.iter().map(first).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(seen, distinct, "every rotation is drawn");
    }

    #[test]
    fn euler_angles_turn_about_the_axes_in_the_published_order_and_sense() {
        let quarter = std::f64::consts::FRAC_PI_2;
        let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(near(
            euler_rotation([quarter, 0.0, 0.0]).apply([0.0, 1.0, 0.0]),
            [0.0, 0.0, 1.0]
        ));
        // The usual quarter turn about y sends z to x; the reference's sends it to −x.
        assert!(near(
            euler_rotation([0.0, quarter, 0.0]).apply([0.0, 0.0, 1.0]),
            [-1.0, 0.0, 0.0]
        ));
        assert!(near(
            euler_rotation([0.0, 0.0, quarter]).apply([1.0, 0.0, 0.0]),
            [0.0, 1.0, 0.0]
        ));
        // x first: z → −y by the turn about x, then → x by that about z.
        assert!(near(
            euler_rotation([quarter, 0.0, quarter]).apply([0.0, 0.0, 1.0]),
            [1.0, 0.0, 0.0]
        ));
    }

    #[test]
    fn grid_and_channels_follow_the_model_and_settings_that_disagree_are_refused() {
        let task = configured(json!({}), Some(vec![5, 32, 32, 32])).unwrap();
        assert_eq!(task.settings()["grid"], 32);
        assert_eq!(
            task.settings()["elements"],
            json!(["C", "H", "O", "N", "F"])
        );
        let any = configured(json!({"grid": 16}), Some(vec![8, 0, 0, 0])).unwrap();
        assert_eq!(
            (any.settings()["grid"].clone(), any.channels.len()),
            (json!(16), 8)
        );
        assert_eq!(configured(json!({}), None).unwrap().settings()["grid"], 64);
        let refused = |settings, width| configured(settings, width).unwrap_err().to_string();
        assert!(
            refused(json!({"grid": 16}), Some(vec![8, 32, 32, 32]))
                .contains("grids with 16 voxels along an axis, the model reads 32")
        );
        assert!(
            refused(json!({"elements": ["C"]}), Some(vec![8, 32, 32, 32]))
                .contains("1 channels, the model reads 8")
        );
        assert!(
            refused(json!({"elements": ["C", "Xx"]}), None).contains("element \"Xx\" is not known")
        );
        assert!(refused(json!({"elements": ["C", "C"]}), None).contains("names C twice"));
        assert!(refused(json!({"grid": 15}), None).contains("must be even"));
        assert!(refused(json!({"sigma": -1.0}), None).contains("task.sigma"));
        assert!(refused(json!({"sigma": 1e30}), None).contains("between 0 and"));
        assert!(
            refused(json!({"grid": 16, "shift_angstrom": 4.5}), None)
                .contains("the edge of the grid")
        );
        assert!(refused(json!({"sgma": 1.0}), None).contains("unknown field `sgma`"));
        assert!(refused(json!({"augmentation": "spin"}), None).contains("continuous-euler"));
    }

    #[test]
    fn an_element_without_a_channel_and_labels_of_another_kind_are_refused() {
        let task = configured(json!({"grid": 8, "elements": ["C", "O"]}), None).unwrap();
        let how = Preparation {
            occasion: Occasion::Training,
            normaliser: &|_| None,
            stream: &|_| Seed::new(0).stream("x"),
        };
        let error = task.prepare(molecules(), &how).unwrap_err().to_string();
        assert!(
            error.contains("sample 1") && error.contains("atomic number 1;"),
            "{error}"
        );
        let mut labels = molecules();
        labels.fields[1].values = Values::Real(vec![6.0; 5]);
        assert!(
            task.prepare(labels, &how)
                .unwrap_err()
                .to_string()
                .contains("atomic numbers as integers")
        );
    }

    #[test]
    fn only_rotations_of_the_cube_are_accepted() {
        let task = configured(json!({}), None).unwrap();
        for name in ["octahedral", "tetrahedral", "cube16-a", "cube16-b"] {
            task.check_scheme(&Scheme::parse(name).unwrap()).unwrap();
        }
        for name in ["random-10", "octahedral-x2", "icosahedral"] {
            assert!(
                task.check_scheme(&Scheme::parse(name).unwrap())
                    .unwrap_err()
                    .to_string()
                    .contains("cube16-a")
            );
        }
    }

    #[test]
    fn the_sets_of_sixteen_turn_grids_by_their_own_rotations_only() {
        let plain = |seed| {
            prepared(
                json!({"grid": 8, "elements": ["C", "H", "O"], "augmentation": "none"}),
                seed,
            )
        };
        for (name, set) in [("cube16-a", cube16_a()), ("cube16-b", cube16_b())] {
            let turned_to = |rotation: &Rotation, seed: u64| {
                let s = prepared(
                    json!({"grid": 8, "elements": ["C", "H", "O"], "augmentation": name}),
                    seed,
                );
                let turn = GridRotation::new(rotation, 8).unwrap();
                let clean = plain(seed);
                let grids = clean.target_values().unwrap().chunks_exact(512).take(3);
                let expected: Vec<f64> = grids
                    .flat_map(|grid| {
                        let mut turned = vec![0.0; 512];
                        turn.rotate(grid, &mut turned);
                        turned
                    })
                    .collect();
                s.target_values().unwrap()[..3 * 512] == expected
            };
            let found: Vec<bool> = (0..40)
                .map(|seed| set.iter().any(|rotation| turned_to(rotation, seed)))
                .collect();
            assert!(found.iter().all(|&f| f), "{name}");
        }
    }

    #[test]
    fn the_baseline_is_the_affine_function_with_the_smallest_loss() {
        // Densities 0 and 1 in a fifth of the voxels: E x = 0.2, Var x = 0.16.
        let line = Affine::of(&[(10.0, 2.0, 2.0), (10.0, 0.0, 0.0)], 0.3, 1);
        let (slope, offset) = line.channels[0];
        // E (a (x + σ ε) + b − x)² with independent noise.
        let loss = |a: f64, b: f64| {
            0.16 * (a - 1.0).powi(2) + (0.2 * (a - 1.0) + b).powi(2) + a * a * 0.09
        };
        for (da, db) in [(1e-3, 0.0), (-1e-3, 0.0), (0.0, 1e-3), (0.0, -1e-3)] {
            assert!(loss(slope + da, offset + db) > loss(slope, offset));
        }
        assert_eq!(line.channels[1], (0.0, 0.0), "an empty channel");
    }

    #[test]
    fn the_baseline_of_training_grids_predicts_every_channel_by_its_own_line() {
        let settings = json!({"grid": 8, "elements": ["C", "O", "H"], "sigma": 0.5});
        let task = configured(settings.clone(), None).unwrap();
        let example = prepared(settings, 3);
        let clean = example.target_values().unwrap().to_vec();
        let fitted = task
            .fit_baseline(&mut std::iter::once(Ok(example.clone())))
            .unwrap();
        let predicted = fitted.predict(&example).unwrap();
        let noisy = example.inputs.field("density").unwrap().reals().unwrap();
        for channel in 0..3 {
            let own = |v: &[f64]| -> Vec<f64> {
                let grids = v.chunks_exact(512).enumerate();
                grids
                    .filter(|(i, _)| i % 3 == channel)
                    .flat_map(|(_, g)| g.to_vec())
                    .collect()
            };
            let (x, y, p) = (own(&clean), own(noisy), own(&predicted));
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let slope = variance / (variance + 0.25);
            for (y, p) in y.iter().zip(p) {
                assert!((slope * y + (1.0 - slope) * mean - p).abs() < 1e-12);
            }
        }
    }
}

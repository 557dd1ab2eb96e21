//! Other measures of equivariance, each beside ours, of the same predictions of frozen samples: what papers print, how fast predictions
//! change with rotation, and of which degree what is not equivariant is. `docs/measures.md` has formulas, sources and conversions.

use crate::{BatchKey, Moment, Protocol, Schedule, Snapshot, columns};
use equivbench_core::{
    Column, Condition, CoreError, DEGREES, FieldKind, FiniteGroup, LieStep, RotatedCopies,
    Rotation, RotationPlan, Scatter, Scheme, Sink, Table, TableInfo, cube_energies,
    degree_energies, effective_degree,
};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::sync::{Arc, LazyLock};

/// Bytes of twisted predictions that are held at a time; grids of one sample may take more.
const HELD_BYTES: usize = 256 << 20;

/// Axes of the three generators of rotations.
const AXES: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

static MEASURES: LazyLock<Table<MeasuresRow>> = LazyLock::new(|| Table {
    name: "measures",
    about: "other measures of equivariance beside ours, all of the same first-pass predictions of some measured samples with the raw weights; squared errors, whatever measure.loss is, pooled as those of curve.csv",
    columns: [
        vec![
            columns::version(),
            columns::step(|r: &MeasuresRow| r.moment.step),
        ],
        columns::condition(|r: &MeasuresRow| &r.condition),
        method(),
        ours(),
        of_papers(),
        lie_derivative(),
        energies(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// All measures under one condition.
struct MeasuresRow {
    moment: Moment,
    condition: Condition,
    rotations: u64,
    model_calls: u64,
    step: Option<LieStep>,
    pooled: Pooled,
}

impl MeasuresRow {
    /// A sum over samples, per component.
    fn mean(&self, sum: fn(&Sums) -> f64) -> f64 {
        sum(&self.pooled.sums) / self.pooled.sums.components
    }

    fn loss_equiv(&self) -> f64 {
        self.mean(|s| s.loss_equiv)
    }

    /// Of Lie derivatives, where there are any.
    fn lie(&self, sum: fn(&Sums) -> f64) -> Option<f64> {
        self.step.map(|_| self.mean(sum))
    }

    fn energy(&self, degree: usize) -> Option<f64> {
        let energies = self.pooled.degrees.as_ref()?;
        Some(energies[degree - 1] / self.pooled.sums.components)
    }

    fn energy_rest(&self) -> Option<f64> {
        let known: f64 = (1..=DEGREES).filter_map(|l| self.energy(l)).sum();
        self.pooled.degrees.as_ref()?;
        Some(self.loss_equiv() - known)
    }

    fn cube_energy(&self, representation: usize) -> Option<f64> {
        Some(self.pooled.cube.as_ref()?[representation] / self.pooled.sums.components)
    }
}

fn method() -> Vec<Column<MeasuresRow>> {
    vec![
        Column::new(
            "samples",
            "samples",
            "measured samples that were asked: the first of those of curve.csv",
            |r: &MeasuresRow| r.pooled.samples,
        ),
        Column::new(
            "rotations",
            "rotations",
            "rotations of each sample: independent Haar rotations, drawn for this table; on grids all 24 rotations of the cube, and then everything is exact",
            |r: &MeasuresRow| r.rotations,
        ),
        Column::new(
            "model_calls",
            "calls",
            "calls into the model that the row took, each of some samples; one more than rotations for the unrotated samples, and twelve for each base rotation of the Lie derivative",
            |r: &MeasuresRow| r.model_calls,
        ),
    ]
}

fn ours() -> Vec<Column<MeasuresRow>> {
    vec![
        Column::new(
            "loss_total",
            "target²",
            "L of these samples under these rotations",
            |r: &MeasuresRow| r.mean(|s| s.loss_total),
        ),
        Column::new(
            "loss_equiv",
            "target²",
            "L_equiv of them, unbiased: the measure of this program, with which all others here compare",
            MeasuresRow::loss_equiv,
        ),
        Column::new(
            "equiv_percent",
            "%",
            "100 loss_equiv / loss_total",
            |r: &MeasuresRow| {
                let percent = 100.0 * r.loss_equiv() / r.mean(|s| s.loss_total);
                percent.is_finite().then_some(percent)
            },
        ),
    ]
}

fn of_papers() -> Vec<Column<MeasuresRow>> {
    vec![
        Column::new(
            "pairwise",
            "target²",
            "mean squared difference of two twisted predictions at independent rotations, per component: 2 loss_equiv",
            |r: &MeasuresRow| r.mean(|s| s.pairwise),
        ),
        Column::new(
            "rotated_unrotated",
            "target²",
            "mean over rotations R of |R⁻¹f(Rx) - f(x)|², per component, with x as the dataset orients it: what most papers print. It depends on that orientation; it is loss_equiv + |f(x) - twirled|², at least loss_equiv, and 2 loss_equiv on average over orientations",
            |r: &MeasuresRow| r.mean(|s| s.rotated_unrotated),
        ),
        Column::new(
            "maximum_relative",
            "",
            "largest |Z - twirled| / |twirled| (Euclidean norms over all components of a sample) of all samples and rotations; it grows with their number, so compare equal numbers only. Empty where a twirled prediction vanishes",
            |r: &MeasuresRow| r.pooled.maximum_relative.filter(|m| m.is_finite()),
        ),
        Column::new(
            "maximum_absolute",
            "target",
            "largest |component| of Z - twirled of all samples and rotations; likewise",
            |r: &MeasuresRow| r.pooled.maximum_absolute,
        ),
        Column::new(
            "i_max",
            "target",
            "I_max of eq_r_db, the range of the target in these samples: twice the largest |component| for vectors, whose components take either sign when rotated; largest minus smallest value for grids and scalars",
            |r: &MeasuresRow| r.pooled.range(),
        ),
        Column::new(
            "eq_r_db",
            "dB",
            "EQ-R of StyleGAN3: 10 log10(i_max² / rotated_unrotated), a peak signal-to-noise ratio; larger is more equivariant. Empty where nothing differs",
            |r: &MeasuresRow| {
                let ratio = r.pooled.range().powi(2) / r.mean(|s| s.rotated_unrotated);
                (ratio.is_finite() && ratio > 0.0).then(|| 10.0 * ratio.log10())
            },
        ),
        Column::new(
            "normalised_variance",
            "",
            "Vonessen's: Var Z / E|Z|² over rotations, between 0 and 1. It is relative_equiv_percent / 100 of curve.csv, here of these samples and rotations",
            |r: &MeasuresRow| {
                let share = r.loss_equiv() / r.mean(|s| s.power);
                share.is_finite().then_some(share)
            },
        ),
    ]
}

fn lie_derivative() -> Vec<Column<MeasuresRow>> {
    vec![
        Column::new(
            "lee",
            "target²/rad²",
            "local equivariance error: mean over the three generators of so(3) of |d/dt R(t)⁻¹f(R(t)x)|² at t = 0, per component, x turned by random base rotations. Empty for grids, which cannot be rotated by a little without interpolation",
            |r: &MeasuresRow| r.lie(|s| s.lie / 3.0),
        ),
        Column::new(
            "lee_sum",
            "target²/rad²",
            "the sum over the three generators, 3 lee: equals the sum of l(l+1) times the energy of degree l, so loss_equiv <= lee_sum / 2",
            |r: &MeasuresRow| r.lie(|s| s.lie),
        ),
        Column::new(
            "lee_norm",
            "target/rad",
            "the other convention, norms and not squares: mean over samples, generators and base rotations of |d/dt ...| / sqrt(components), each sample the same",
            |r: &MeasuresRow| {
                let samples = r.pooled.samples as f64;
                r.step.map(|_| r.pooled.sums.lie_norm / 3.0 / samples)
            },
        ),
        Column::new(
            "lee_step",
            "rad",
            "step h of the central differences, which are extrapolated from h and h/2: 0.05 for a model in f32, 0.002 in f64",
            |r: &MeasuresRow| r.step.map(LieStep::radian),
        ),
        Column::new(
            "lee_step_change",
            "",
            "relative change of lee by the extrapolation: the error of lee from the step is less, unless rounding is what changes",
            |r: &MeasuresRow| {
                let [full, half] = [r.lie(|s| s.lie)?, r.lie(|s| s.lie_half_step)?];
                Some((full - half).abs() / full).filter(|change| change.is_finite())
            },
        ),
        Column::new(
            "l_eff",
            "",
            "effective degree: l (l+1) = lee_sum / loss_equiv",
            |r: &MeasuresRow| effective_degree(r.lie(|s| s.lie)?, r.loss_equiv()),
        ),
    ]
}

fn energies() -> Vec<Column<MeasuresRow>> {
    const ABOUT: &str = "energy of the twisted prediction, as a function of the rotation, in this degree of Peter and Weyl, per component; unbiased, so it may fall below 0. Those of all degrees add up to loss_equiv. Empty for grids";
    const OF_CUBE: &str = "energy in this irreducible representation of the rotations of the cube, per component; those of A2, E, T1 and T2 add up to loss_equiv. Empty but for grids";
    const DEGREE_NAMES: [&str; DEGREES] =
        ["energy_1", "energy_2", "energy_3", "energy_4", "energy_5"];
    const CUBE_NAMES: [&str; 4] = ["energy_a2", "energy_e", "energy_t1", "energy_t2"];
    let degree = |(at, name): (usize, &&'static str)| {
        Column::new(name, "target²", ABOUT, move |r: &MeasuresRow| {
            r.energy(at + 1)
        })
    };
    let of_cube = |(at, name): (usize, &&'static str)| {
        Column::new(name, "target²", OF_CUBE, move |r: &MeasuresRow| {
            r.cube_energy(at)
        })
    };
    let mut all: Vec<_> = DEGREE_NAMES.iter().enumerate().map(degree).collect();
    all.push(Column::new(
        "energy_rest",
        "target²",
        "energy above degree 5: what of loss_equiv the others leave",
        MeasuresRow::energy_rest,
    ));
    all.extend(CUBE_NAMES.iter().enumerate().map(of_cube));
    all
}

/// Which evaluations leave rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MeasuresRows {
    /// Every one.
    All,
    /// The one after the last step.
    #[default]
    Last,
}

/// `[protocols.measures]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MeasuresSettings {
    /// Which evaluations leave rows: `all` or `last`.
    pub rows: MeasuresRows,
    /// Measured samples that are asked, at most.
    #[serde(deserialize_with = "one_or_more")]
    pub samples: u64,
    /// Independent rotations of each; pairs are taken around the mean of the others, so there are three at least.
    #[serde(deserialize_with = "three_or_more")]
    pub rotations: u64,
    /// Base rotations of the Lie derivative, at most as many as `rotations`; twelve predictions each. 0 for none.
    pub lie_rotations: u64,
    /// Step of the Lie derivative in radian; 0 for that of the model's precision.
    #[serde(deserialize_with = "small_angle")]
    pub lie_step: f64,
}

impl Default for MeasuresSettings {
    fn default() -> Self {
        Self {
            rows: MeasuresRows::default(),
            samples: 16,
            rotations: 64,
            lie_rotations: 8,
            lie_step: 0.0,
        }
    }
}

fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let samples = u64::deserialize(from)?;
    let wrong = || D::Error::custom("samples = 0: there is nothing to measure");
    (samples > 0).then_some(samples).ok_or_else(wrong)
}

/// Products of all pairs are held, so there is an upper end too.
fn three_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let rotations = u64::deserialize(from)?;
    let wrong = || D::Error::custom(format!("rotations = {rotations} lies outside of 3 to 4096"));
    let is_right = (3..=4096).contains(&rotations);
    is_right.then_some(rotations).ok_or_else(wrong)
}

fn small_angle<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let step = f64::deserialize(from)?;
    let wrong = || D::Error::custom(format!("lie_step = {step} lies outside of 0 to 1 radian"));
    let is_right = (0.0..1.0).contains(&step);
    is_right.then_some(step).ok_or_else(wrong)
}

/// Under which rotations a sample is predicted: those that everything but the Lie derivative is of, then, unless the identity is among
/// them, the unrotated sample, then the neighbours of the base rotations, axis by axis.
struct Series {
    rotations: usize,
    is_cube: bool,
    lie: Option<(LieStep, usize)>,
}

impl Series {
    fn of(settings: MeasuresSettings, snapshot: &Snapshot<'_>) -> Self {
        let any = Scheme::Random { rotations: 1 };
        let is_cube = snapshot.task().check_scheme(&any).is_err();
        let step = match settings.lie_step {
            0.0 => LieStep::of(snapshot.precision()),
            radian => LieStep::new(radian),
        };
        let bases = settings.lie_rotations.min(settings.rotations) as usize;
        Self {
            rotations: match is_cube {
                true => FiniteGroup::Octahedral.order(),
                false => settings.rotations as usize,
            },
            is_cube,
            lie: (!is_cube && bases > 0).then_some((step, bases)),
        }
    }

    /// The rotations of a sample, fixed by seed and sample.
    fn plan(&self, snapshot: &Snapshot<'_>, sample: u64) -> RotationPlan {
        let mut rotations = match self.is_cube {
            true => FiniteGroup::Octahedral.elements(),
            false => {
                let mut stream = snapshot.seed().indexed_stream("measures", sample);
                (0..self.rotations)
                    .map(|_| Rotation::haar(&mut stream))
                    .collect()
            }
        };
        if !self.is_cube {
            rotations.push(Rotation::IDENTITY);
        }
        if let Some((step, bases)) = self.lie {
            let near = |base: &Rotation| AXES.map(|axis| step.near(base, axis));
            let near: Vec<_> = rotations[..bases].iter().flat_map(near).collect();
            rotations.extend(near.into_iter().flatten());
        }
        RotationPlan {
            cosets: rotations.len(),
            rotations,
        }
    }

    /// Samples whose predictions can be held at a time.
    fn samples_held(&self, numbers: usize) -> usize {
        let held = self.rotations + 1 + LieStep::PREDICTIONS;
        (HELD_BYTES / (8 * held * numbers.max(1))).max(1)
    }
}

/// What one sample predicts, as it comes.
#[derive(Default)]
struct Arriving {
    twisted: Vec<Vec<f64>>,
    unrotated: Vec<f64>,
    near: Vec<Vec<f64>>,
    target: Vec<f64>,
    lie: f64,
    lie_half_step: f64,
    lie_norm: f64,
}

impl Arriving {
    fn push(&mut self, series: &Series, twisted: &[f64]) {
        if self.twisted.len() < series.rotations {
            self.twisted.push(twisted.to_vec());
        } else if self.unrotated.is_empty() {
            self.unrotated = twisted.to_vec();
        } else if let Some((step, bases)) = series.lie {
            self.near.push(twisted.to_vec());
            let near = std::mem::take(&mut self.near);
            match <&[Vec<f64>; LieStep::PREDICTIONS]>::try_from(near.as_slice()) {
                Ok(four) => self.derivative(step, four, bases as f64),
                Err(_) => self.near = near,
            }
        }
    }

    fn derivative(&mut self, step: LieStep, near: &[Vec<f64>; LieStep::PREDICTIONS], bases: f64) {
        let square = step.square(near);
        self.lie += square.extrapolated / bases;
        self.lie_half_step += square.half_step / bases;
        self.lie_norm += (square.extrapolated / self.target.len() as f64).sqrt() / bases;
    }
}

/// Sums over the components of samples, averaged over rotations.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    components: f64,
    loss_total: f64,
    loss_equiv: f64,
    pairwise: f64,
    rotated_unrotated: f64,
    /// `‖Z‖²`.
    power: f64,
    /// Of the three generators together.
    lie: f64,
    lie_half_step: f64,
    /// Of the three generators together, over the root of the components; each sample the same.
    lie_norm: f64,
}

/// What is known of the samples so far.
#[derive(Clone, Debug, Default)]
struct Pooled {
    samples: u64,
    sums: Sums,
    degrees: Option<[f64; DEGREES]>,
    cube: Option<[f64; 4]>,
    maximum_relative: Option<f64>,
    maximum_absolute: f64,
    is_vector: bool,
    /// Smallest and largest component of the target.
    target: Option<[f64; 2]>,
}

impl Pooled {
    fn range(&self) -> f64 {
        let [least, most] = self.target.unwrap_or_default();
        match self.is_vector {
            true => 2.0 * most.max(-least),
            false => most - least,
        }
    }

    /// Adds a sample whose components weigh so much each.
    fn add(&mut self, series: &Series, rotations: &[Rotation], of: Arriving, weight: f64) {
        let scatter = Scatter::of(of.twisted);
        let n = scatter.count() as f64;
        // All rotations of a group are the whole truth; of independent ones one is spent on the mean.
        let (free, pairs) = match series.is_cube {
            true => (n, n * n),
            false => (n - 1.0, n * (n - 1.0)),
        };
        let distance = |to: &[f64]| -> f64 {
            let differences = scatter.mean().iter().zip(to);
            differences.map(|(m, v)| (m - v).powi(2)).sum()
        };
        let around = scatter.sum() / n;
        let twirled: f64 = scatter.mean().iter().map(|m| m * m).sum();
        let unrotated = match series.is_cube {
            // The identity is the first rotation of the group.
            true => scatter.squares().next().unwrap_or_default(),
            false => distance(&of.unrotated),
        };
        let sums = &mut self.sums;
        sums.components += weight * of.target.len() as f64;
        sums.loss_total += weight * (around + distance(&of.target));
        sums.loss_equiv += weight * scatter.sum() / free;
        sums.pairwise += weight * scatter.sum_of_pairs() / pairs;
        sums.rotated_unrotated += weight * (around + unrotated);
        sums.power += weight * (around + twirled);
        sums.lie += weight * of.lie;
        sums.lie_half_step += weight * of.lie_half_step;
        sums.lie_norm += of.lie_norm;
        if series.is_cube {
            let energies = cube_energies(rotations, &scatter);
            add_energies(&mut self.cube, energies.as_ref(), weight);
        } else {
            let energies = degree_energies(rotations, &scatter, DEGREES);
            add_energies(&mut self.degrees, energies.as_deref(), weight);
        }
        let relative = scatter.largest_norm() / twirled.sqrt();
        // What is not a number stays one: a cell of its own kind.
        let known = self.maximum_relative.unwrap_or_default();
        self.maximum_relative = Some(if relative <= known { known } else { relative });
        self.maximum_absolute = self.maximum_absolute.max(scatter.largest_component());
        let extremes = of.target.iter().fold(self.target, |known, &y| {
            let [least, most] = known.unwrap_or([y, y]);
            Some([least.min(y), most.max(y)])
        });
        (self.target, self.samples) = (extremes, self.samples + 1);
    }
}

fn add_energies<const N: usize, E: AsRef<[f64]> + ?Sized>(
    known: &mut Option<[f64; N]>,
    energies: Option<&E>,
    weight: f64,
) {
    let sums = known.get_or_insert([0.0; N]);
    let new = energies.map(AsRef::as_ref).unwrap_or_default();
    sums.iter_mut()
        .zip(new)
        .for_each(|(sum, e)| *sum += weight * e);
}

/// Asks for other measures.
pub(super) struct Measures {
    settings: MeasuresSettings,
    schedule: Arc<Schedule>,
}

impl Measures {
    fn row(
        &self,
        snapshot: &mut Snapshot<'_>,
        condition: &Condition,
    ) -> Result<MeasuresRow, CoreError> {
        let series = Series::of(self.settings, snapshot);
        let mut pooled = Pooled::default();
        let mut model_calls = 0;
        for batch in snapshot.frozen().batches() {
            let left = self.settings.samples - pooled.samples;
            if left == 0 {
                break;
            }
            let inputs = snapshot.inputs(batch, condition)?;
            let count = inputs.inputs.samples().min(left as usize);
            let numbers = inputs.target_values()?.len() / inputs.inputs.samples().max(1);
            let places: Vec<usize> = (0..count).collect();
            for places in places.chunks(series.samples_held(numbers)) {
                let at = (batch, places);
                model_calls += add_samples(snapshot, &series, at, condition, &mut pooled)?;
            }
        }
        Ok(MeasuresRow {
            moment: *snapshot.moment(),
            condition: condition.clone(),
            rotations: series.rotations as u64,
            model_calls,
            step: series.lie.map(|(step, _)| step),
            pooled,
        })
    }
}

/// Predicts some samples of a batch and adds them; returns how often the model was called.
fn add_samples(
    snapshot: &mut Snapshot<'_>,
    series: &Series,
    (batch, places): (BatchKey, &[usize]),
    condition: &Condition,
    pooled: &mut Pooled,
) -> Result<u64, CoreError> {
    let indices = Arc::clone(snapshot.frozen().indices(batch));
    let plans: Vec<RotationPlan> = places
        .iter()
        .map(|&s| series.plan(snapshot, indices[s]))
        .collect();
    let mut arriving: Vec<Arriving> = places.iter().map(|_| Arriving::default()).collect();
    let (mut calls, mut is_vector) = (0, false);
    let mut each = |copies: &RotatedCopies<'_>, index: usize, twisted: &[f64]| {
        calls += 1;
        is_vector = copies.kind() == FieldKind::Vector;
        for (s, sample) in arriving.iter_mut().enumerate() {
            if index == 0 {
                sample.target = copies.target(s).to_vec();
            }
            sample.push(series, &twisted[copies.range(s)]);
        }
        Ok(())
    };
    snapshot.twisted_of((batch, places), condition, &plans, &mut each)?;
    pooled.is_vector = is_vector;
    let balance = snapshot.task().balance();
    for (sample, plan) in arriving.into_iter().zip(&plans) {
        let weight = 1.0 / balance.divisor(sample.target.len() as f64);
        let rotations = &plan.rotations[..series.rotations];
        pooled.add(series, rotations, sample, weight);
    }
    Ok(calls)
}

impl Protocol for Measures {
    const NAME: &'static str = "measures";
    const ABOUT: &'static str = "other measures of equivariance of the field beside ours: pairwise, rotated against unrotated, maximum, EQ-R, Lie derivative, energy by degree, normalised variance";
    type Settings = MeasuresSettings;

    fn tables() -> Vec<TableInfo> {
        vec![MEASURES.info()]
    }

    fn start(settings: MeasuresSettings, schedule: Arc<Schedule>) -> Self {
        Self { settings, schedule }
    }

    fn due(&self, step: u64) -> bool {
        match self.settings.rows {
            MeasuresRows::All => self.schedule.holds(step),
            MeasuresRows::Last => step == self.schedule.total,
        }
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        for condition in &snapshot.first_passes() {
            let row = self.row(snapshot, condition)?;
            MEASURES.write(sink, &row)?;
        }
        Ok(())
    }
}

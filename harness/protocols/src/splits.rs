//! From predictions to splits: every condition and kind of weights in one stream, pooled with intervals, and checked where work was
//! shared among rotated copies.

use crate::{BatchKey, Frozen, InputKey, Measuring, preparer::Preparer};
use equivbench_core::{
    Balance, Checked, Condition, CoreError, Deviation, Estimate, Measured, MeasuredSample,
    Measurement, Model, PointLoss, Portion, SampleTerms, Split, Weights, measure_stream,
    nudge_power, pool,
};
use std::{collections::BTreeMap, sync::Arc};

/// Relative difference between shared and blind predictions that is always too much.
const TOLERATED_DEVIATION: f64 = 1e-2;
/// Relative difference that rounding of f32 predictions may cause at most, with a distance or two at the edge of a bin.
const ROUNDING: f64 = 1e-4;
/// Beyond rounding: share of the equivariance error that sharing may account for, as a mean square.
const TOLERATED_OF_EQUIV: f64 = 0.1;

/// Percent below which it is asked what rounding alone causes: predictions in f32 are good to about 1e-7 of their size, squares to
/// 1e-14, and models that amplify that ten thousand times are none.
const FLOOR_ASKED_PERCENT: f64 = 1e-4;
/// What nudging each input by one unit in the last place causes is multiplied by this to be called the floor.
const FLOOR_MARGIN: f64 = 10.0;

/// Samples that an evaluation predicts both ways at most: a random few, as each costs a whole pass of its own.
const CHECKED_SAMPLES: usize = 4;

/// What is measured, and how.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) measuring: &'a Measuring,
    pub(crate) frozen: &'a Frozen,
    pub(crate) preparer: &'a Preparer,
}

/// What an evaluation with one kind of weights predicts both ways, and where.
struct CheckedAt {
    weights: Weights,
    inputs: InputKey,
    batch: BatchKey,
    what: Checked,
}

impl Bench<'_> {
    /// How a kind of weights is measured.
    pub(crate) fn how(&self, weights: Weights) -> Measurement {
        Measurement {
            weights,
            loss: self.measuring.loss,
            estimator: self.measuring.estimator,
        }
    }

    /// Splits the loss under every condition, with every kind of weights, in the order of their rows.
    ///
    /// # Errors
    /// What data or model report, a loss that is not finite, shared work that cannot be trusted, and whatever `watch` returns.
    pub(crate) fn splits(
        &self,
        step: u64,
        model: &mut dyn Model,
        watch: &mut dyn FnMut() -> Result<(), CoreError>,
    ) -> Result<Vec<Arc<Split>>, CoreError> {
        let sharing = self.measuring.sharing && model.shares_rotations();
        let checked: Vec<CheckedAt> = self
            .measuring
            .weights
            .iter()
            .filter_map(|&weights| self.checked(step, weights))
            .filter(|_| sharing)
            .collect();
        let portions = self.portions(sharing, &checked);
        let measured = measure_stream(model, &*self.preparer.task, portions, watch)?;
        let mut splits = Vec::new();
        for &weights in &self.measuring.weights {
            let own: Vec<&Measured> = measured
                .iter()
                .filter(|m| m.of.how.weights == weights)
                .collect();
            let checked = checked.iter().find(|c| c.weights == weights);
            splits.extend(self.of_weights(weights, &own, checked)?);
        }
        self.floors(model, &mut splits, watch)?;
        Ok(splits.into_iter().map(Arc::new).collect())
    }

    /// Where percent is so small that it may be rounding, what rounding causes: the equivariance error that inputs nudged by one unit in
    /// the last place would pretend, for the first pass over a batch.
    fn floors(
        &self,
        model: &mut dyn Model,
        splits: &mut [Split],
        watch: &mut dyn FnMut() -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        let Some(batch) = self.frozen.batches().next() else {
            return Ok(());
        };
        let mut known: BTreeMap<(InputKey, Weights), f64> = BTreeMap::new();
        for split in splits {
            let (percent, total) = {
                let pooled = split.estimate.pooled;
                (pooled.percent(), pooled.total())
            };
            // Of another loss than the squared error rounding has no share that could be told so.
            if percent >= FLOOR_ASKED_PERCENT || self.measuring.loss != PointLoss::Mse {
                continue;
            }
            let (key, _) = self.frozen.inputs_of(&split.condition)?;
            let power = match known.get(&(key, split.weights)) {
                Some(power) => *power,
                None => {
                    let samples = self.frozen.made(batch, key, self.preparer)?;
                    let stream = &mut self.measuring.seed.stream("nudge");
                    let power = nudge_power(model, &samples.inputs, split.weights, stream)?;
                    watch()?;
                    known.insert((key, split.weights), power);
                    power
                }
            };
            let floor = 100.0 * FLOOR_MARGIN * power / total;
            split.floor_percent = Some(if total > 0.0 { floor } else { 0.0 });
        }
        Ok(())
    }

    /// By inputs, batch and kind of weights, the last the fastest: all kinds see the samples that were made once.
    fn portions<'b>(
        &'b self,
        sharing: bool,
        checked: &'b [CheckedAt],
    ) -> impl Iterator<Item = Result<Portion, CoreError>> + Send + 'b {
        let places = self.frozen.inputs().flat_map(move |(key, inputs)| {
            let batches = self.frozen.batches();
            batches.map(move |batch| (key, inputs, batch))
        });
        places.flat_map(move |(key, inputs, batch)| {
            let made = self.frozen.made(batch, key, self.preparer);
            let samples = match made {
                Ok(samples) => samples,
                Err(error) => return vec![Err(error)],
            };
            let of = |weights: &Weights| Portion {
                samples: Arc::clone(&samples),
                indices: Arc::clone(self.frozen.indices(batch)),
                plans: Arc::clone(self.frozen.plans(batch)),
                readings: Arc::clone(&inputs.readings),
                how: self.how(*weights),
                sharing,
                checked: checked
                    .iter()
                    .find(|c| (c.weights, c.inputs, c.batch) == (*weights, key, batch))
                    .map(|c| c.what.clone()),
            };
            self.measuring.weights.iter().map(|w| Ok(of(w))).collect()
        })
    }

    /// One split for each condition, in the order of their rows.
    fn of_weights(
        &self,
        weights: Weights,
        measured: &[&Measured],
        checked: Option<&CheckedAt>,
    ) -> Result<Vec<Split>, CoreError> {
        let mut deviation = Deviation::default();
        measured.iter().for_each(|m| deviation.add(m.deviation));
        let mut splits = Vec::new();
        for condition in self.frozen.conditions() {
            let (key, _) = self.frozen.inputs_of(condition)?;
            let baselines = self.frozen.baselines(key, self.preparer)?;
            let samples: Vec<MeasuredSample> = measured
                .iter()
                .flat_map(|m| self.samples_of(m, condition, &baselines))
                .collect();
            splits.push(Split {
                weights,
                condition: condition.clone(),
                loss: self.measuring.loss,
                estimate: self.estimate(&samples)?,
                floor_percent: None,
                learnable: self.preparer.task.is_learnable(condition),
                deviation,
                samples,
            });
        }
        self.trust(checked, &splits, &deviation)?;
        Ok(splits)
    }

    fn estimate(&self, samples: &[MeasuredSample]) -> Result<Estimate, CoreError> {
        let squared = self.measuring.loss == PointLoss::Mse;
        let estimate = pool(samples, squared, self.measuring.seed);
        let total = estimate.pooled.total();
        if total.is_finite() {
            return Ok(estimate);
        }
        Err(CoreError::NotFinite(format!(
            "the measured loss is {total}"
        )))
    }

    /// The samples of a portion under a condition, weighed as the task balances them; none if the portion is of other inputs.
    fn samples_of<'b>(
        &'b self,
        measured: &'b Measured,
        condition: &'b Condition,
        baselines: &'b BTreeMap<u64, f64>,
    ) -> impl Iterator<Item = MeasuredSample> + 'b {
        let readings = measured.readings.iter();
        let own = readings.filter(move |(c, _)| c == condition);
        own.flat_map(move |(_, terms)| {
            let sample = |(&index, terms): (&u64, &SampleTerms)| {
                let balanced = self.balanced(terms);
                let baseline = baselines.get(&index).copied().unwrap_or_default();
                MeasuredSample {
                    index,
                    group: self.frozen.group_of(index),
                    terms: balanced,
                    baseline: baseline * balanced.components / terms.components,
                }
            };
            measured.of.indices.iter().zip(terms).map(sample)
        })
    }

    fn balanced(&self, terms: &SampleTerms) -> SampleTerms {
        match self.preparer.task.balance() {
            Balance::Components => *terms,
            Balance::Samples => terms.averaged(),
        }
    }

    /// Whether shared predictions are close enough to blind ones for the equivariance error that was found.
    fn trust(
        &self,
        checked: Option<&CheckedAt>,
        splits: &[Split],
        deviation: &Deviation,
    ) -> Result<(), CoreError> {
        let (Some(relative), Some(square), Some(checked)) =
            (deviation.relative(), deviation.mean_square(), checked)
        else {
            return Ok(());
        };
        let is_checked = |split: &&Split| {
            let inputs = self.frozen.inputs_of(&split.condition);
            inputs.is_ok_and(|(key, _)| key == checked.inputs)
        };
        let equiv = splits
            .iter()
            .filter(is_checked)
            .map(|split| split.estimate.pooled.equivariance)
            .fold(f64::INFINITY, f64::min);
        // Another loss than the squared error has no scale in common with the difference.
        let of_equiv = if self.measuring.loss == PointLoss::Mse {
            square / equiv.max(f64::MIN_POSITIVE)
        } else {
            0.0
        };
        // Written so that what is not a number is not trusted.
        if relative <= ROUNDING
            || (relative <= TOLERATED_DEVIATION && of_equiv <= TOLERATED_OF_EQUIV)
        {
            return Ok(());
        }
        Err(CoreError::Sharing { relative, of_equiv })
    }

    /// What an evaluation with these weights predicts both ways: another batch and rotation each time, chosen by seed.
    fn checked(&self, step: u64, weights: Weights) -> Option<CheckedAt> {
        let name = |what: &str| format!("shared/{step}/{}/{what}", weights.name());
        let draw = |what: &str| self.measuring.seed.derived(&name(what));
        let (batch, inputs) = self.frozen.drawn(draw("batch"), draw("flow time"))?;
        let plans = self.frozen.plans(batch);
        let permutation = self
            .measuring
            .seed
            .permutation(&name("samples"), plans.len());
        let mut samples: Vec<usize> = permutation.into_iter().map(|s| s as usize).collect();
        samples.truncate(CHECKED_SAMPLES);
        let rotations = plans.first()?.rotations.len() as u64;
        Some(CheckedAt {
            weights,
            inputs,
            batch,
            what: Checked {
                rotation: draw("pass").checked_rem(rotations)? as usize,
                samples,
            },
        })
    }
}

/// The mean percent of the raw weights over all inputs, of the first condition that reads each.
pub(crate) fn mean_percent(frozen: &Frozen, splits: &[Arc<Split>]) -> Option<f64> {
    let first = |inputs: &crate::Inputs| inputs.readings.first().map(|r| r.condition.clone());
    let shown: Vec<Condition> = frozen.inputs().filter_map(|(_, i)| first(i)).collect();
    let percents: Vec<f64> = splits
        .iter()
        .filter(|s| s.weights == Weights::Raw && shown.contains(&s.condition))
        .map(|s| s.estimate.pooled.percent())
        .collect();
    (!percents.is_empty()).then(|| percents.iter().sum::<f64>() / percents.len() as f64)
}

//! Flow matching on point clouds: from noise to protein backbones along straight paths.
//!
//! `x1` is the centred clean cloud, `x0` centred standard normal noise (nm, no rescaling after centring), independent of it;
//! `x_t = (1 − t) x0 + t x1`; the model predicts the velocity `u = x1 − x0`. A velocity `v` means the clean sample
//! `x̂1 = x_t + (1 − t) v`, so its squared error is `(1 − t)²` times that of the velocity.

use super::{
    Balance, Baseline, CloudAugmentation, Examples, Occasion, Preparation, Supervised, Task,
    TaskRequest,
    cloud::{centre, check_vectors, turn},
};
use crate::{
    Axis, AxisRole, AxisValue, Batch, Column, Condition, CoreError, Field, FieldKind, PointLoss,
    Rotation, Rows, Split, Stream, Values,
    seed::{normal_pair, uniform},
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Inputs: `positions [residues, 3]` (x_t, nm), `flow_time [samples]`, and whatever invariant fields the dataset offers
/// (`residue_index`, `chain_break`). Target: the velocity `[residues, 3]`, nm.
///
/// Training clouds are turned by a Haar rotation each (unless `task.augmentation = "none"`), and t is drawn as
/// 0.02 uniform + 0.98 Beta(1.9, 1).
#[derive(Clone, Copy, Debug)]
pub struct FlowMatching {
    augmentation: CloudAugmentation,
}

const NAME: &str = "flow-matching";

impl Default for FlowMatching {
    fn default() -> Self {
        Self {
            augmentation: CloudAugmentation::Rotate,
        }
    }
}

impl FlowMatching {
    /// Reads the settings.
    ///
    /// # Errors
    /// An unknown key or value.
    pub fn configure(request: &TaskRequest<'_>) -> Result<Self, CoreError> {
        let published = Self::default().augmentation;
        let augmentation = CloudAugmentation::configure(NAME, request, published)?;
        Ok(Self { augmentation })
    }
}

/// The best multiple of the input at a flow time: `c_t = (t P1 − (1−t) P0) / ((1−t)² P0 + t² P1)`, with the noise power P0 and the data
/// power P1 per component. Its loss is `P0 P1 / ((1−t)² P0 + t² P1)`; at t = 0 no predictor does better.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Multiple {
    noise_power: f64,
    data_power: f64,
}

impl Multiple {
    fn at(self, t: f64) -> f64 {
        let (p0, p1) = (self.noise_power, self.data_power);
        let power = (1.0 - t).powi(2) * p0 + t * t * p1;
        if power > 0.0 {
            (t * p1 - (1.0 - t) * p0) / power
        } else {
            0.0
        }
    }
}

impl Baseline for Multiple {
    fn about(&self) -> String {
        format!(
            "the best multiple of the input at each flow time, for a noise power of {} and a data power of {} nm² per component",
            self.noise_power, self.data_power
        )
    }

    fn predict(&self, samples: &Supervised) -> Result<Vec<f64>, CoreError> {
        let inputs = &samples.inputs;
        let times = inputs.field(FLOW_TIME.name)?.reals()?;
        let mut prediction = inputs.field("positions")?.reals()?.to_vec();
        for (sample, &time) in times.iter().enumerate() {
            let multiple = self.at(time);
            let own = 3 * inputs.offsets[sample]..3 * inputs.offsets[sample + 1];
            prediction[own].iter_mut().for_each(|x| *x *= multiple);
        }
        Ok(prediction)
    }
}

/// The capability of a model that understands the field `self_conditioning`.
const SELF_CONDITIONING: &str = "self-conditioning";
/// How predictions come about: one pass, or a second that is shown what the first predicts.
const VARIANTS: [&str; 2] = ["plain", "self-conditioned"];

/// The flow time.
pub(super) static FLOW_TIME: Axis = Axis {
    name: "flow_time",
    unit: "",
    about: "flow time t in [0, 1], 0 for noise and 1 for data; empty for a task without",
    heading: "flow time",
    setting: "flow_times",
    role: AxisRole::Input,
    without: None,
    parse: |value| match value.as_f64() {
        Some(t) if (0.0..=1.0).contains(&t) => Ok(AxisValue::Real(t)),
        _ => Err(format!(
            "{value} is no flow time; a flow time lies in [0, 1]"
        )),
    },
};

/// How a prediction comes about.
static VARIANT: Axis = Axis {
    name: "variant",
    unit: "",
    about: "plain: one pass; self-conditioned: a second pass that is shown what the first predicts, each rotation its own",
    heading: "variant",
    setting: "variants",
    role: AxisRole::Reading,
    without: Some(VARIANTS[0]),
    parse: |value| match value.as_str().filter(|name| VARIANTS.contains(name)) {
        Some(name) => Ok(AxisValue::Name(name.into())),
        None => Err(format!(
            "{value} is not known; there are: {}",
            VARIANTS.join(", ")
        )),
    },
};

/// The axes of this task, the slowest first.
pub(super) const AXES: &[&Axis] = &[&FLOW_TIME, &VARIANT];

/// The losses of the clean-sample prediction: `(1 − t)²` times those of the velocity, for the squared error.
pub(super) fn columns() -> Vec<Column<Split>> {
    fn clean(split: &Split, loss: f64) -> Option<f64> {
        let t = split.condition.real(FLOW_TIME.name)?;
        (split.loss == PointLoss::Mse).then(|| (1.0 - t).powi(2) * loss)
    }
    vec![
        Column::new(
            "x1_loss_total",
            "nm²",
            "L of the clean-sample prediction x_t + (1 - t) v: (1 - t)² loss_total; squared error only, empty for a task without flow time",
            |s| clean(s, s.estimate.pooled.total()),
        ),
        Column::new(
            "x1_loss_twirled",
            "nm²",
            "L_mean of the clean-sample prediction",
            |s| clean(s, s.estimate.pooled.twirled),
        ),
        Column::new(
            "x1_loss_equiv",
            "nm²",
            "L_equiv of the clean-sample prediction; percents are the same for both",
            |s| clean(s, s.estimate.pooled.equivariance),
        ),
    ]
}

/// Where the paper measures.
const FLOW_TIMES: [f64; 8] = [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99];
/// Share of training flow times that are uniform; the others follow Beta(1.9, 1).
const UNIFORM_SHARE: f64 = 0.02;
const BETA: f64 = 1.9;

impl Task for FlowMatching {
    fn name(&self) -> &'static str {
        NAME
    }

    fn settings(&self) -> Map<String, Value> {
        self.augmentation.settings()
    }

    fn prepare(&self, mut raw: Batch, how: &Preparation<'_>) -> Result<Supervised, CoreError> {
        raw.check_finite()?;
        let field = raw.take("positions")?;
        check_vectors(&field, "flow matching")?;
        let (mut along, mut velocity) = (field.reals()?.to_vec(), vec![0.0; field.reals()?.len()]);
        let mut flow_times = Vec::with_capacity(raw.samples());
        for sample in 0..raw.samples() {
            let mut stream = (how.stream)(sample);
            let range = 3 * raw.offsets[sample]..3 * raw.offsets[sample + 1];
            let clean = &mut along[range.clone()];
            centre(clean);
            let flow_time = match how.occasion {
                Occasion::Training => {
                    // Drawn in any case, so that the other draws are the same without augmentation.
                    let rotation = Rotation::haar(&mut stream);
                    if self.augmentation == CloudAugmentation::Rotate {
                        turn(clean, &rotation);
                    }
                    draw_flow_time(&mut stream)
                }
                Occasion::Measurement(condition) => {
                    condition.real(FLOW_TIME.name).ok_or_else(|| {
                        CoreError::Shape(
                            "flow matching is measured at flow times, none was given".into(),
                        )
                    })?
                }
            };
            let noise = centred_noise(clean.len(), &mut stream);
            for ((x, u), x0) in clean.iter_mut().zip(&mut velocity[range]).zip(noise) {
                *u = *x - x0;
                *x = (1.0 - flow_time) * x0 + flow_time * *x;
            }
            flow_times.push(flow_time);
        }
        let cloud = |name: &str, values| {
            Field::real(
                name,
                FieldKind::Vector,
                Rows::Point,
                field.shape.clone(),
                values,
            )
        };
        let samples = raw.samples();
        raw.fields.insert(0, cloud("positions", along));
        raw.fields.push(Field::real(
            "flow_time",
            FieldKind::Invariant,
            Rows::Sample,
            vec![samples],
            flow_times,
        ));
        Ok(Supervised {
            target: Some(cloud("target", velocity)),
            inputs: raw,
            labels: Vec::new(),
        })
    }

    /// As in training: the loss of a protein is averaged over its residues before proteins are averaged.
    fn balance(&self) -> Balance {
        Balance::Samples
    }

    /// Powers as the loss weighs them: averaged over the components of each chain first. That of centred noise is known: `1 − 1/n`.
    fn fit_baseline(&self, examples: &mut Examples<'_>) -> Result<Arc<dyn Baseline>, CoreError> {
        let (mut noise, mut data, mut chains) = (0.0, 0.0, 0.0_f64);
        for example in examples {
            let example = example?;
            let inputs = &example.inputs;
            let (times, positions) = (
                inputs.field(FLOW_TIME.name)?.reals()?,
                inputs.field("positions")?.reals()?,
            );
            let velocity = example.target_values()?;
            for (sample, &time) in times.iter().enumerate() {
                let own = 3 * inputs.offsets[sample]..3 * inputs.offsets[sample + 1];
                let count = own.len().max(1) as f64;
                // x1 = x_t + (1 − t) u.
                let clean = own.map(|i| positions[i] + (1.0 - time) * velocity[i]);
                data += clean.map(|x| x * x).sum::<f64>() / count;
                noise += 1.0 - 3.0 / count;
                chains += 1.0;
            }
        }
        let chains = chains.max(1.0);
        Ok(Arc::new(Multiple {
            noise_power: noise / chains,
            data_power: data / chains,
        }))
    }

    /// From pure noise nothing can be learnt beyond its own negative, which is a multiple of the input.
    fn is_learnable(&self, condition: &Condition) -> bool {
        condition.real(FLOW_TIME.name) != Some(0.0)
    }

    fn axes(&self) -> &'static [&'static Axis] {
        AXES
    }

    fn axis_values(&self, axis: &Axis) -> Vec<AxisValue> {
        if axis.name == FLOW_TIME.name {
            FLOW_TIMES.map(AxisValue::Real).to_vec()
        } else {
            VARIANTS.map(|name| AxisValue::Name(name.into())).to_vec()
        }
    }

    fn offers(
        &self,
        axis: &Axis,
        value: &AxisValue,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        let asks_twice = axis.name == VARIANT.name && *value != AxisValue::Name(VARIANTS[0].into());
        if !asks_twice || has(SELF_CONDITIONING) {
            return Ok(());
        }
        Err(format!(
            "self-conditioned predictions were asked for; the model has none (capability \"{SELF_CONDITIONING}\"); use [\"plain\"] or leave it out"
        ))
    }

    fn pass(&self, condition: &Condition) -> usize {
        usize::from(condition.name(VARIANT.name) == Some(VARIANTS[1]))
    }

    /// `x̂1 = x_t + (1 − t) v`, as the field `self_conditioning`.
    fn feed_back(&self, inputs: &Batch, prediction: &[f64]) -> Result<Option<Field>, CoreError> {
        let (positions, times) = (
            inputs.field("positions")?,
            inputs.field("flow_time")?.reals()?,
        );
        if prediction.len() != positions.reals()?.len() {
            return Err(CoreError::Shape(format!(
                "{} velocities for {} coordinates",
                prediction.len(),
                positions.reals()?.len()
            )));
        }
        let mut clean = positions.clone();
        clean.name = "self_conditioning".into();
        if let Values::Real(values) = &mut clean.values {
            for (sample, &time) in times.iter().enumerate() {
                let range = 3 * inputs.offsets[sample]..3 * inputs.offsets[sample + 1];
                values[range.clone()]
                    .iter_mut()
                    .zip(&prediction[range])
                    .for_each(|(x, v)| *x += (1.0 - time) * v);
            }
        }
        Ok(Some(clean))
    }
}

/// Beta(a, 1) has the distribution function `t^a`: `t = U^(1/a)`.
fn draw_flow_time(stream: &mut Stream) -> f64 {
    let (which, u) = (uniform(stream), uniform(stream));
    if which < UNIFORM_SHARE {
        u
    } else {
        u.powf(1.0 / BETA)
    }
}

fn centred_noise(count: usize, stream: &mut Stream) -> Vec<f64> {
    let mut noise: Vec<f64> = std::iter::repeat_with(|| normal_pair(stream))
        .flatten()
        .take(count)
        .collect();
    centre(&mut noise);
    noise
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    /// Two chains of 5 and 3 residues, far from the origin.
    fn chains() -> Batch {
        let values: Vec<f64> = (0..24)
            .map(|i| 7.0 + (f64::from(i) * 0.7).sin() * f64::from(i))
            .collect();
        Batch {
            offsets: vec![0, 5, 8],
            fields: vec![Field::real(
                "positions",
                FieldKind::Vector,
                Rows::Point,
                vec![8, 3],
                values,
            )],
        }
    }

    fn prepared(occasion: Occasion<'_>, seed: u64) -> Supervised {
        let stream = |sample: usize| Seed::new(seed).indexed_stream("test", sample as u64);
        FlowMatching::default()
            .prepare(
                chains(),
                &Preparation {
                    occasion,
                    normaliser: &|_| None,
                    stream: &stream,
                },
            )
            .unwrap()
    }

    fn at(flow_time: f64) -> Condition {
        Condition::default().with(FLOW_TIME.name, AxisValue::Real(flow_time))
    }

    fn measured(flow_time: f64, seed: u64) -> Supervised {
        prepared(Occasion::Measurement(&at(flow_time)), seed)
    }

    fn means(batch: &Batch, values: &[f64]) -> Vec<f64> {
        let mean = |s: usize, axis: usize| {
            let own = &values[3 * batch.offsets[s]..3 * batch.offsets[s + 1]];
            own.iter().skip(axis).step_by(3).sum::<f64>() / (own.len() / 3) as f64
        };
        (0..batch.samples())
            .flat_map(|s| (0..3).map(move |axis| mean(s, axis)))
            .collect()
    }

    #[test]
    fn the_path_is_straight_and_its_noise_is_the_same_at_every_time() {
        let (start, middle, end) = (measured(0.0, 1), measured(0.3, 1), measured(1.0, 1));
        let x = |s: &Supervised| {
            s.inputs
                .field("positions")
                .unwrap()
                .reals()
                .unwrap()
                .to_vec()
        };
        let u = start.target_values().unwrap().to_vec();
        assert_eq!(u, middle.target_values().unwrap());
        for (i, velocity) in u.iter().enumerate() {
            let expected = 0.7 * x(&start)[i] + 0.3 * x(&end)[i];
            // Sums of numbers of order ten.
            assert!((x(&middle)[i] - expected).abs() < 1e-14, "{i}");
            assert!((x(&end)[i] - x(&start)[i] - velocity).abs() < 1e-13);
        }
        // At the end of the path lies the centred chain.
        let raw = chains();
        let (positions, mean) = (
            raw.fields[0].reals().unwrap(),
            means(&raw, raw.fields[0].reals().unwrap()),
        );
        for i in 0..24 {
            let sample = usize::from(i >= 15);
            assert!((x(&end)[i] - (positions[i] - mean[3 * sample + i % 3])).abs() < 1e-13);
        }
        assert_eq!(
            middle.inputs.field("flow_time").unwrap().reals().unwrap(),
            [0.3, 0.3]
        );
    }

    #[test]
    fn both_ends_are_centred_and_so_is_everything_between() {
        for supervised in [
            measured(0.0, 3),
            measured(0.6, 3),
            prepared(Occasion::Training, 3),
        ] {
            let positions = supervised
                .inputs
                .field("positions")
                .unwrap()
                .reals()
                .unwrap();
            for mean in means(&supervised.inputs, positions).iter().chain(&means(
                &supervised.inputs,
                supervised.target_values().unwrap(),
            )) {
                assert!(mean.abs() < 1e-14, "{mean}");
            }
        }
    }

    #[test]
    fn a_training_cloud_is_turned_and_keeps_its_distances() {
        let (turned, plain) = (prepared(Occasion::Training, 5), measured(1.0, 5));
        let time = turned.inputs.field("flow_time").unwrap().reals().unwrap()[0];
        let (x, u) = (
            turned.inputs.field("positions").unwrap().reals().unwrap(),
            turned.target_values().unwrap(),
        );
        // x1 = x_t + (1 − t) u.
        let clean: Vec<f64> = x
            .iter()
            .zip(u)
            .take(15)
            .map(|(x, u)| x + (1.0 - time) * u)
            .collect();
        let original = &plain.inputs.field("positions").unwrap().reals().unwrap()[..15];
        let distance = |c: &[f64], i: usize, j: usize| {
            (0..3)
                .map(|a| (c[3 * i + a] - c[3 * j + a]).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        for (i, j) in [(0, 1), (0, 4), (2, 3)] {
            assert!((distance(&clean, i, j) - distance(original, i, j)).abs() < 1e-12);
        }
        assert!(
            (clean[0] - original[0]).abs() > 1e-3,
            "the cloud was not turned"
        );
    }

    #[test]
    fn training_times_follow_their_law() {
        let n = 40_000;
        let mut stream = Seed::new(2).stream("times");
        let times: Vec<f64> = (0..n).map(|_| draw_flow_time(&mut stream)).collect();
        for t in [0.05, 0.2, 0.5, 0.8, 0.95] {
            let found = times.iter().filter(|&&x| x <= t).count() as f64 / f64::from(n);
            let law = UNIFORM_SHARE * t + (1.0 - UNIFORM_SHARE) * t.powf(BETA);
            // Four standard errors of a proportion.
            assert!(
                (found - law).abs() < 4.0 * (law * (1.0 - law) / f64::from(n)).sqrt(),
                "P(t <= {t}) = {found}, law {law}"
            );
        }
    }

    #[test]
    fn centred_noise_loses_one_degree_of_freedom_an_axis() {
        let mut stream = Seed::new(4).stream("noise");
        let (points, repeats) = (5, 20_000);
        let squares: Vec<f64> = (0..repeats)
            .map(|_| {
                centred_noise(3 * points, &mut stream)
                    .iter()
                    .map(|x| x * x)
                    .sum::<f64>()
                    / (3 * points) as f64
            })
            .collect();
        let mean = squares.iter().sum::<f64>() / f64::from(repeats);
        let error =
            (squares.iter().map(|x| (x - mean).powi(2)).sum::<f64>()).sqrt() / f64::from(repeats);
        // No rescaling after centring: the variance is 1 − 1/n.
        assert!((mean - 0.8).abs() < 4.0 * error, "{mean} ± {error}");
    }

    #[test]
    fn what_is_fed_back_is_the_clean_sample_that_the_velocity_means() {
        let supervised = measured(0.4, 6);
        let exact = supervised.target_values().unwrap().to_vec();
        let fed = FlowMatching::default()
            .feed_back(&supervised.inputs, &exact)
            .unwrap()
            .unwrap();
        let clean = measured(1.0, 6);
        assert_eq!(fed.name, "self_conditioning");
        for (a, b) in fed
            .reals()
            .unwrap()
            .iter()
            .zip(clean.inputs.field("positions").unwrap().reals().unwrap())
        {
            assert!((a - b).abs() < 1e-13);
        }
        assert!(
            FlowMatching::default()
                .feed_back(&supervised.inputs, &exact[..3])
                .is_err()
        );
    }

    #[test]
    fn positions_that_are_no_vectors_or_not_finite_are_refused() {
        let prepare = |batch: Batch| {
            let condition = at(0.5);
            let how = Preparation {
                occasion: Occasion::Measurement(&condition),
                normaliser: &|_| None,
                stream: &|_| Seed::new(0).stream("x"),
            };
            FlowMatching::default()
                .prepare(batch, &how)
                .unwrap_err()
                .to_string()
        };
        let mut flat = chains();
        flat.fields[0].shape = vec![8, 2];
        assert!(prepare(flat).contains("needs vectors"));
        let mut broken = chains();
        if let Values::Real(v) = &mut broken.fields[0].values {
            v[16] = f64::NAN;
        }
        assert!(prepare(broken).contains("sample 1"));
    }

    #[test]
    fn the_baseline_is_the_multiple_of_the_input_with_the_smallest_loss() {
        let truth = Multiple {
            noise_power: 0.8,
            data_power: 2.3,
        };
        for t in [0.0, 0.2, 0.6, 0.99, 1.0] {
            // E‖c x_t − u‖² per component, with x0 and x1 independent and of mean zero.
            let loss = |c: f64| {
                (c * (1.0 - t) + 1.0).powi(2) * truth.noise_power
                    + (c * t - 1.0).powi(2) * truth.data_power
            };
            let best = truth.at(t);
            for nearby in [best - 1e-3, best + 1e-3] {
                assert!(loss(nearby) > loss(best), "t = {t}");
            }
            let (p0, p1) = (truth.noise_power, truth.data_power);
            let closed = p0 * p1 / ((1.0 - t) * (1.0 - t) * p0 + t * t * p1);
            assert!((loss(best) / closed - 1.0).abs() < 1e-13, "t = {t}");
        }
    }

    #[test]
    fn the_baseline_is_fitted_to_the_powers_of_training_chains() {
        let task = FlowMatching::default();
        let mut one = std::iter::once(Ok(prepared(Occasion::Training, 9)));
        let fitted = task.fit_baseline(&mut one).unwrap();
        let clean = measured(1.0, 9);
        let x1 = clean.inputs.field("positions").unwrap().reals().unwrap();
        let mean = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64;
        let expected = Multiple {
            noise_power: 0.5 * (0.8 + 2.0 / 3.0),
            data_power: 0.5 * (mean(&x1[..15]) + mean(&x1[15..])),
        };
        for t in [0.0, 0.4] {
            let supervised = measured(t, 3);
            let (a, b) = (
                fitted.predict(&supervised).unwrap(),
                expected.predict(&supervised).unwrap(),
            );
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() < 1e-12);
            }
        }
        assert!(!task.is_learnable(&at(0.0)) && task.is_learnable(&at(0.2)));
    }

    #[test]
    fn without_augmentation_a_training_cloud_stays_as_it_is_and_all_else_is_drawn_alike() {
        let settings = Map::from_iter([("augmentation".to_owned(), Value::from("none"))]);
        let still = FlowMatching::configure(&TaskRequest {
            settings: &settings,
            input_width: &|_| None,
        })
        .unwrap();
        let stream = |sample: usize| Seed::new(5).indexed_stream("test", sample as u64);
        let how = Preparation {
            occasion: Occasion::Training,
            normaliser: &|_| None,
            stream: &stream,
        };
        let (kept, turned) = (
            still.prepare(chains(), &how).unwrap(),
            prepared(Occasion::Training, 5),
        );
        let time = |s: &Supervised| s.inputs.field("flow_time").unwrap().reals().unwrap()[0];
        assert_eq!(time(&kept), time(&turned));
        let (x, u) = (
            kept.inputs.field("positions").unwrap().reals().unwrap(),
            kept.target_values().unwrap(),
        );
        let clean = measured(1.0, 5);
        let x1 = clean.inputs.field("positions").unwrap().reals().unwrap();
        for i in 0..24 {
            let t = kept.inputs.field("flow_time").unwrap().reals().unwrap()[usize::from(i >= 15)];
            assert!((x[i] + (1.0 - t) * u[i] - x1[i]).abs() < 1e-12);
        }
    }
}

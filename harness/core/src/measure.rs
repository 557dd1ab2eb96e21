//! One measurement: rotate the inputs, predict, un-rotate the outputs, accumulate. The model sees batches only.

use crate::{
    Batch, CoreError, Estimator, FieldKind, Model, PointLoss, Rotation, RotationPlan, SampleTerms, Supervised, Task, TwirlAccumulator,
    Variant, Weights,
    action::{act, act_inverse_on_rows, grid_rotation, prediction_range},
};

/// How a batch is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Raw or averaged weights.
    pub weights: Weights,
    /// The loss that is split.
    pub loss: PointLoss,
    /// Plug-in or unbiased.
    pub estimator: Estimator,
}

/// Splits the loss of every sample of a batch into its twirled and its equivariance part, in one pass of the model.
///
/// `plans` holds the rotations of each sample; all plans have the same length. Pass `i` rotates every sample by its own `i`-th
/// rotation, so a measurement is one prediction of the whole batch for each rotation.
///
/// # Errors
/// Plans that do not fit the batch, a prediction of the wrong size, or what the model reports.
pub fn measure(
    model: &mut dyn Model,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
) -> Result<Vec<SampleTerms>, CoreError> {
    let mut twirls = Twirls::new(model, samples, plans, how)?;
    let mut rotated = Batch::default();
    for pass in 0..equal_lengths(plans, &samples.inputs)? {
        twirls.rotate(pass, &mut rotated)?;
        twirls.predict(model, &rotated)?;
        twirls.push(pass)?;
    }
    Ok(twirls.finish())
}

/// As [`measure`], for several variants of the prediction: one list of terms for each. The plain prediction is the first pass of the
/// self-conditioned one, so both together cost two passes.
///
/// # Errors
/// As [`measure`], and a self-conditioned variant of a task that has none.
pub fn measure_variants(
    model: &mut dyn Model,
    task: &dyn Task,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
    variants: &[Variant],
) -> Result<Vec<Vec<SampleTerms>>, CoreError> {
    if !variants.contains(&Variant::SelfConditioned) {
        let terms = measure(model, samples, plans, how)?;
        return Ok(vec![terms; variants.len()]);
    }
    let (mut plain, mut second) = (Twirls::new(model, samples, plans, how)?, Twirls::new(model, samples, plans, how)?);
    let mut rotated = Batch::default();
    for pass in 0..equal_lengths(plans, &samples.inputs)? {
        plain.rotate(pass, &mut rotated)?;
        plain.predict(model, &rotated)?;
        let fed = task.feed_back(&rotated, &plain.prediction)?;
        let fed = fed.ok_or_else(|| CoreError::Shape(format!("task {} has no self-conditioned variant", task.name())))?;
        plain.push(pass)?;
        rotated.fields.push(fed);
        second.predict(model, &rotated)?;
        second.push(pass)?;
    }
    let (plain, second) = (plain.finish(), second.finish());
    let of = |variant: &Variant| if *variant == Variant::Plain { plain.clone() } else { second.clone() };
    Ok(variants.iter().map(of).collect())
}

/// The twisted predictions of a batch, as they come.
struct Twirls<'a> {
    samples: &'a Supervised,
    plans: &'a [RotationPlan],
    how: Measurement,
    output: (FieldKind, crate::Rows, usize),
    accumulators: Vec<TwirlAccumulator>,
    prediction: Vec<f64>,
}

impl<'a> Twirls<'a> {
    fn new(model: &dyn Model, samples: &'a Supervised, plans: &'a [RotationPlan], how: Measurement) -> Result<Self, CoreError> {
        let inputs = &samples.inputs;
        equal_lengths(plans, inputs)?;
        let (kind, rows, width) = (model.output_kind(), model.output_rows(), model.output_width(inputs));
        let target = samples.target_values()?;
        let of_sample = |s: usize| -> Result<TwirlAccumulator, CoreError> {
            let own = target.get(prediction_range(inputs, rows, width, s));
            let own =
                own.ok_or_else(|| CoreError::Shape(format!("the target has {} numbers, too few for rows of {width}", target.len())))?;
            Ok(TwirlAccumulator::new(own.to_vec(), width, plans[s].cosets, how.loss))
        };
        let accumulators = (0..inputs.samples()).map(of_sample).collect::<Result<_, _>>()?;
        Ok(Self { samples, plans, how, output: (kind, rows, width), accumulators, prediction: Vec::new() })
    }

    fn rotations(&self, pass: usize) -> Vec<Rotation> {
        self.plans.iter().map(|p| p.rotations[pass]).collect()
    }

    fn rotate(&self, pass: usize, out: &mut Batch) -> Result<(), CoreError> {
        act(&self.rotations(pass), &self.samples.inputs, out)
    }

    fn predict(&mut self, model: &mut dyn Model, rotated: &Batch) -> Result<(), CoreError> {
        model.predict_into(rotated, self.how.weights, &mut self.prediction)?;
        let expected = self.samples.target_values()?.len();
        if self.prediction.len() != expected {
            return Err(CoreError::Shape(format!("the model predicts {} numbers, the target has {expected}", self.prediction.len())));
        }
        Ok(())
    }

    /// Un-rotates the prediction and adds it.
    fn push(&mut self, pass: usize) -> Result<(), CoreError> {
        let (kind, rows, width) = self.output;
        let shape = self.samples.target.as_ref().map(|t| t.shape.clone()).unwrap_or_default();
        let rotations = self.rotations(pass);
        for (sample, accumulator) in self.accumulators.iter_mut().enumerate() {
            let values = &mut self.prediction[prediction_range(&self.samples.inputs, rows, width, sample)];
            let coset = self.plans[sample].coset_of(pass);
            if kind == FieldKind::VoxelGrid {
                let turn = grid_rotation(&rotations[sample].inverse(), &shape);
                let turn = turn.map_err(|why| CoreError::Action { field: "prediction".into(), why })?;
                accumulator.push_rotated(coset, &turn, values);
            } else {
                act_inverse_on_rows(&rotations[sample], kind, &shape, values)?;
                accumulator.push(coset, values);
            }
        }
        Ok(())
    }

    fn finish(&self) -> Vec<SampleTerms> {
        self.accumulators.iter().map(|t| t.finish(self.how.estimator)).collect()
    }
}

fn equal_lengths(plans: &[RotationPlan], inputs: &Batch) -> Result<usize, CoreError> {
    let passes = plans.first().map_or(0, |p| p.rotations.len());
    if plans.len() != inputs.samples() || passes == 0 || plans.iter().any(|p| p.rotations.len() != passes) {
        return Err(CoreError::Shape(format!("{} rotation plans for {} samples", plans.len(), inputs.samples())));
    }
    Ok(passes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, FiniteGroup, FlowMatching, Rows, Scheme, Seed, StepFigures};

    const A: [[f64; 3]; 3] = [[2.0, 0.3, -1.0], [0.0, 0.5, 0.7], [1.1, -0.2, -1.0]];
    const B: [[f64; 3]; 3] = [[0.1, 0.0, 0.4], [-0.3, 0.2, 0.0], [0.0, 0.6, -0.5]];
    const TIME: f64 = 0.25;

    fn times(m: &[[f64; 3]; 3], x: &[f64]) -> [f64; 3] {
        m.map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2])
    }

    /// `A x + B x_sc`, the second term where there is a self-conditioning input. Counts its passes.
    #[derive(Default)]
    struct Linear {
        passes: usize,
    }

    impl Model for Linear {
        fn output_kind(&self) -> FieldKind {
            FieldKind::Vector
        }
        fn output_rows(&self) -> Rows {
            Rows::Point
        }
        fn output_width(&self, _: &Batch) -> usize {
            3
        }
        fn predict_into(&mut self, batch: &Batch, _: Weights, out: &mut Vec<f64>) -> Result<(), CoreError> {
            self.passes += 1;
            *out = batch.field("positions")?.reals()?.chunks(3).flat_map(|x| times(&A, x)).collect();
            if let Ok(fed) = batch.field("self_conditioning") {
                let more = fed.reals()?.chunks(3).flat_map(|x| times(&B, x));
                out.iter_mut().zip(more).for_each(|(o, m)| *o += m);
            }
            Ok(())
        }
        fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
            Err(CoreError::Model("it does not train".into()))
        }
        fn vjp_into(&mut self, _: &Batch, _: &[f64], _: &str, _: &mut Vec<f64>) -> Result<(), CoreError> {
            Err(CoreError::Model("it has no gradient".into()))
        }
        fn parameters_into(&self, _: &str, _: &mut Vec<f64>) -> Result<(), CoreError> {
            Ok(())
        }
        fn set_parameters(&mut self, _: &str, _: &[f64]) -> Result<(), CoreError> {
            Ok(())
        }
        fn save(&self) -> Result<Vec<u8>, CoreError> {
            Ok(Vec::new())
        }
        fn load(&mut self, _: &[u8]) -> Result<(), CoreError> {
            Ok(())
        }
        fn synchronise(&mut self) -> Result<(), CoreError> {
            Ok(())
        }
    }

    const X: [f64; 6] = [0.3, -1.2, 0.7, 2.0, 0.1, -0.4];

    fn sample() -> Supervised {
        let cloud = |name: &str, values: Vec<f64>| Field::real(name, FieldKind::Vector, Rows::Point, vec![2, 3], values);
        let inputs = Batch {
            offsets: vec![0, 2],
            fields: vec![cloud("positions", X.to_vec()), Field::real("flow_time", FieldKind::Invariant, Rows::Sample, vec![1], vec![TIME])],
        };
        Supervised { inputs, target: Some(cloud("target", vec![0.0; 6])), labels: Vec::new() }
    }

    /// `E‖Z − μ‖²` of `x ↦ M x`: `(‖M‖²_F / 3 − (tr M / 3)²) ‖x‖²`.
    fn spread(m: &[[f64; 3]; 3]) -> f64 {
        let trace = (m[0][0] + m[1][1] + m[2][2]) / 3.0;
        let frobenius: f64 = m.iter().flatten().map(|v| v * v).sum();
        (frobenius / 3.0 - trace * trace) * X.iter().map(|x| x * x).sum::<f64>()
    }

    #[test]
    fn a_self_conditioned_linear_model_is_measured_as_its_two_pass_composite() {
        // f2(x) = A x + B (x + (1 − t) A x), linear again.
        let mut composite = A;
        for (i, row) in composite.iter_mut().enumerate() {
            for (j, entry) in row.iter_mut().enumerate() {
                let product: f64 = (0..3).map(|k| B[i][k] * A[k][j]).sum();
                *entry += B[i][j] + (1.0 - TIME) * product;
            }
        }
        let samples = sample();
        let plans = [Scheme::Exhaustive(FiniteGroup::Tetrahedral).plan(Seed::new(1), 0)];
        let how = Measurement { weights: Weights::Raw, loss: PointLoss::Mse, estimator: Estimator::Unbiased };
        let mut model = Linear::default();
        let terms = measure_variants(&mut model, &FlowMatching, &samples, &plans, how, &Variant::ALL).unwrap();
        assert_eq!(model.passes, 24, "two passes for each of 12 rotations serve both variants");
        // Linear maps are averaged exactly by the tetrahedral group; sums of 12 rotations round at 1e-15.
        assert!((terms[0][0].loss_equiv / spread(&A) - 1.0).abs() < 1e-13);
        assert!((terms[1][0].loss_equiv / spread(&composite) - 1.0).abs() < 1e-13);
        let plain = measure_variants(&mut model, &FlowMatching, &samples, &plans, how, &[Variant::Plain]).unwrap();
        assert_eq!((model.passes, &plain[0]), (36, &terms[0]));
        assert!(measure_variants(&mut model, &crate::ForceField, &samples, &plans, how, &Variant::ALL).is_err());
    }
}

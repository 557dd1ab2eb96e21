//! Predictions, un-rotated and added to the twirls beside the model's thread.

use super::{
    copies::WAITING,
    portion::{Output, Portion},
};
use crate::{
    CoreError, FieldKind, SampleTerms, TwirlAccumulator, Values,
    action::{act_inverse_on_rows, grid_rotation, prediction_range},
    numbers::map_into,
};
use rayon::prelude::*;
use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{Scope, ScopedJoinHandle},
};

/// A prediction on its way to the twirls.
pub(super) struct Prediction {
    pub(super) of: Arc<Portion>,
    pub(super) output: Output,
    /// Of which pass of the model.
    pub(super) pass: usize,
    /// For which rotated copy.
    pub(super) copy: usize,
    pub(super) values: Values,
}

/// Terms by pass, for each sample.
pub(super) type Terms = Vec<Vec<SampleTerms>>;

/// Takes predictions and adds them to the twirls, beside the model's thread. Buffers go round.
pub(super) struct Gatherer<'scope> {
    predictions: SyncSender<Prediction>,
    free: Receiver<Values>,
    thread: ScopedJoinHandle<'scope, Result<Vec<Terms>, CoreError>>,
}

impl<'scope> Gatherer<'scope> {
    pub(super) fn start(scope: &'scope Scope<'scope, '_>) -> Self {
        let (predictions, arriving) = sync_channel(WAITING);
        let (used, free) = channel();
        let thread = scope.spawn(move || gather(&arriving, &used));
        Self {
            predictions,
            free,
            thread,
        }
    }

    pub(super) fn buffer(&self) -> Values {
        self.free.try_recv().unwrap_or_default()
    }

    pub(super) fn push(&self, arrived: Prediction) -> Result<(), CoreError> {
        self.predictions
            .send(arrived)
            .map_err(|_| CoreError::Shape("the thread that gathers predictions has ended".into()))
    }

    /// The terms of each portion, in order.
    pub(super) fn finish(self) -> Result<Vec<Terms>, CoreError> {
        drop(self.predictions);
        self.thread
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn gather(arriving: &Receiver<Prediction>, used: &Sender<Values>) -> Result<Vec<Terms>, CoreError> {
    let mut found = Vec::new();
    // Of the portion that is gathered, one for each pass.
    let mut twirls: Vec<Twirls> = Vec::new();
    while let Ok(Prediction {
        of,
        output,
        pass,
        copy,
        mut values,
    }) = arriving.recv()
    {
        if copy == 0 && pass == 0 {
            finish(&mut twirls, &mut found);
        }
        if copy == 0 {
            twirls.push(Twirls::new(of, output)?);
        }
        twirls[pass].push(copy, &mut values)?;
        let _ = used.send(values);
    }
    finish(&mut twirls, &mut found);
    Ok(found)
}

fn finish(twirls: &mut Vec<Twirls>, found: &mut Vec<Terms>) {
    if !twirls.is_empty() {
        found.push(twirls.drain(..).map(|twirls| twirls.finish()).collect());
    }
}

/// The twisted predictions of a batch, as they come.
struct Twirls {
    of: Arc<Portion>,
    output: Output,
    accumulators: Vec<TwirlAccumulator>,
    /// Numbers that are rotated in double precision.
    wide: Vec<f64>,
}

impl Twirls {
    fn new(of: Arc<Portion>, output: Output) -> Result<Self, CoreError> {
        let Output { rows, width, .. } = output;
        let (inputs, target) = (&of.samples.inputs, of.samples.target_values()?);
        let of_sample = |s: usize| -> Result<TwirlAccumulator, CoreError> {
            let own = target.get(prediction_range(inputs, rows, width, s));
            let own = own.ok_or_else(|| {
                CoreError::Shape(format!(
                    "the target has {} numbers, too few for rows of {width}",
                    target.len()
                ))
            })?;
            Ok(TwirlAccumulator::new(
                own.to_vec(),
                width,
                of.plans[s].cosets,
                of.how.loss,
            ))
        };
        let accumulators = (0..inputs.samples())
            .map(of_sample)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            of,
            output,
            accumulators,
            wide: Vec::new(),
        })
    }

    /// Un-rotates a prediction and adds it.
    fn push(&mut self, copy: usize, prediction: &mut Values) -> Result<(), CoreError> {
        if self.output.kind == FieldKind::VoxelGrid {
            return self.push_grids(copy, prediction);
        }
        match prediction {
            Values::Real(values) => self.push_rows(copy, values),
            Values::Single(values) => {
                let mut wide = std::mem::take(&mut self.wide);
                map_into(values, &mut wide, f64::from);
                let pushed = self.push_rows(copy, &mut wide);
                self.wide = wide;
                pushed
            }
            Values::Index(_) => Err(CoreError::Shape(
                "the model predicts labels, numbers were expected".into(),
            )),
        }
    }

    fn push_rows(&mut self, copy: usize, prediction: &mut [f64]) -> Result<(), CoreError> {
        let Self {
            of,
            output: Output { kind, rows, width },
            accumulators,
            ..
        } = self;
        let shape = of
            .samples
            .target
            .as_ref()
            .map(|t| t.shape.as_slice())
            .unwrap_or_default();
        for (sample, (accumulator, plan)) in
            accumulators.iter_mut().zip(of.plans.iter()).enumerate()
        {
            let values =
                &mut prediction[prediction_range(&of.samples.inputs, *rows, *width, sample)];
            act_inverse_on_rows(&plan.rotations[copy], *kind, shape, values)?;
            accumulator.push(plan.coset_of(copy), values);
        }
        Ok(())
    }

    /// Grids are rotated on the way, in the precision in which they come.
    fn push_grids(&mut self, copy: usize, prediction: &Values) -> Result<(), CoreError> {
        let Self {
            of,
            output: Output { rows, width, .. },
            accumulators,
            ..
        } = self;
        let shape = of
            .samples
            .target
            .as_ref()
            .map(|t| t.shape.as_slice())
            .unwrap_or_default();
        for (sample, (accumulator, plan)) in
            accumulators.iter_mut().zip(of.plans.iter()).enumerate()
        {
            let own = prediction_range(&of.samples.inputs, *rows, *width, sample);
            let turn = grid_rotation(&plan.rotations[copy].inverse(), shape);
            let turn = turn.map_err(|why| CoreError::Action {
                field: "prediction".into(),
                why,
            })?;
            match prediction {
                Values::Single(values) => {
                    accumulator.push_rotated(plan.coset_of(copy), &turn, &values[own])
                }
                values => {
                    accumulator.push_rotated(plan.coset_of(copy), &turn, &values.widened()[own])
                }
            }
        }
        Ok(())
    }

    fn finish(&self) -> Vec<SampleTerms> {
        self.accumulators
            .par_iter()
            .map(|t| t.finish(self.of.how.estimator))
            .collect()
    }
}

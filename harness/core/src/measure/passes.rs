//! All passes of the model over all copies of all portions, on the thread of the caller.

use super::{
    copies::{Copies, RotatedCopy},
    gather::{Gatherer, Prediction},
    portion::{Measured, Output, Portion},
};
use crate::{Batch, CoreError, Deviation, Field, Model, Task, Values};
use std::sync::Arc;

/// A rotated copy, and what the shared path predicts for it.
type Kept = (Batch, Vec<f64>);

/// Measures portions in order. Without a task, one pass over each copy is all there is.
pub(super) fn run(
    model: &mut dyn Model,
    task: Option<&dyn Task>,
    portions: impl Iterator<Item = Result<Portion, CoreError>> + Send,
    watch: &mut dyn FnMut() -> Result<(), CoreError>,
) -> Result<Vec<Measured>, CoreError> {
    std::thread::scope(|scope| {
        let copies = Copies::ahead(scope, portions);
        let gatherer = Gatherer::start(scope);
        let mut passes = Passes {
            model,
            task,
            copies: &copies,
            gatherer: &gatherer,
            watch,
        };
        let found = passes.all();
        // Its own error is the cause where the model's thread found it gone.
        let terms = gatherer.finish()?;
        let measured = found?.into_iter().zip(terms);
        Ok(measured
            .map(|((of, deviation), terms)| Measured {
                readings: of.read(&terms),
                of,
                deviation,
            })
            .collect())
    })
}

struct Passes<'a, 'scope> {
    model: &'a mut dyn Model,
    /// What makes the input of a further pass.
    task: Option<&'a dyn Task>,
    copies: &'a Copies,
    gatherer: &'a Gatherer<'scope>,
    watch: &'a mut dyn FnMut() -> Result<(), CoreError>,
}

impl Passes<'_, '_> {
    fn all(&mut self) -> Result<Vec<(Arc<Portion>, Deviation)>, CoreError> {
        let mut found = Vec::new();
        while let Some(first) = self.copies.next()? {
            let portion = Arc::clone(&first.of);
            let deviation = self.portion(first)?;
            found.push((portion, deviation));
        }
        Ok(found)
    }

    /// Predicts every copy of a portion and hands the predictions on.
    fn portion(&mut self, first: RotatedCopy) -> Result<Deviation, CoreError> {
        let portion = Arc::clone(&first.of);
        if !portion.sharing {
            return self.copies_of(first).map(|_| Deviation::default());
        }
        let weights = portion.how.weights;
        self.model.share(&portion.samples.inputs, weights)?;
        let kept = self.copies_of(first);
        let ended = self.model.end_sharing();
        let kept = kept?;
        ended?;
        let mut deviation = Deviation::default();
        let mut blind = Vec::new();
        for (copy, shared) in kept {
            self.model.predict_into(&copy, weights, &mut blind)?;
            deviation.compare(&shared, &blind, copy.samples());
        }
        Ok(deviation)
    }

    /// Predicts every copy of a portion; returns those that are to be checked.
    fn copies_of(&mut self, first: RotatedCopy) -> Result<Vec<Kept>, CoreError> {
        let mut kept = Vec::new();
        let portion = Arc::clone(&first.of);
        let inputs = &portion.samples.inputs;
        let output = Output {
            kind: self.model.output_kind(),
            rows: self.model.output_rows(),
            width: self.model.output_width(inputs),
        };
        let mut next = Some(first);
        for index in 0..portion.copies()? {
            let copy = match next.take() {
                Some(copy) => Some(copy),
                None => self.copies.next()?,
            };
            let Some(RotatedCopy { mut copy, .. }) = copy else {
                let why = "the thread that rotates the inputs has ended";
                return Err(CoreError::Shape(why.into()));
            };
            self.passes_over(&portion, index, &mut copy, output, &mut kept)?;
            self.copies.give_back(copy);
        }
        Ok(kept)
    }

    /// Every pass over one copy, each further one fed with the prediction before.
    fn passes_over(
        &mut self,
        portion: &Arc<Portion>,
        index: usize,
        copy: &mut Batch,
        output: Output,
        kept: &mut Vec<Kept>,
    ) -> Result<(), CoreError> {
        let passes = portion.passes();
        for pass in 0..passes {
            let prediction = self.predict(portion, copy)?;
            if let Some(checked) = &portion.checked
                && portion.sharing
                && checked.rotation == index
            {
                let wide = prediction.widened();
                let own = Portion::rows_of(output, copy, &wide, &checked.samples);
                kept.push((copy.select(&checked.samples), own));
            }
            if pass + 1 < passes {
                let fed = fed_field(self.task, copy, &prediction)?;
                copy.fields.retain(|field| field.name != fed.name);
                copy.fields.push(fed);
            }
            self.gatherer.push(Prediction {
                of: Arc::clone(portion),
                output,
                pass,
                copy: index,
                values: prediction,
            })?;
        }
        Ok(())
    }

    fn predict(&mut self, portion: &Portion, copy: &Batch) -> Result<Values, CoreError> {
        let mut prediction = self.gatherer.buffer();
        self.model
            .predict_values_into(copy, portion.how.weights, &mut prediction)?;
        let expected = portion.samples.target_values()?.len();
        if prediction.len() != expected {
            return Err(CoreError::Shape(format!(
                "the model predicts {} numbers, the target has {expected}",
                prediction.len()
            )));
        }
        (self.watch)()?;
        Ok(prediction)
    }
}

fn fed_field(
    task: Option<&dyn Task>,
    copy: &Batch,
    prediction: &Values,
) -> Result<Field, CoreError> {
    let fed = match task {
        Some(task) => task.feed_back(copy, &prediction.widened())?,
        None => None,
    };
    fed.ok_or_else(|| {
        let name = task.map_or("none", Task::name);
        CoreError::Shape(format!("task {name} feeds nothing back to a further pass"))
    })
}

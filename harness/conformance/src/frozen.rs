//! What lies frozen below a parameter group: predictions and products from it are those of the whole model, and it goes when it must.

use crate::{
    gradient::{normals, vjp},
    subject::ModelSubject,
    toy::Toy,
    values::{any_rotation, predict, relative_difference, rounding},
    verdict::{Stop, fail},
};
use equivbench_abi::{FEATURES, FROZEN_BELOW, PREDICT_ABOVE, VJP_ABOVE};
use equivbench_core::{
    Batch, CoreError, FieldKind, FrozenBelow, LinearGroup, LinearRows, Model, Rotation, Seed,
    Stream, act, norm,
};
use equivbench_host::LoadedModel;

/// Rotated copies in a frozen batch.
const COPIES: usize = 3;
/// Slots of the two batches that are frozen at once, and one that stays empty.
const SLOTS: [usize; 2] = [0, 3];
const EMPTY: usize = 1;

/// Tries the ability for one group, in f64 with rotated copies and in f32.
pub(crate) fn below(subject: &ModelSubject<'_>, group: &str) -> Result<String, Stop> {
    let precise = subject.open_precise()?;
    // Copies that are rounded to f32 differ by more than rotations, so there is only one of them.
    let copies = if precise.is_double() { COPIES } else { 1 };
    let figures = Trial::new(precise, subject, group, copies)?.run(subject)?;
    Trial::new(subject.open()?, subject, group, 1)?.run(subject)?;
    Ok(format!("{FROZEN_BELOW}:{group}: {figures}"))
}

/// Largest relative differences from the whole model.
#[derive(Default)]
struct Differences {
    predictions: f64,
    products: f64,
    /// Where the group is linear.
    features: Option<f64>,
}

impl std::fmt::Display for Differences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (predictions, products) = (self.predictions, self.products);
        write!(f, "predictions {predictions:.0e}, products {products:.0e}")?;
        match self.features {
            Some(features) => write!(f, ", linear, features {features:.0e}"),
            None => Ok(()),
        }
    }
}

/// A model with two batches to freeze.
struct Trial<'a> {
    model: LoadedModel,
    group: &'a str,
    batches: [Batch; 2],
    copies: usize,
    stream: Stream,
}

impl<'a> Trial<'a> {
    fn new(
        model: LoadedModel,
        subject: &ModelSubject<'_>,
        group: &'a str,
        copies: usize,
    ) -> Result<Self, Stop> {
        if !model.groups().iter().any(|(name, _)| name == group) {
            return fail(format!(
                "{FROZEN_BELOW}: there is no parameter group \"{group}\""
            ));
        }
        let mut stream = Seed::new(1).stream("frozen");
        let mut batch = |number| {
            rotated_copies(
                &Toy::of(subject.descriptor, number).inputs,
                copies,
                &mut stream,
            )
        };
        let batches = [batch(1)?, batch(2)?];
        Ok(Self {
            model,
            group,
            batches,
            copies,
            stream,
        })
    }

    fn run(&mut self, subject: &ModelSubject<'_>) -> Result<Differences, Stop> {
        let limit = if self.copies > 1 {
            // f64 throughout: rounding of some hundred operations; what changes with rotation differs by parts in a thousand and more.
            1e-9
        } else {
            rounding(&self.model)
        };
        let found = self.compare(limit)?;
        self.refusals()?;
        self.endings(subject)?;
        Ok(found)
    }

    fn handle(&mut self) -> Result<Box<dyn FrozenBelow + '_>, Stop> {
        match self.model.frozen_below(self.group) {
            Some(handle) => Ok(handle),
            None => fail(format!("{FROZEN_BELOW}:{} is not offered", self.group)),
        }
    }

    fn freeze(&mut self) -> Result<(), Stop> {
        let (batches, copies) = (self.batches.clone(), self.copies);
        let mut handle = self.handle()?;
        for (slot, batch) in SLOTS.into_iter().zip(&batches) {
            handle.freeze(slot, batch, copies)?;
        }
        Ok(())
    }

    /// Holds predictions, products and features against those of the whole model, for the weights as they are and for others of the group.
    fn compare(&mut self, limit: f64) -> Result<Differences, Stop> {
        self.freeze()?;
        let mut worst = Differences::default();
        for moved in [false, true] {
            if moved {
                self.move_group()?;
            }
            for (slot, batch) in SLOTS.into_iter().zip(self.batches.clone()) {
                let when = if moved {
                    "after its parameters were changed"
                } else {
                    "at first"
                };
                self.compare_slot(slot, &batch, &mut worst)?;
                for (what, difference) in [
                    (PREDICT_ABOVE, worst.predictions),
                    (VJP_ABOVE, worst.products),
                    (FEATURES, worst.features.unwrap_or(0.0)),
                ] {
                    if difference > limit {
                        let (group, precision) = (self.group, &self.model.instance().precision);
                        return fail(format!(
                            "{what}:{group} differs from the whole model by {difference:.1e} {when} ({precision}, {} rotated copies, slot {slot}); {limit:.0e} is allowed",
                            self.copies
                        ));
                    }
                }
            }
        }
        Ok(worst)
    }

    fn compare_slot(
        &mut self,
        slot: usize,
        batch: &Batch,
        worst: &mut Differences,
    ) -> Result<(), Stop> {
        let expected = predict(&mut self.model, batch)?;
        let cotangent = normals(&mut self.stream, expected.len());
        let gradient = vjp(&mut self.model, batch, &cotangent, self.group)?;
        let parameters = self.parameters()?;
        let mut handle = self.handle()?;
        let (mut prediction, mut product) = (Vec::new(), Vec::new());
        handle.predict_into(slot, &mut prediction)?;
        handle.vjp_into(slot, &cotangent, &mut product)?;
        let linear = handle.linear();
        let rebuilt = match &linear {
            Some(linear) => Some(rebuild(
                handle.as_mut(),
                slot,
                linear,
                &parameters,
                batch.samples(),
                expected.len(),
            )?),
            None => None,
        };
        drop(handle);
        worst.predictions = worst
            .predictions
            .max(relative_difference(&prediction, &expected));
        worst.products = worst.products.max(relative_difference(&product, &gradient));
        if let Some(rebuilt) = rebuilt {
            let difference = relative_difference(&rebuilt, &expected);
            worst.features = Some(worst.features.unwrap_or(0.0).max(difference));
        }
        Ok(())
    }

    fn parameters(&self) -> Result<Vec<f64>, CoreError> {
        let mut parameters = Vec::new();
        self.model.parameters_into(self.group, &mut parameters)?;
        Ok(parameters)
    }

    fn move_group(&mut self) -> Result<(), Stop> {
        let mut parameters = self.parameters()?;
        let typical = norm(&parameters) / (parameters.len().max(1) as f64).sqrt();
        let steps = normals(&mut self.stream, parameters.len());
        // A group of zeros moves too.
        let size = if typical > 0.0 { 0.3 * typical } else { 0.1 };
        parameters
            .iter_mut()
            .zip(steps)
            .for_each(|(p, step)| *p += size * step);
        Ok(self.model.set_parameters(self.group, &parameters)?)
    }

    /// Whether the model itself, asked past the handle, still predicts from a slot.
    fn answers(&mut self, group: &str, slot: f64, count: usize) -> bool {
        let nothing = Batch {
            offsets: vec![0],
            fields: vec![],
        };
        let name = format!("{PREDICT_ABOVE}:{group}");
        self.model
            .capability(&name, &nothing, &[slot], count)
            .is_ok()
    }

    /// Numbers in a prediction of either batch: toys have samples of the same sizes.
    fn size(&mut self) -> Result<usize, Stop> {
        Ok(predict(&mut self.model, &self.batches[0].clone())?.len())
    }

    /// Groups without the ability, empty slots and batches that are not made of copies.
    fn refusals(&mut self) -> Result<(), Stop> {
        let count = self.size()?;
        let group = self.group;
        for (group, slot) in [
            (group, EMPTY as f64),
            (group, 0.5),
            (group, -1.0),
            ("no-such-group", 0.0),
        ] {
            if self.answers(group, slot, count) {
                return fail(format!(
                    "{PREDICT_ABOVE}:{group} answers for slot {slot}, which is empty"
                ));
            }
        }
        let base = self.batches[0].clone();
        let uneven = base.select(&(0..base.samples()).chain([0]).collect::<Vec<_>>());
        let name = format!("{FROZEN_BELOW}:{group}");
        if self
            .model
            .capability(&name, &uneven, &[SLOTS[0] as f64, 2.0], 0)
            .is_ok()
        {
            return fail(format!(
                "{name} accepts {} samples as two copies of the same ones",
                uneven.samples()
            ));
        }
        Ok(())
    }

    /// A step, a loaded state, new parameters outside the group and a release empty every slot.
    fn endings(&mut self, subject: &ModelSubject<'_>) -> Result<(), Stop> {
        let (count, training) = (self.size()?, Toy::of(subject.descriptor, 1).training);
        let group = self.group;
        let groups = self.model.groups();
        let scalars = |name: &str| groups.iter().find(|g| g.0 == name).map(|g| g.1);
        let below = scalars("all") > scalars(group);
        let state = self.model.save()?;
        for ending in [
            "a training step",
            "a loaded state",
            "parameters of \"all\"",
            "a release",
        ] {
            self.freeze()?;
            if !self.answers(group, SLOTS[1] as f64, count) {
                return fail(format!(
                    "{PREDICT_ABOVE}:{group} does not answer for slot {}, which was just filled",
                    SLOTS[1]
                ));
            }
            match ending {
                "a training step" => drop(self.model.train_step(&training)?),
                "a loaded state" => self.model.load(&state)?,
                "a release" => self.handle()?.release()?,
                _ if below => {
                    let mut all = Vec::new();
                    self.model.parameters_into("all", &mut all)?;
                    self.model.set_parameters("all", &all)?;
                }
                _ => continue,
            }
            for slot in SLOTS {
                if self.answers(group, slot as f64, count) {
                    return fail(format!(
                        "{ending} left slot {slot} of {FROZEN_BELOW}:{group} as it was"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Copies of a batch, one after the other: the first as it is, each sample of the others rotated in its own way.
fn rotated_copies(base: &Batch, copies: usize, stream: &mut Stream) -> Result<Batch, Stop> {
    let samples = base.samples();
    let has_grid = base.fields.iter().any(|f| f.kind == FieldKind::VoxelGrid);
    let repeated: Vec<usize> = (0..copies * samples).map(|k| k % samples).collect();
    let rotations: Vec<Rotation> = (0..copies * samples)
        .map(|k| {
            if k < samples {
                Rotation::IDENTITY
            } else {
                any_rotation(has_grid, stream)
            }
        })
        .collect();
    let mut batch = Batch::default();
    act(&rotations, &base.select(&repeated), &mut batch)?;
    Ok(batch)
}

/// The prediction from features, which are fetched in two parts, and parameters.
fn rebuild(
    handle: &mut dyn FrozenBelow,
    slot: usize,
    linear: &LinearGroup,
    parameters: &[f64],
    samples: usize,
    numbers: usize,
) -> Result<Vec<f64>, Stop> {
    let mut places = linear.index.clone();
    places.sort_unstable();
    if places != (0..parameters.len()).collect::<Vec<_>>() {
        return fail(format!(
            "{FEATURES}: the index does not name each of the {} parameters once",
            parameters.len()
        ));
    }
    if !numbers.is_multiple_of(linear.blocks) {
        return fail(format!(
            "{FEATURES}: {numbers} numbers of a prediction do not have {} components",
            linear.blocks
        ));
    }
    let rows = numbers / linear.blocks;
    let voxels = match linear.rows {
        LinearRows::Point => 1,
        LinearRows::Voxel => rows / samples,
    };
    let mut rebuilt = vec![0.0; numbers];
    let (mut features, middle) = (Vec::new(), rows / 3);
    for part in [0..middle, middle..rows] {
        handle.features_into(slot, part.clone(), &mut features)?;
        let values = linear.apply(&features, parameters);
        for (row, values) in part.zip(values.chunks_exact(linear.blocks)) {
            for (block, value) in values.iter().enumerate() {
                rebuilt[linear.place(row, block, voxels)] = *value;
            }
        }
    }
    Ok(rebuilt)
}

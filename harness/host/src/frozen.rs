//! What a plugin's model keeps of fixed batches below a parameter group, as the harness sees it.

use crate::HostError;
use equivbench_abi::{self as abi, descriptor::LinearGroupDescriptor};
use equivbench_core::{Batch, CoreError, FrozenBelow, LinearGroup, LinearRows};
use std::{collections::BTreeMap, ops::Range};

/// A batch without samples: what calls about a slot bring along.
pub(crate) fn no_batch() -> Batch {
    Batch {
        offsets: vec![0],
        fields: vec![],
    }
}

/// Numbers in the prediction of each frozen batch, by group and slot. A slot that the model emptied since may still be here: the model
/// itself says so when it is asked.
pub(crate) type FrozenSizes = BTreeMap<(String, usize), usize>;

/// What the ability asks of the model behind it.
pub(crate) trait KeepsBelow {
    /// Runs an optional ability by name.
    fn capability(
        &mut self,
        name: &str,
        batch: &Batch,
        input: &[f64],
        length: usize,
    ) -> Result<Vec<f64>, HostError>;
    /// Whether a batch is one that the model can read.
    fn check_batch(&self, batch: &Batch) -> Result<(), CoreError>;
    /// Numbers in the prediction of a batch.
    fn prediction_size(&self, batch: &Batch) -> usize;
    /// Scalars of a group.
    fn scalars_of(&self, group: &str) -> Result<usize, CoreError>;
    /// How the prediction is linear in a group.
    fn linear(&self, group: &str) -> Option<&LinearGroup>;
    /// Sizes of what is kept.
    fn sizes(&mut self) -> &mut FrozenSizes;
}

/// The ability of one model for one group.
pub(crate) struct Frozen<'a> {
    pub(crate) model: &'a mut dyn KeepsBelow,
    pub(crate) group: String,
}

impl Frozen<'_> {
    fn run(
        &mut self,
        ability: &str,
        batch: &Batch,
        input: &[f64],
        length: usize,
    ) -> Result<Vec<f64>, CoreError> {
        let name = format!("{ability}:{}", self.group);
        self.model
            .capability(&name, batch, input, length)
            .map_err(HostError::of_model)
    }

    /// Numbers in the prediction of the batch in a slot.
    fn size(&mut self, slot: usize) -> Result<usize, CoreError> {
        let key = (self.group.clone(), slot);
        self.model.sizes().get(&key).copied().ok_or_else(|| {
            CoreError::Model(format!(
                "no batch was frozen below group \"{}\" in slot {slot}",
                self.group
            ))
        })
    }
}

impl FrozenBelow for Frozen<'_> {
    fn freeze(&mut self, slot: usize, batch: &Batch, copies: usize) -> Result<(), CoreError> {
        let samples = batch.samples();
        if copies == 0 || !samples.is_multiple_of(copies) {
            return Err(CoreError::Shape(format!(
                "a batch of {samples} samples does not hold {copies} copies of the same ones"
            )));
        }
        self.model.check_batch(batch)?;
        let input = [slot as f64, copies as f64];
        self.run(abi::FROZEN_BELOW, batch, &input, 0)?;
        let size = self.model.prediction_size(batch);
        self.model.sizes().insert((self.group.clone(), slot), size);
        Ok(())
    }

    fn predict_into(&mut self, slot: usize, out: &mut Vec<f64>) -> Result<(), CoreError> {
        let size = self.size(slot)?;
        *out = self.run(abi::PREDICT_ABOVE, &no_batch(), &[slot as f64], size)?;
        Ok(())
    }

    fn vjp_into(
        &mut self,
        slot: usize,
        cotangent: &[f64],
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let size = self.size(slot)?;
        if cotangent.len() != size {
            return Err(CoreError::Shape(format!(
                "the cotangent has {} numbers, the prediction in slot {slot} {size}",
                cotangent.len()
            )));
        }
        let scalars = self.model.scalars_of(&self.group)?;
        let mut input = Vec::with_capacity(1 + size);
        input.push(slot as f64);
        input.extend_from_slice(cotangent);
        *out = self.run(abi::VJP_ABOVE, &no_batch(), &input, scalars)?;
        Ok(())
    }

    fn linear(&self) -> Option<LinearGroup> {
        self.model.linear(&self.group).cloned()
    }

    fn features_into(
        &mut self,
        slot: usize,
        rows: Range<usize>,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let size = self.size(slot)?;
        let Some(linear) = self.model.linear(&self.group) else {
            let group = &self.group;
            return Err(CoreError::Model(format!(
                "the prediction is not linear in group \"{group}\""
            )));
        };
        let (count, width) = (size / linear.blocks.max(1), linear.row_width());
        if rows.start > rows.end || rows.end > count {
            return Err(CoreError::Shape(format!(
                "rows {} to {} of the features in slot {slot} were asked for, there are {count}",
                rows.start, rows.end
            )));
        }
        let input = [slot, rows.start, rows.len()].map(|n| n as f64);
        *out = self.run(abi::FEATURES, &no_batch(), &input, rows.len() * width)?;
        Ok(())
    }

    fn release(&mut self) -> Result<(), CoreError> {
        self.model
            .sizes()
            .retain(|(group, _), _| *group != self.group);
        self.run(abi::FROZEN_BELOW, &no_batch(), &[], 0).map(drop)
    }
}

/// Linear groups by name.
///
/// # Errors
/// What the description of a group lacks.
pub(crate) fn linear_groups(
    described: &[LinearGroupDescriptor],
) -> Result<BTreeMap<String, LinearGroup>, String> {
    described
        .iter()
        .map(|group| Ok((group.group.clone(), linear_group(group)?)))
        .collect()
}

fn linear_group(described: &LinearGroupDescriptor) -> Result<LinearGroup, String> {
    let wrong = |what: String| format!("linear group \"{}\": {what}", described.group);
    let rows = match described.rows.as_str() {
        "point" => LinearRows::Point,
        "voxel" => LinearRows::Voxel,
        other => {
            return Err(wrong(format!(
                "rows \"{other}\" are not known to this program"
            )));
        }
    };
    let places = described.index.len();
    if described.blocks.checked_mul(described.width) != Some(places as u64) || places == 0 {
        return Err(wrong(format!(
            "its index has {places} places for {} blocks of {}",
            described.blocks, described.width
        )));
    }
    Ok(LinearGroup {
        blocks: described.blocks as usize,
        width: described.width as usize,
        shared: described.shared,
        index: described.index.iter().map(|&at| at as usize).collect(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_that_do_not_add_up_are_refused() {
        let head = LinearGroupDescriptor {
            group: "head".into(),
            blocks: 3,
            width: 2,
            shared: true,
            index: vec![0, 3, 1, 4, 2, 5],
            rows: "point".into(),
        };
        let linear = linear_groups(std::slice::from_ref(&head)).unwrap();
        assert_eq!(linear["head"].index, [0, 3, 1, 4, 2, 5]);
        let refused = |change: &dyn Fn(&mut LinearGroupDescriptor)| {
            let mut wrong = head.clone();
            change(&mut wrong);
            linear_groups(&[wrong]).unwrap_err()
        };
        assert!(refused(&|g| g.rows = "atom".into()).contains("rows \"atom\""));
        assert!(refused(&|g| g.width = 3).contains("6 places for 3 blocks of 3"));
        assert!(refused(&|g| g.blocks = u64::MAX).contains("6 places"));
        assert!(refused(&|g| (g.blocks, g.index) = (0, vec![])).contains("0 places"));
    }
}

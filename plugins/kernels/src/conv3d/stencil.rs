//! Which weights connect which cells.
//!
//! All kinds of convolution are one relation between a *dense* grid of cells and a *fine* grid with `split` points per cell
//! and axis: weight `k` connects cell `m` with point `split * m + k - pad`. Gathering sums points into cells (ordinary and
//! strided convolutions, gradients of transposed ones), spreading goes the other way. Points are sorted into classes by
//! their place in their cell, so that both ways connect cells with shifted cells only.

use super::field::Field;

/// The relation along each of the three axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stencil {
    /// Points of the fine grid per cell and axis.
    pub(super) split: usize,
    /// Weights per axis.
    pub(super) width: usize,
    /// Cells around the grid that are read as zeros; also how far weight 0 lies before the first point of the cell.
    pub(super) pad: usize,
}

/// One term of a sum over weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    /// Which weight of a channel pair.
    pub(super) weight: usize,
    /// How far behind the begin of its padded neighbourhood the input lies.
    pub(super) input: usize,
}

impl Stencil {
    /// Weights per pair of channels.
    pub(super) fn weights(self) -> usize {
        self.width.pow(3)
    }

    /// Classes of points: places in a cell.
    pub(super) fn classes(self) -> usize {
        self.split.pow(3)
    }

    /// For weight `k` of an axis, the place of its point in a cell, and by how many cells that lies ahead.
    fn meets(self, k: usize) -> (usize, isize) {
        let ahead = k as isize - self.pad as isize;
        let split = self.split as isize;
        (ahead.rem_euclid(split) as usize, ahead.div_euclid(split))
    }

    /// The class of the points of each weight, and by how many cells they lie ahead along each axis, in the order of weights.
    fn all(self) -> impl Iterator<Item = (usize, [isize; 3])> {
        let width = self.width;
        (0..self.weights()).map(move |weight| {
            let axes = [
                weight / (width * width),
                weight / width % width,
                weight % width,
            ]
            .map(|k| self.meets(k));
            let class = axes
                .iter()
                .fold(0, |class, (place, _)| class * self.split + place);
            (class, axes.map(|(_, ahead)| ahead))
        })
    }

    /// The terms of a cell, in a field of points.
    pub(super) fn gathering(self, field: &Field) -> Vec<Tap> {
        let tap = |(weight, (class, ahead))| Tap {
            weight,
            input: field.offset(class, ahead),
        };
        self.all().enumerate().map(tap).collect()
    }

    /// For each class of points the terms of a point, in a field of cells.
    pub(super) fn spreading(self, field: &Field) -> Vec<Vec<Tap>> {
        let mut classes = vec![Vec::new(); self.classes()];
        for (weight, (class, ahead)) in self.all().enumerate() {
            classes[class].push(Tap {
                weight,
                input: field.offset(0, ahead.map(|ahead| -ahead)),
            });
        }
        classes
    }
}

/// The terms of a group of channels in one list, so that one short loop goes through all of them.
#[derive(Debug)]
pub(super) struct Terms {
    /// Channels of a group.
    pub(super) channels: usize,
    /// Channel by channel; where `step` is set, only the first of each three terms.
    list: Vec<Tap>,
    /// If every three terms have consecutive weights and inputs at this distance: that distance.
    pub(super) step: Option<isize>,
}

impl Terms {
    /// Terms of a group at least, so that going to and from its sums costs little; more leave the first-level cache.
    const MANY: usize = 216;

    /// Weights and inputs of consecutive channels are `strides` apart.
    pub(super) fn new(taps: &[Tap], strides: [usize; 2]) -> Self {
        let channels = (Self::MANY / taps.len().max(1)).max(1);
        let step = common_step(taps);
        let firsts = taps.iter().step_by(if step.is_some() { 3 } else { 1 });
        let of_channel = |channel: usize| {
            firsts.clone().map(move |tap| Tap {
                weight: tap.weight + channel * strides[0],
                input: tap.input + channel * strides[1],
            })
        };
        Self {
            channels,
            list: (0..channels).flat_map(of_channel).collect(),
            step,
        }
    }

    /// The terms of the first channels of a group.
    pub(super) fn of(&self, channels: usize) -> &[Tap] {
        &self.list[..self.list.len() / self.channels * channels]
    }
}

/// The distance of inputs within each three taps, if there is one for all, and their weights are consecutive.
fn common_step(taps: &[Tap]) -> Option<isize> {
    let distance = |pair: &[Tap]| pair[1].input as isize - pair[0].input as isize;
    let step = distance(taps.get(..2)?);
    let regular = |pair: &[Tap]| pair[1].weight == pair[0].weight + 1 && distance(pair) == step;
    let (threes, rest) = taps.as_chunks::<3>();
    (rest.is_empty() && threes.iter().all(|three| three.windows(2).all(regular))).then_some(step)
}

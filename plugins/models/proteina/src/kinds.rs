//! Classes of pairs of residues, and the kinds of pairs that occur.
//!
//! A pair of residues enters the network through its classes only, and most classes occur many times: the pair representation is
//! made once for each *kind* of pair that occurs (flow time, separation, distances). Pairs with a register are of the kind 0, whose
//! representation is zero. Only the class of the distance in an estimate of the clean cloud differs between rotations of a batch.

use crate::{
    ProteinaConfig,
    bins::{Boundaries, Cloud, separation_class},
    features::Features,
    inputs::Inputs,
    layout::Layout,
};
use equivbench_kernels::{KernelError, RowChoice, RowIndex};
use rayon::prelude::*;

/// The classes of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Classes {
    time: u32,
    separation: u32,
    distance: u32,
    self_conditioning: u32,
}

/// The classes of all pairs of residues, chain by chain, row by row, without those in an estimate of the clean cloud.
#[derive(Clone, Debug)]
pub(crate) struct PairClasses(Vec<Vec<Classes>>);

impl PairClasses {
    pub(crate) fn new(inputs: &Inputs, config: &ProteinaConfig, time_of_chain: &[usize]) -> Self {
        let precision = inputs.site.precision;
        let boundaries = Boundaries::new(
            config.position_from_nm,
            config.position_to_nm,
            config.position_bins,
            precision,
        );
        let cloud = Cloud::new(&inputs.positions, precision);
        let of_chain = |chain: usize| {
            let (first, n) = (
                inputs.offsets[chain],
                inputs.offsets[chain + 1] - inputs.offsets[chain],
            );
            let numbers = &inputs.residue_index[first..first + n];
            let classes = |row: usize, column: usize| Classes {
                time: time_of_chain[chain] as u32,
                separation: separation_class(
                    numbers[row],
                    numbers[column],
                    config.sequence_separation_bins,
                ) as u32,
                distance: boundaries.class(cloud.distance(first + row, first + column)) as u32,
                self_conditioning: 0,
            };
            (0..n * n).map(|pair| classes(pair / n, pair % n)).collect()
        };
        Self(
            (0..time_of_chain.len())
                .into_par_iter()
                .map(of_chain)
                .collect(),
        )
    }

    /// The same, with the classes in an estimate of the clean cloud of all residues.
    fn with_estimate(
        &self,
        estimate: &Cloud<'_>,
        config: &ProteinaConfig,
        layout: &Layout,
    ) -> Self {
        let (from, to) = (
            config.self_conditioning_from_nm,
            config.self_conditioning_to_nm,
        );
        let boundaries = Boundaries::new(
            from,
            to,
            config.self_conditioning_bins,
            estimate.precision(),
        );
        let firsts: Vec<usize> = layout
            .lengths()
            .iter()
            .scan(0, |next, n| Some(std::mem::replace(next, *next + n)))
            .collect();
        let of_chain = |(classes, (&first, &n)): (&Vec<Classes>, (&usize, &usize))| {
            let class = |pair: usize| {
                boundaries.class(estimate.distance(first + pair / n, first + pair % n)) as u32
            };
            classes
                .iter()
                .enumerate()
                .map(|(pair, known)| Classes {
                    self_conditioning: class(pair),
                    ..*known
                })
                .collect()
        };
        Self(
            self.0
                .par_iter()
                .zip(firsts.par_iter().zip(layout.lengths()))
                .map(of_chain)
                .collect(),
        )
    }
}

/// Which pairs are alike.
#[derive(Clone, Debug)]
pub(crate) struct PairKinds {
    /// `[kinds]` rows of the time embedding; none for kind 0.
    pub(crate) times: RowChoice,
    /// `[kinds]` classes of separation.
    pub(crate) separations: RowChoice,
    /// `[kinds]` classes of distance in the noisy cloud.
    pub(crate) distances: RowChoice,
    /// `[kinds]` classes of distance in the self-conditioning cloud, where there is one.
    pub(crate) self_conditioning: Option<RowChoice>,
    /// For every run, the kinds of its pairs, registers included.
    pub(crate) of_run: Vec<RowIndex>,
}

impl PairKinds {
    /// Without or with an estimate of the clean cloud of all residues.
    pub(crate) fn new(
        features: &Features,
        estimate: Option<&Cloud<'_>>,
        config: &ProteinaConfig,
    ) -> Result<Self, KernelError> {
        let conditioned = estimate.map(|cloud| {
            features
                .classes
                .with_estimate(cloud, config, &features.layout)
        });
        let (known, kinds) = numbered(
            conditioned.as_ref().unwrap_or(&features.classes),
            features,
            config,
            estimate.is_some(),
        );
        let mut kinds = kinds.into_iter();
        let of_run = features.layout.runs.iter().map(|run| {
            RowIndex::new(
                1 + known.len(),
                &kinds
                    .by_ref()
                    .take(run.chains)
                    .flatten()
                    .collect::<Vec<_>>(),
            )
        });
        let of_run = of_run.collect::<Result<_, _>>()?;
        // Kind 0 has no classes.
        let choose = |rows: usize, class: fn(&Classes) -> u32| {
            let all: Vec<u32> = std::iter::once(RowChoice::NONE)
                .chain(known.iter().map(class))
                .collect();
            RowChoice::new(rows, all)
        };
        Ok(Self {
            times: choose(features.times(), |c| c.time)?,
            separations: choose(config.sequence_separation_bins, |c| c.separation)?,
            distances: choose(config.position_bins, |c| c.distance)?,
            self_conditioning: match estimate {
                Some(_) => Some(choose(config.self_conditioning_bins, |c| {
                    c.self_conditioning
                })?),
                None => None,
            },
            of_run,
        })
    }
}

/// All kinds, and for every chain those of its pairs of tokens.
fn numbered(
    classes: &PairClasses,
    features: &Features,
    config: &ProteinaConfig,
    self_conditioning: bool,
) -> (Vec<Classes>, Vec<Vec<usize>>) {
    let mut numbers = KindNumbers::new(config, self_conditioning);
    let mut kinds = vec![Vec::new(); classes.0.len()];
    // Time by time: places are known for the kinds of one time.
    let mut order: Vec<usize> = (0..classes.0.len()).collect();
    order.sort_by_key(|&chain| features.time_of_chain[chain]);
    for chain in order {
        kinds[chain] = numbers.kinds_of_chain(
            &classes.0[chain],
            features.layout.lengths()[chain],
            config.registers,
        );
    }
    (numbers.known, kinds)
}

/// Numbers kinds in order of appearance.
struct KindNumbers {
    known: Vec<Classes>,
    /// One entry for each combination of classes at one time: where in `known` it may be. An entry counts only if what is there agrees.
    places: Vec<u32>,
    distances: usize,
    self_conditioning: usize,
}

impl KindNumbers {
    fn new(config: &ProteinaConfig, self_conditioning: bool) -> Self {
        let self_conditioning = if self_conditioning {
            config.self_conditioning_bins
        } else {
            1
        };
        let places =
            vec![0; config.sequence_separation_bins * config.position_bins * self_conditioning];
        Self {
            known: Vec::new(),
            places,
            distances: config.position_bins,
            self_conditioning,
        }
    }

    fn number(&mut self, classes: Classes) -> usize {
        let row = classes.separation as usize * self.distances + classes.distance as usize;
        let place =
            &mut self.places[row * self.self_conditioning + classes.self_conditioning as usize];
        if self.known.get(*place as usize) != Some(&classes) {
            *place = self.known.len() as u32;
            self.known.push(classes);
        }
        1 + *place as usize
    }

    /// The kinds of all pairs of tokens of a chain of `n` residues.
    fn kinds_of_chain(&mut self, classes: &[Classes], n: usize, registers: usize) -> Vec<usize> {
        let tokens = registers + n;
        let mut kinds = vec![0; tokens * tokens];
        for (row, classes) in kinds[registers * tokens..]
            .chunks_exact_mut(tokens)
            .zip(classes.chunks_exact(n))
        {
            row[registers..]
                .iter_mut()
                .zip(classes)
                .for_each(|(kind, &classes)| *kind = self.number(classes));
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::tests::three_chains;

    fn config() -> ProteinaConfig {
        ProteinaConfig::new(8, 2, 1)
            .with_position_bins(6)
            .with_self_conditioning_bins(5)
            .with_sequence_separation_bins(7)
            .with_registers(2)
    }

    /// The features of three chains and the kinds of their pairs, without and with an estimate of 0.9 times the cloud.
    fn both() -> [(Features, PairKinds, Option<Vec<f64>>); 2] {
        let inputs = three_chains();
        let estimate: Vec<f64> = inputs.positions.iter().map(|x| 0.9 * x).collect();
        [None, Some(estimate)].map(|estimate| {
            let features = Features::new(&inputs, &config()).unwrap();
            let cloud = estimate
                .as_ref()
                .map(|points| Cloud::new(points, inputs.site.precision));
            let kinds = PairKinds::new(&features, cloud.as_ref(), &config()).unwrap();
            (features, kinds, estimate)
        })
    }

    /// The classes of a pair of residues, counted through the batch: separation, distances in the cloud and in the estimate.
    fn expected(inputs: &Inputs, estimate: Option<&[f64]>, row: usize, column: usize) -> [u32; 3] {
        let class = |points: &[f64], bins: usize| {
            let boundaries = Boundaries::new(0.1, 3.0, bins, inputs.site.precision);
            boundaries.class(Cloud::new(points, inputs.site.precision).distance(row, column)) as u32
        };
        let separation =
            separation_class(inputs.residue_index[row], inputs.residue_index[column], 7) as u32;
        [
            separation,
            class(&inputs.positions, 6),
            estimate.map_or(0, |points| class(points, 5)),
        ]
    }

    #[test]
    fn every_pair_has_the_kind_of_its_own_classes() {
        let inputs = three_chains();
        for (features, kinds, estimate) in both() {
            assert_eq!(features.time_of_chain, [0, 1, 0]);
            let index: Vec<u32> = kinds
                .of_run
                .iter()
                .flat_map(|run| run.index().to_vec())
                .collect();
            let mut next = index.iter();
            for chain in 0..3 {
                let (first, n) = (inputs.offsets[chain], features.layout.lengths()[chain]);
                for row in 0..n + 2 {
                    for column in 0..n + 2 {
                        let kind = *next.next().unwrap() as usize;
                        if row < 2 || column < 2 {
                            assert_eq!(kind, 0);
                            continue;
                        }
                        let classes = expected(
                            &inputs,
                            estimate.as_deref(),
                            first + row - 2,
                            first + column - 2,
                        );
                        assert_eq!(
                            kinds.times.index()[kind] as usize,
                            features.time_of_chain[chain]
                        );
                        assert_eq!(kinds.separations.index()[kind], classes[0]);
                        assert_eq!(kinds.distances.index()[kind], classes[1]);
                        if let Some(own) = &kinds.self_conditioning {
                            assert_eq!(own.index()[kind], classes[2]);
                        }
                    }
                }
            }
            assert!(next.next().is_none());
            assert_eq!(kinds.times.index()[0], RowChoice::NONE);
            assert_eq!(kinds.self_conditioning.is_some(), estimate.is_some());
        }
    }

    #[test]
    fn kinds_are_listed_once() {
        let [_, (_, kinds, _)] = both();
        let own = kinds.self_conditioning.as_ref().unwrap();
        let classes = |k: usize| {
            [&kinds.times, &kinds.separations, &kinds.distances, own]
                .map(|choice| choice.index()[k])
        };
        let all: std::collections::BTreeSet<_> =
            (0..kinds.times.index().len()).map(classes).collect();
        assert_eq!(all.len(), kinds.times.index().len());
    }
}

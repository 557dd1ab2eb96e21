//! Everything that follows from the inputs alone: embeddings, classes of pairs, and the rows where things lie.
//!
//! A pair of residues enters the network through its classes only, and most classes occur many times: the pair representation is
//! made once for each *kind* of pair that occurs (flow time, separation, distances). Pairs with a register are of the kind 0, whose
//! representation is zero.

use crate::{
    ProteinaConfig,
    bins::{Boundaries, Cloud, separation_class},
    inputs::Inputs,
    layout::Layout,
};
use burn::tensor::Tensor;
use equivbench_kernels::{KernelError, RowChoice, RowIndex};
use rayon::prelude::*;
use std::f64::consts::PI;

/// The fixed inputs of the network, on its device.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    pub(crate) layout: Layout,
    /// `[times, time_width]`, one row for each different flow time.
    pub(crate) time_embedding: Tensor<2>,
    /// `[chains]` rows of it.
    pub(crate) time_of_chain: Vec<usize>,
    /// `[residues, 3]`, nm.
    pub(crate) positions: Tensor<2>,
    /// `[residues, index_width + 4]`.
    pub(crate) sequence: Tensor<2>,
    /// `[tokens]` rows of `cat([registers, residues])`.
    pub(crate) tokens: RowIndex,
    /// `[residues]` rows of the tokens.
    pub(crate) residues: RowIndex,
    /// `[tokens]` rows of the conditioning table: 0 for registers, one more than its time for a residue.
    pub(crate) groups: RowChoice,
    pub(crate) kinds: PairKinds,
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

impl Features {
    pub(crate) fn new(inputs: &Inputs, config: &ProteinaConfig) -> Result<Self, KernelError> {
        let layout = Layout::new(&inputs.offsets, config.registers);
        let (times, time_of_chain) = distinct(&inputs.flow_time);
        let embedded: Vec<f64> = times.iter().flat_map(|&t| time_embedding(t, config.time_width)).collect();
        let groups = layout.groups_of_tokens(&time_of_chain);
        let kinds = PairKinds::new(inputs, config, &layout, &time_of_chain, times.len())?;
        let (site, residues) = (&inputs.site, layout.residues());
        Ok(Self {
            time_embedding: site.upload(embedded, [times.len(), config.time_width]),
            positions: site.upload(inputs.positions.clone(), [residues, 3]),
            sequence: site.upload(sequence_features(inputs, config), [residues, config.sequence_features()]),
            tokens: layout.sources_of_tokens()?,
            residues: layout.tokens_of_residues()?,
            groups: RowChoice::new(1 + times.len(), groups.iter().map(|&g| g as u32).collect::<Vec<_>>())?,
            kinds,
            time_of_chain,
            layout,
        })
    }
}

/// The different numbers in order of appearance, and the place of each number among them.
fn distinct(values: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let mut found: Vec<f64> = Vec::new();
    let places = values
        .iter()
        .map(|value| {
            found.iter().position(|f| f == value).unwrap_or_else(|| {
                found.push(*value);
                found.len() - 1
            })
        })
        .collect();
    (found, places)
}

/// All sines, then all cosines of `2000 t 2000^(-k / (width/2 - 1))`; an odd width ends in 0.
fn time_embedding(t: f64, width: usize) -> Vec<f64> {
    let half = width / 2;
    let phase = |k: usize| 2000.0 * t * (-(k as f64) * 2000f64.ln() / (half - 1) as f64).exp();
    let mut values: Vec<f64> = (0..half).map(|k| phase(k).sin()).chain((0..half).map(|k| phase(k).cos())).collect();
    values.resize(width, 0.0);
    values
}

/// The angles of the first number of a chain: `pi / 2056^(2 k / width)`.
fn index_angles(width: usize) -> Vec<f64> {
    (0..width / 2).map(|k| PI / 2056f64.powf(2.0 * k as f64 / width as f64)).collect()
}

/// `[residues, index_width + 4]`.
fn sequence_features(inputs: &Inputs, config: &ProteinaConfig) -> Vec<f64> {
    let mut features = Vec::with_capacity(inputs.residue_index.len() * config.sequence_features());
    let angles = index_angles(config.index_width);
    for chain in inputs.offsets.windows(2) {
        let first = inputs.residue_index[chain[0]];
        for residue in chain[0]..chain[1] {
            let j = inputs.residue_index[residue].saturating_sub(first).saturating_add(1) as f64;
            // All sines, then all cosines, of a number that counts from 1.
            features.extend(angles.iter().map(|angle| (j * angle).sin()));
            features.extend(angles.iter().map(|angle| (j * angle).cos()));
            let chain_break = f64::from(u8::from(inputs.chain_break[residue]));
            let clean: [f64; 3] = inputs.self_conditioning.as_ref().map_or([0.0; 3], |x| std::array::from_fn(|axis| x[3 * residue + axis]));
            if config.chain_break_first {
                features.push(chain_break);
            }
            features.extend(clean);
            if !config.chain_break_first {
                features.push(chain_break);
            }
        }
    }
    features
}

/// The classes of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Classes {
    time: u32,
    separation: u32,
    distance: u32,
    self_conditioning: u32,
}

impl PairKinds {
    fn new(inputs: &Inputs, config: &ProteinaConfig, layout: &Layout, time_of_chain: &[usize], times: usize) -> Result<Self, KernelError> {
        let classes = Classifier::new(inputs, config);
        let of_chain: Vec<Vec<Classes>> = (0..time_of_chain.len()).into_par_iter().map(|k| classes.of_chain(k, time_of_chain[k])).collect();
        let (known, kinds) = catalogued(&of_chain, time_of_chain, layout, config, inputs.self_conditioning.is_some());
        let mut kinds = kinds.into_iter();
        let of_run =
            layout.runs.iter().map(|run| RowIndex::new(1 + known.len(), &kinds.by_ref().take(run.chains).flatten().collect::<Vec<_>>()));
        let of_run = of_run.collect::<Result<_, _>>()?;
        // Kind 0 has no classes.
        let choose = |rows: usize, class: fn(&Classes) -> u32| {
            let all: Vec<u32> = std::iter::once(RowChoice::NONE).chain(known.iter().map(class)).collect();
            RowChoice::new(rows, all)
        };
        Ok(Self {
            times: choose(times, |c| c.time)?,
            separations: choose(config.sequence_separation_bins, |c| c.separation)?,
            distances: choose(config.position_bins, |c| c.distance)?,
            self_conditioning: match inputs.self_conditioning {
                Some(_) => Some(choose(config.self_conditioning_bins, |c| c.self_conditioning)?),
                None => None,
            },
            of_run,
        })
    }
}

/// Finds the classes of pairs.
struct Classifier<'a> {
    inputs: &'a Inputs,
    separations: usize,
    noisy: Boundaries,
    clean: Boundaries,
}

impl<'a> Classifier<'a> {
    fn new(inputs: &'a Inputs, config: &ProteinaConfig) -> Self {
        let precision = inputs.site.precision;
        Self {
            inputs,
            separations: config.sequence_separation_bins,
            noisy: Boundaries::new(config.position_from_nm, config.position_to_nm, config.position_bins, precision),
            clean: Boundaries::new(
                config.self_conditioning_from_nm,
                config.self_conditioning_to_nm,
                config.self_conditioning_bins,
                precision,
            ),
        }
    }

    /// All pairs of residues of a chain, row by row.
    fn of_chain(&self, chain: usize, time: usize) -> Vec<Classes> {
        let precision = self.inputs.site.precision;
        let (from, to) = (self.inputs.offsets[chain], self.inputs.offsets[chain + 1]);
        let noisy = Cloud::new(&self.inputs.positions[3 * from..3 * to], precision);
        let clean = self.inputs.self_conditioning.as_ref().map(|x| Cloud::new(&x[3 * from..3 * to], precision));
        let numbers = &self.inputs.residue_index[from..to];
        let classes = |row: usize, column: usize| Classes {
            time: time as u32,
            separation: separation_class(numbers[row], numbers[column], self.separations) as u32,
            distance: self.noisy.class(noisy.distance(row, column)) as u32,
            self_conditioning: clean.as_ref().map_or(0, |cloud| self.clean.class(cloud.distance(row, column)) as u32),
        };
        (0..to - from).flat_map(|row| (0..to - from).map(move |column| (row, column))).map(|(row, column)| classes(row, column)).collect()
    }
}

/// All kinds, and for every chain those of its pairs of tokens.
fn catalogued(
    of_chain: &[Vec<Classes>],
    time_of_chain: &[usize],
    layout: &Layout,
    config: &ProteinaConfig,
    self_conditioning: bool,
) -> (Vec<Classes>, Vec<Vec<usize>>) {
    let mut catalogue = Catalogue::new(config, self_conditioning);
    let mut kinds = vec![Vec::new(); of_chain.len()];
    // Time by time: a catalogue remembers the kinds of one time.
    let mut order: Vec<usize> = (0..of_chain.len()).collect();
    order.sort_by_key(|&chain| time_of_chain[chain]);
    for chain in order {
        kinds[chain] = catalogue.kinds_of_chain(&of_chain[chain], layout.lengths()[chain], config.registers);
    }
    (catalogue.known, kinds)
}

/// Numbers kinds in order of appearance.
struct Catalogue {
    known: Vec<Classes>,
    /// One entry for each combination of classes at one time: where in `known` it may be. An entry counts only if what is there agrees.
    places: Vec<u32>,
    distances: usize,
    self_conditioning: usize,
}

impl Catalogue {
    fn new(config: &ProteinaConfig, self_conditioning: bool) -> Self {
        let self_conditioning = if self_conditioning { config.self_conditioning_bins } else { 1 };
        let places = vec![0; config.sequence_separation_bins * config.position_bins * self_conditioning];
        Self { known: Vec::new(), places, distances: config.position_bins, self_conditioning }
    }

    fn number(&mut self, classes: Classes) -> usize {
        let row = classes.separation as usize * self.distances + classes.distance as usize;
        let place = &mut self.places[row * self.self_conditioning + classes.self_conditioning as usize];
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
        for (row, classes) in kinds[registers * tokens..].chunks_exact_mut(tokens).zip(classes.chunks_exact(n)) {
            row[registers..].iter_mut().zip(classes).for_each(|(kind, &classes)| *kind = self.number(classes));
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Site;
    use burn::tensor::Device;
    use equivbench_plugin::Precision;

    fn config() -> ProteinaConfig {
        ProteinaConfig::new(8, 2, 1).with_position_bins(6).with_self_conditioning_bins(5).with_sequence_separation_bins(7).with_registers(2)
    }

    fn inputs(self_conditioning: bool) -> Inputs {
        let positions: Vec<f64> = (0..30).map(|k| (f64::from(k) * 0.37).sin() * 1.5).collect();
        Inputs {
            offsets: vec![0, 4, 8, 10],
            flow_time: vec![0.25, 0.5, 0.25],
            residue_index: vec![3, 4, 5, 9, -2, -1, 0, 1, 7, 8],
            chain_break: vec![false, false, true, false, false, false, false, false, false, false],
            self_conditioning: self_conditioning.then(|| positions.iter().map(|x| 0.9 * x).collect()),
            site: Site { device: Device::flex(), precision: Precision::F64 },
            positions,
        }
    }

    #[test]
    fn every_pair_has_the_kind_of_its_own_classes() {
        for self_conditioning in [false, true] {
            let (inputs, config) = (inputs(self_conditioning), config());
            let features = Features::new(&inputs, &config).unwrap();
            let kinds = &features.kinds;
            assert_eq!(features.time_of_chain, [0, 1, 0]);
            let classifier = Classifier::new(&inputs, &config);
            let index: Vec<u32> = kinds.of_run.iter().flat_map(|run| run.index().to_vec()).collect();
            let mut next = index.iter();
            for chain in 0..3 {
                let n = features.layout.lengths()[chain];
                let expected = classifier.of_chain(chain, features.time_of_chain[chain]);
                for row in 0..n + 2 {
                    for column in 0..n + 2 {
                        let kind = *next.next().unwrap() as usize;
                        if row < 2 || column < 2 {
                            assert_eq!(kind, 0);
                            continue;
                        }
                        let classes = expected[(row - 2) * n + column - 2];
                        assert_eq!(kinds.times.index()[kind], classes.time);
                        assert_eq!(kinds.separations.index()[kind], classes.separation);
                        assert_eq!(kinds.distances.index()[kind], classes.distance);
                        if let Some(own) = &kinds.self_conditioning {
                            assert_eq!(own.index()[kind], classes.self_conditioning);
                        }
                    }
                }
            }
            assert!(next.next().is_none());
            assert_eq!(kinds.times.index()[0], RowChoice::NONE);
            assert_eq!(kinds.self_conditioning.is_some(), self_conditioning);
        }
    }

    #[test]
    fn kinds_are_listed_once() {
        let features = Features::new(&inputs(true), &config()).unwrap();
        let kinds = &features.kinds;
        let own = kinds.self_conditioning.as_ref().unwrap();
        let classes = |k: usize| [&kinds.times, &kinds.separations, &kinds.distances, own].map(|choice| choice.index()[k]);
        let all: std::collections::BTreeSet<_> = (0..kinds.times.index().len()).map(classes).collect();
        assert_eq!(all.len(), kinds.times.index().len());
    }

    #[test]
    fn sequence_features_count_from_the_first_residue_and_keep_the_published_order() {
        let numbers = inputs(true);
        let first = sequence_features(&numbers, &config().with_index_width(2));
        let last = sequence_features(&numbers, &config().with_index_width(2).with_chain_break_first(false));
        // Residue 2 of the first chain is number 5, the third; its chain is broken behind it.
        let (first, last) = (&first[12..18], &last[12..18]);
        assert!((first[0] - (3.0 * PI).sin()).abs() < 1e-15 && (first[1] - (3.0 * PI).cos()).abs() < 1e-15);
        assert_eq!((first[2], last[5]), (1.0, 1.0));
        assert_eq!(first[3..], last[2..5]);
        assert_eq!(first[3], numbers.self_conditioning.as_ref().unwrap()[6]);
    }

    #[test]
    fn an_odd_time_embedding_ends_in_zero_and_the_first_phase_is_two_thousand_times_the_time() {
        let embedded = time_embedding(0.3, 7);
        assert_eq!((embedded.len(), embedded[6]), (7, 0.0));
        assert!((embedded[0] - 600f64.sin()).abs() < 1e-12 && (embedded[3] - 600f64.cos()).abs() < 1e-12);
        assert!((embedded[2] - 0.3f64.sin()).abs() < 1e-12);
    }
}

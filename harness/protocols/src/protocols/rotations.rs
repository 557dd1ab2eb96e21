//! How many rotations a twirled prediction needs (claim 14, "five to ten rotations give a stable twirled prediction"): rotation schemes
//! against a large reference, over independent repeats (`docs/post-processing.md`).

use crate::{
    Moment, Protocol, Schedule, SetAbout, Snapshot, Twisted, TwistedSample, columns, when::When,
};
use equivbench_core::{
    Balance, Column, Condition, CoreError, Estimator, FiniteGroup, LossDecomposition, PointLoss,
    Rotation, RotationPlan, SampleTerms, Scheme, Seed, Sink, Spread, Table, TableInfo, Weights,
    cube16_a, cube16_b, equiv_without_replacement, rms_beyond_reference,
};
use serde::{Deserialize, Serialize};
use std::{
    num::NonZeroU64,
    sync::{Arc, LazyLock},
};

static ROTATIONS: LazyLock<Table<RotationsRow>> = LazyLock::new(|| Table {
    name: "rotations",
    about: "how many rotations a twirled prediction needs: rotation schemes against a large reference, over independent repeats; first passes with the raw weights",
    columns: [
        vec![
            columns::version(),
            columns::step(|r: &RotationsRow| r.moment.step),
            columns::weights(|_: &RotationsRow| Weights::Raw),
        ],
        columns::samples_measured(|r: &RotationsRow| &*r.set),
        columns::condition(|r: &RotationsRow| &r.condition),
        drawing(),
        twirls(),
        quantity(PERCENT, "%", |f| f.percent),
        quantity(LOSS_EQUIV, "target²", |f| f.loss_equiv),
        sizes(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// One scheme under one condition.
struct RotationsRow {
    moment: Moment,
    set: Arc<SetAbout>,
    condition: Condition,
    loss: PointLoss,
    scheme: String,
    rotations: u64,
    cosets: Option<u64>,
    repeats: u64,
    figures: Figures,
    common: Common,
}

/// What is the same for all schemes.
#[derive(Clone)]
struct Common {
    samples: u64,
    model_calls: u64,
    reference_scheme: String,
    reference_rotations: u64,
    reference: Reference,
}

/// What is known of the reference.
#[derive(Clone, Copy)]
struct Reference {
    /// Its mean square error for a component; 0 for a group that is summed out, `None` where one coset says nothing of itself.
    mean_square_error: Option<f64>,
    /// Power of its twirled prediction.
    twirled_power: f64,
    percent: f64,
    loss_equiv: f64,
}

/// A quantity by both estimators, over repeats.
#[derive(Clone, Copy)]
struct Both {
    reference: f64,
    plug_in: Spread,
    /// `None` where there is no unbiased estimate.
    unbiased: Option<Spread>,
}

/// What a scheme gives.
#[derive(Clone, Copy)]
struct Figures {
    /// Over repeats, the mean square distance from the reference.
    mean_square: f64,
    /// Over repeats, its root.
    rms: Spread,
    percent: Both,
    loss_equiv: Both,
}

impl RotationsRow {
    /// The error of the twirled prediction.
    fn twirl_rms(&self) -> Option<f64> {
        let of_reference = self.common.reference.mean_square_error?;
        rms_beyond_reference(self.figures.mean_square, of_reference)
    }

    fn twirled_rms(&self) -> Option<f64> {
        let power = self.common.reference.twirled_power;
        (power > 0.0).then(|| power.sqrt())
    }
}

fn drawing() -> Vec<Column<RotationsRow>> {
    vec![
        Column::new(
            "scheme",
            "",
            "how rotations are drawn: random-N, GROUP-xK (K Haar rotations times the group); on voxel grids random-N of the 24 rotations of the cube without replacement, the groups and the two sets of 16 as they are",
            |r: &RotationsRow| r.scheme.clone(),
        ),
        Column::new(
            "rotations",
            "rotations",
            "twisted predictions that are averaged",
            |r: &RotationsRow| r.rotations,
        ),
        Column::new(
            "cosets",
            "",
            "independent blocks among them; empty where they are of a finite group",
            |r: &RotationsRow| r.cosets,
        ),
    ]
}

fn twirls() -> Vec<Column<RotationsRow>> {
    vec![
        Column::new(
            "twirl_rms",
            "target",
            "root-mean-square error of the twirled prediction over components, samples and repeats, the error of the reference taken out: sqrt(twirl_rms_uncorrected² - reference_rms²); empty where the reference is not good enough to tell, or its own error is not known",
            RotationsRow::twirl_rms,
        ),
        Column::new(
            "twirl_rms_relative",
            "",
            "twirl_rms / twirled_rms",
            |r: &RotationsRow| ratio(r.twirl_rms(), r.twirled_rms()),
        ),
        Column::new(
            "twirl_rms_uncorrected",
            "target",
            "root-mean-square distance from the twirled prediction of the reference",
            |r: &RotationsRow| r.figures.mean_square.sqrt(),
        ),
        Column::new(
            "twirl_rms_sd",
            "target",
            "standard deviation over repeats of that distance in one repeat; empty for one repeat",
            |r: &RotationsRow| r.figures.rms.deviation,
        ),
        Column::new(
            "reference_rms",
            "target",
            "root-mean-square error of the reference, from the spread of its cosets; 0 for a group that is summed out; empty for a single coset",
            |r: &RotationsRow| r.common.reference.mean_square_error.map(f64::sqrt),
        ),
        Column::new(
            "twirled_rms",
            "target",
            "root mean square of the twirled prediction, by the reference; empty where next to nothing is predicted",
            RotationsRow::twirled_rms,
        ),
    ]
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let (a, b) = a.zip(b)?;
    Some(a / b).filter(|ratio| ratio.is_finite())
}

/// Names and meanings of the columns of a quantity by both estimators.
type Names = [(&'static str, &'static str); 7];

const PERCENT: Names = [
    (
        "equiv_percent_reference",
        "percent loss from equivariance error over the rotations of the reference (unbiased, or exact)",
    ),
    (
        "equiv_percent_plug_in",
        "mean over repeats of the percent by the plug-in estimate",
    ),
    (
        "equiv_percent_plug_in_bias",
        "that mean minus equiv_percent_reference",
    ),
    (
        "equiv_percent_plug_in_sd",
        "standard deviation over repeats of the percent of one repeat; empty for one repeat",
    ),
    (
        "equiv_percent_unbiased",
        "the same by the unbiased estimate; empty for a single coset, for a set used whole, and for losses other than the squared error",
    ),
    (
        "equiv_percent_unbiased_bias",
        "that mean minus equiv_percent_reference",
    ),
    (
        "equiv_percent_unbiased_sd",
        "standard deviation over repeats",
    ),
];

const LOSS_EQUIV: Names = [
    (
        "loss_equiv_reference",
        "L_equiv over the rotations of the reference (unbiased, or exact)",
    ),
    (
        "loss_equiv_plug_in",
        "mean over repeats of L_equiv by the plug-in estimate",
    ),
    (
        "loss_equiv_plug_in_bias",
        "that mean minus loss_equiv_reference",
    ),
    (
        "loss_equiv_plug_in_sd",
        "standard deviation over repeats; empty for one repeat",
    ),
    (
        "loss_equiv_unbiased",
        "the same by the unbiased estimate; empty where equiv_percent_unbiased is",
    ),
    (
        "loss_equiv_unbiased_bias",
        "that mean minus loss_equiv_reference",
    ),
    ("loss_equiv_unbiased_sd", "standard deviation over repeats"),
];

fn quantity(
    names: Names,
    unit: &'static str,
    of: fn(&Figures) -> Both,
) -> Vec<Column<RotationsRow>> {
    type Read = fn(Both) -> Option<f64>;
    let reads: [Read; 7] = [
        |q| Some(q.reference),
        |q| Some(q.plug_in.mean),
        |q| Some(q.plug_in.mean - q.reference),
        |q| q.plug_in.deviation,
        |q| q.unbiased.map(|u| u.mean),
        |q| q.unbiased.map(|u| u.mean - q.reference),
        |q| q.unbiased.and_then(|u| u.deviation),
    ];
    let column = |((name, about), read): ((&'static str, &'static str), Read)| {
        Column::new(name, unit, about, move |r: &RotationsRow| {
            read(of(&r.figures))
        })
    };
    names.into_iter().zip(reads).map(column).collect()
}

fn sizes() -> Vec<Column<RotationsRow>> {
    vec![
        Column::new(
            "measured_loss",
            "",
            "the loss: mse, mae or l2",
            |r: &RotationsRow| r.loss.name(),
        ),
        Column::new(
            "samples",
            "samples",
            "samples that were twirled",
            |r: &RotationsRow| r.common.samples,
        ),
        Column::new(
            "repeats",
            "",
            "independent draws of the scheme; 1 for a set that is not drawn",
            |r: &RotationsRow| r.repeats,
        ),
        Column::new(
            "model_calls",
            "predictions",
            "predictions of each sample that this comparison took under this condition: all schemes, all repeats and the reference",
            |r: &RotationsRow| r.common.model_calls,
        ),
        Column::new(
            "reference_scheme",
            "",
            "rotations of the reference",
            |r: &RotationsRow| r.common.reference_scheme.clone(),
        ),
        Column::new(
            "reference_rotations",
            "rotations",
            "how many they are",
            |r: &RotationsRow| r.common.reference_rotations,
        ),
    ]
}

/// A rotation scheme by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct SchemeName(Scheme);

impl TryFrom<String> for SchemeName {
    type Error = CoreError;
    fn try_from(name: String) -> Result<Self, CoreError> {
        Scheme::parse(&name).map(Self)
    }
}

impl From<SchemeName> for String {
    fn from(SchemeName(scheme): SchemeName) -> Self {
        scheme.name()
    }
}

/// `[protocols.rotations]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotationsSettings {
    /// After which steps: numbers, or `"last"`.
    at: When,
    /// Samples at most.
    samples: NonZeroU64,
    /// Independent draws of each scheme.
    repeats: NonZeroU64,
    /// What schemes are held against on clouds; on voxel grids it is all 24 rotations of the cube.
    reference: SchemeName,
}

impl Default for RotationsSettings {
    fn default() -> Self {
        Self {
            at: When::last(),
            samples: NonZeroU64::MIN.saturating_add(15),
            repeats: NonZeroU64::MIN.saturating_add(7),
            reference: SchemeName(Scheme::Structured {
                group: FiniteGroup::Icosahedral,
                cosets: 4,
            }),
        }
    }
}

/// Numbers of random rotations.
const RANDOM: [usize; 5] = [2, 3, 5, 10, 24];

/// Some of the twisted predictions of a sample, as one draw of a scheme has them.
struct Drawn {
    scheme: String,
    copies: Vec<usize>,
    /// Independent blocks; `None` for elements of a finite group.
    cosets: Option<usize>,
    /// Whether the elements of a finite group were drawn at random.
    is_subset: bool,
}

/// Rotations of a sample, and which of them belong to the reference and to each draw.
struct Design {
    plan: RotationPlan,
    reference: Drawn,
    draws: Vec<Drawn>,
}

/// Chooses rotations.
struct Designer {
    is_grid: bool,
    reference: Scheme,
    repeats: u64,
    seed: Seed,
}

impl Designer {
    fn design(&self, index: u64) -> Design {
        if self.is_grid {
            self.grids(index)
        } else {
            self.clouds(index)
        }
    }

    /// Everything is drawn from SO(3). Within a repeat predictions serve several schemes: a coset of the octahedral group holds one of the
    /// tetrahedral, the first element of each coset is a Haar rotation, and fewer random rotations are the first of more. Repeats and
    /// reference share none.
    fn clouds(&self, index: u64) -> Design {
        let stream = |name: &str| self.seed.indexed_stream(name, index);
        let reference = self.reference.draw(&mut stream("how-many/reference"));
        let (mut rotations, cosets) = (reference.rotations, reference.cosets);
        let reference = Drawn {
            scheme: self.reference.name(),
            copies: (0..rotations.len()).collect(),
            cosets: Some(cosets),
            is_subset: false,
        };
        let mut draws = Vec::new();
        for repeat in 0..self.repeats {
            let mut stream = stream(&format!("how-many/{repeat}"));
            let mut haar = || Rotation::haar(&mut stream);
            let mut add = |start: Rotation, elements: &[Rotation]| -> Vec<usize> {
                let first = rotations.len();
                rotations.extend(elements.iter().map(|g| start.compose(g)));
                (first..rotations.len()).collect()
            };
            let octahedral = even_first();
            let (one, two) = (add(haar(), &octahedral), add(haar(), &octahedral));
            let icosahedral = add(haar(), &FiniteGroup::Icosahedral.elements());
            let mut random = vec![one[0], two[0], icosahedral[0]];
            while random.len() < RANDOM[RANDOM.len() - 1] {
                random.extend(add(haar(), &[Rotation::IDENTITY]));
            }
            draws.extend(RANDOM.map(|n| Drawn {
                scheme: format!("random-{n}"),
                copies: random[..n].to_vec(),
                cosets: Some(n),
                is_subset: false,
            }));
            let tetrahedral = FiniteGroup::Tetrahedral.order();
            let structured = |scheme: &str, blocks: &[&[usize]]| Drawn {
                scheme: scheme.into(),
                copies: blocks.concat(),
                cosets: Some(blocks.len()),
                is_subset: false,
            };
            draws.extend([
                structured("tetrahedral-x1", &[&one[..tetrahedral]]),
                structured(
                    "tetrahedral-x2",
                    &[&one[..tetrahedral], &two[..tetrahedral]],
                ),
                structured("octahedral-x1", &[&one]),
                structured("octahedral-x2", &[&one, &two]),
                structured("icosahedral-x1", &[&icosahedral]),
            ]);
        }
        Design {
            plan: RotationPlan {
                cosets: 1,
                rotations,
            },
            reference,
            draws,
        }
    }

    /// All 24 rotations of the cube are predicted once; every draw is a subset of them.
    fn grids(&self, index: u64) -> Design {
        let all = FiniteGroup::Octahedral.elements();
        let of_set = |scheme: &str, set: &[Rotation]| Drawn {
            scheme: scheme.into(),
            copies: (0..all.len()).filter(|i| set.contains(&all[*i])).collect(),
            cosets: None,
            is_subset: false,
        };
        let mut draws = Vec::new();
        for repeat in 0..self.repeats {
            let name = format!("how-many/{repeat}/{index}");
            let order = self.seed.permutation(&name, all.len());
            let random = RANDOM.into_iter().filter(|n| *n < all.len());
            draws.extend(random.map(|n| Drawn {
                scheme: format!("random-{n}"),
                copies: order[..n].iter().map(|i| *i as usize).collect(),
                cosets: None,
                is_subset: true,
            }));
        }
        draws.extend([
            of_set("tetrahedral", &FiniteGroup::Tetrahedral.elements()),
            of_set("cube16-a", &cube16_a()),
            of_set("cube16-b", &cube16_b()),
            of_set("octahedral", &all),
        ]);
        Design {
            reference: of_set("octahedral", &all),
            plan: RotationPlan {
                cosets: 1,
                rotations: all,
            },
            draws,
        }
    }
}

/// The rotations of the cube, those of the tetrahedron first.
fn even_first() -> Vec<Rotation> {
    let even = FiniteGroup::Tetrahedral.elements();
    let odd = FiniteGroup::Octahedral.elements();
    let odd = odd.into_iter().filter(|r| !even.contains(r));
    even.iter().copied().chain(odd).collect()
}

/// Sums over samples of what one draw gives, each sample as the task balances it.
#[derive(Clone, Copy, Default)]
struct Sums {
    loss_total: f64,
    plug_in: f64,
    unbiased: Option<f64>,
    components: f64,
    power: f64,
    /// Squared distance from the reference.
    distance: f64,
    /// Variance of the twirled prediction, where cosets tell.
    variance: Option<f64>,
    numbers: f64,
}

impl Sums {
    /// Of one sample, given the twirled prediction of the reference.
    fn of(sample: &TwistedSample<'_>, drawn: &Drawn, reference: &[f64]) -> Self {
        let cosets = drawn.cosets.unwrap_or(1);
        let twirl = sample.twirl(&drawn.copies, cosets);
        let terms = twirl.finish(Estimator::Unbiased);
        let pairs = || twirl.twirled().into_iter().zip(reference);
        Self {
            loss_total: terms.loss_total,
            plug_in: terms.loss_equiv_plug_in,
            unbiased: unbiased(&terms, drawn, sample.loss),
            components: terms.components,
            power: terms.power_twirled,
            distance: pairs().map(|(a, b)| (a - b).powi(2)).sum(),
            variance: twirl.twirled_variance(),
            numbers: terms.prediction_components,
        }
    }

    fn balanced(self, balance: Balance) -> Self {
        let (losses, numbers) = (
            1.0 / balance.divisor(self.components),
            1.0 / balance.divisor(self.numbers),
        );
        Self {
            loss_total: losses * self.loss_total,
            plug_in: losses * self.plug_in,
            unbiased: self.unbiased.map(|u| losses * u),
            components: losses * self.components,
            power: numbers * self.power,
            distance: numbers * self.distance,
            variance: self.variance.map(|v| numbers * v),
            numbers: numbers * self.numbers,
        }
    }

    fn plus(self, other: &Self) -> Self {
        let both = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b);
        Self {
            loss_total: self.loss_total + other.loss_total,
            plug_in: self.plug_in + other.plug_in,
            unbiased: both(self.unbiased, other.unbiased),
            components: self.components + other.components,
            power: self.power + other.power,
            distance: self.distance + other.distance,
            variance: both(self.variance, other.variance),
            numbers: self.numbers + other.numbers,
        }
    }

    /// `L_equiv` and percent.
    fn percent(&self, equivariance: f64) -> (f64, f64) {
        let losses = LossDecomposition {
            twirled: (self.loss_total - equivariance) / self.components,
            equivariance: equivariance / self.components,
        };
        (losses.equivariance, losses.percent())
    }
}

/// `L_equiv` of a sample without bias, where a draw has such an estimate.
fn unbiased(terms: &SampleTerms, drawn: &Drawn, loss: PointLoss) -> Option<f64> {
    if loss != PointLoss::Mse {
        return None;
    }
    match drawn.cosets {
        Some(cosets) => (cosets > 1).then_some(terms.loss_equiv),
        None if drawn.is_subset => {
            let order = FiniteGroup::Octahedral.order();
            equiv_without_replacement(terms.loss_equiv_plug_in, drawn.copies.len(), order)
        }
        None => None,
    }
}

/// One draw of a scheme with its sums.
struct Tally {
    scheme: String,
    rotations: u64,
    cosets: Option<u64>,
    sums: Sums,
}

impl Tally {
    fn new(drawn: &Drawn, sums: Sums) -> Self {
        Self {
            scheme: drawn.scheme.clone(),
            rotations: drawn.copies.len() as u64,
            cosets: drawn.cosets.map(|k| k as u64),
            sums,
        }
    }
}

/// What was found under one condition.
struct Found {
    samples: u64,
    model_calls: u64,
    reference: Option<Tally>,
    draws: Vec<Tally>,
}

impl Found {
    fn add(&mut self, sample: &TwistedSample<'_>, design: &Design, balance: Balance) {
        self.samples += 1;
        self.model_calls = sample.predictions.len() as u64;
        let cosets = design.reference.cosets.unwrap_or(1);
        let twirled = sample.twirl(&design.reference.copies, cosets).twirled();
        let sums = |drawn: &Drawn| Sums::of(sample, drawn, &twirled).balanced(balance);
        let own = sums(&design.reference);
        match &mut self.reference {
            Some(reference) => reference.sums = reference.sums.plus(&own),
            None => self.reference = Some(Tally::new(&design.reference, own)),
        }
        if self.draws.is_empty() {
            let tally = |drawn: &Drawn| Tally::new(drawn, sums(drawn));
            self.draws = design.draws.iter().map(tally).collect();
            return;
        }
        for (tally, drawn) in self.draws.iter_mut().zip(&design.draws) {
            tally.sums = tally.sums.plus(&sums(drawn));
        }
    }

    /// What rows have in common.
    fn common(&self, is_grid: bool) -> Option<Common> {
        let Tally {
            scheme,
            rotations,
            sums,
            ..
        } = self.reference.as_ref()?;
        let (loss_equiv, percent) = sums.percent(sums.unbiased.unwrap_or(sums.plug_in));
        let of_cosets = sums.variance.map(|v| v / sums.numbers);
        Some(Common {
            samples: self.samples,
            model_calls: self.model_calls,
            reference_scheme: scheme.clone(),
            reference_rotations: *rotations,
            reference: Reference {
                mean_square_error: if is_grid { Some(0.0) } else { of_cosets },
                twirled_power: sums.power / sums.numbers,
                percent,
                loss_equiv,
            },
        })
    }

    /// Schemes in the order in which they were drawn, each with the sums of its repeats.
    fn schemes(&self) -> Vec<(&Tally, Vec<Sums>)> {
        let mut schemes: Vec<(&Tally, Vec<Sums>)> = Vec::new();
        for tally in &self.draws {
            match schemes.iter_mut().find(|(t, _)| t.scheme == tally.scheme) {
                Some((_, repeats)) => repeats.push(tally.sums),
                None => schemes.push((tally, vec![tally.sums])),
            }
        }
        schemes
    }
}

/// A quantity over repeats; `read` gives it from the sums of a repeat and their equivariance error.
fn both(repeats: &[Sums], reference: f64, read: fn(&Sums, f64) -> f64) -> Option<Both> {
    let plug_in: Vec<f64> = repeats.iter().map(|s| read(s, s.plug_in)).collect();
    let unbiased: Option<Vec<f64>> = repeats
        .iter()
        .map(|s| s.unbiased.map(|u| read(s, u)))
        .collect();
    Some(Both {
        reference,
        plug_in: Spread::of(&plug_in)?,
        unbiased: unbiased.and_then(|u| Spread::of(&u)),
    })
}

impl Figures {
    /// `None` without a repeat.
    fn of(repeats: &[Sums], reference: &Reference) -> Option<Self> {
        let squares = repeats.iter().map(|s| s.distance / s.numbers);
        let roots: Vec<f64> = squares.clone().map(f64::sqrt).collect();
        Some(Self {
            mean_square: squares.sum::<f64>() / repeats.len() as f64,
            rms: Spread::of(&roots)?,
            percent: both(repeats, reference.percent, |s, e| s.percent(e).1)?,
            loss_equiv: both(repeats, reference.loss_equiv, |s, e| s.percent(e).0)?,
        })
    }
}

/// Holds schemes against a reference.
pub(super) struct Rotations {
    settings: RotationsSettings,
    schedule: Arc<Schedule>,
}

impl Rotations {
    fn found(
        &self,
        snapshot: &mut Snapshot<'_>,
        condition: &Condition,
        designer: &Designer,
    ) -> Result<Found, CoreError> {
        let balance = snapshot.task().balance();
        let asked = Twisted {
            weights: Weights::Raw,
            condition,
            most: usize::try_from(self.settings.samples.get()).unwrap_or(usize::MAX),
        };
        let mut found = Found {
            samples: 0,
            model_calls: 0,
            reference: None,
            draws: Vec::new(),
        };
        snapshot.twisted_samples(
            &asked,
            &mut |index, _, _| Ok(designer.design(index).plan),
            &mut |sample| {
                found.add(sample, &designer.design(sample.index), balance);
                Ok(())
            },
        )?;
        Ok(found)
    }

    fn ask(
        &self,
        snapshot: &mut Snapshot<'_>,
        condition: &Condition,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let Some(first) = snapshot.frozen().batches().next() else {
            return Ok(());
        };
        let designer = Designer {
            is_grid: snapshot.inputs(first, condition)?.has_grids(),
            reference: self.settings.reference.0,
            repeats: self.settings.repeats.get(),
            seed: snapshot.seed(),
        };
        let found = self.found(snapshot, condition, &designer)?;
        let Some(common) = found.common(designer.is_grid) else {
            return Ok(());
        };
        for (tally, repeats) in found.schemes() {
            let Some(figures) = Figures::of(&repeats, &common.reference) else {
                continue;
            };
            let row = RotationsRow {
                moment: *snapshot.moment(),
                set: Arc::clone(snapshot.frozen().about()),
                condition: condition.clone(),
                loss: snapshot.loss(),
                scheme: tally.scheme.clone(),
                rotations: tally.rotations,
                cosets: tally.cosets,
                repeats: repeats.len() as u64,
                figures,
                common: common.clone(),
            };
            ROTATIONS.write(sink, &row)?;
        }
        Ok(())
    }
}

impl Protocol for Rotations {
    const NAME: &'static str = "rotations";
    const ABOUT: &'static str = "how many rotations a twirled prediction needs: schemes against a large reference, over independent repeats";
    type Settings = RotationsSettings;

    fn tables() -> Vec<TableInfo> {
        vec![ROTATIONS.info()]
    }

    fn start(settings: RotationsSettings, schedule: Arc<Schedule>) -> Self {
        Self { settings, schedule }
    }

    fn due(&self, step: u64) -> bool {
        self.settings.at.holds(step, self.schedule.total)
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let conditions = snapshot.first_passes();
        conditions
            .iter()
            .try_for_each(|condition| self.ask(snapshot, condition, sink))
    }
}

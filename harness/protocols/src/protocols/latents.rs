//! Protocol 8, latent equivariance: whether rotated copies of a sample look more alike to the model than different samples do, and
//! whether its latents rotate with the input (Figure 9 of the paper). `docs/latents.md` says how to read the tables.

use crate::{Moment, Protocol, Schedule, Snapshot, columns};
use equivbench_core::{
    Batch, Column, Condition, Contrast, CoreError, FieldKind, Interval, LatentInfo, Quartiles,
    Rotation, Sink, Table, TableInfo, act, contrast, cosine, partners, quartiles,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

/// Level of the intervals.
const LEVEL: f64 = 0.95;

static LATENT: LazyLock<Table<LatentRow>> = LazyLock::new(|| {
    Table {
    name: "latent",
    about: "how alike the latents of rotated copies of a sample are (same) and those of different samples (different), as cosines, with the raw weights; whether the two differ",
    columns: [
        place(|r: &LatentRow| &r.place),
        vec![
            Column::new(
                "axis",
                "",
                "coordinate axis of the rotation: x, y, z; all for all rotations of the other rows but that by nothing",
                |r: &LatentRow| r.turn.map_or("all", |t| t.axis.name()),
            ),
            Column::new(
                "angle_degrees",
                "degrees",
                "angle of the rotation; empty for all",
                |r: &LatentRow| r.turn.map(|t| t.degrees),
            ),
            Column::new(
                "samples",
                "samples",
                "samples that were rotated, the measured ones among them",
                |r: &LatentRow| r.samples as u64,
            ),
            Column::new("groups", "groups", "groups of these", |r: &LatentRow| {
                r.groups as u64
            }),
        ],
        spread(
            [
                "same_count",
                "same_lower_quartile",
                "same_median",
                "same_upper_quartile",
            ],
            |r| r.same,
        ),
        spread(
            [
                "different_count",
                "different_lower_quartile",
                "different_median",
                "different_upper_quartile",
            ],
            |r| r.different,
        ),
        effects(),
    ]
    .into_iter()
    .flatten()
    .collect(),
}
});

static SAMPLES: LazyLock<Table<SampleRow>> = LazyLock::new(|| Table {
    name: "latent_samples",
    about: "the cosines that latent.csv summarises, one in a row",
    columns: [place(|r: &SampleRow| &r.place), pairs()]
        .into_iter()
        .flatten()
        .collect(),
});

/// What both tables say first.
#[derive(Clone)]
struct Place {
    moment: Moment,
    split: String,
    condition: Condition,
    latent: Arc<LatentInfo>,
    look: Look,
}

/// One distribution.
struct LatentRow {
    place: Place,
    /// `None` for all rotations together.
    turn: Option<Turn>,
    samples: usize,
    groups: usize,
    same: Option<Quartiles>,
    different: Option<Quartiles>,
    contrast: Option<Contrast>,
}

/// One cosine.
struct SampleRow {
    place: Place,
    turn: Turn,
    sample: (u64, u64),
    partner: Option<(u64, u64)>,
    cosine: Option<f64>,
}

fn place<R: 'static>(of: fn(&R) -> &Place) -> Vec<Column<R>> {
    let before = vec![
        columns::step(|p: &Place| p.moment.step),
        Column::new("split", "", "split of the dataset", |p: &Place| {
            p.split.clone()
        }),
    ];
    let condition = columns::condition(|p: &Place| &p.condition);
    let after = vec![
        Column::new(
            "latent",
            "",
            "intermediate quantity, as the model names it",
            |p: &Place| p.latent.name.clone(),
        ),
        Column::new(
            "latent_kind",
            "",
            "how it would transform if it were equivariant: invariant, vector or voxel-grid",
            |p: &Place| match p.latent.kind {
                FieldKind::Invariant => "invariant",
                FieldKind::Vector => "vector",
                FieldKind::VoxelGrid => "voxel-grid",
            },
        ),
        Column::new(
            "pooling",
            "",
            "pooled: the mean over the points or voxels of a sample; spatial: all of them, side by side. A latent that has one row for a sample is pooled",
            |p: &Place| if p.look.pooled { "pooled" } else { "spatial" },
        ),
        Column::new(
            "reading",
            "",
            "invariance: the latent of the rotated input against that of the other input as it is; equivariance: against that rotated. Where the space of the latent does not rotate, both are the same",
            |p: &Place| p.look.reading.name(),
        ),
    ];
    let own = before.into_iter().chain(condition).chain(after);
    let own = equivbench_core::within(own.collect(), of);
    std::iter::once(columns::version()).chain(own).collect()
}

fn spread(
    names: [&'static str; 4],
    of: fn(&LatentRow) -> Option<Quartiles>,
) -> Vec<Column<LatentRow>> {
    let [count, lower, median, upper] = names;
    vec![
        Column::new(
            count,
            "",
            "cosines; of a latent that is 0 there is none",
            move |r: &LatentRow| of(r).map_or(0, |q| q.count as u64),
        ),
        Column::new(
            lower,
            "",
            "a quarter of these cosines is below",
            move |r: &LatentRow| of(r).map(|q| q.lower),
        ),
        Column::new(
            median,
            "",
            "median cosine; different: with a sample of another group, empty for points, which correspond to none of another sample",
            move |r: &LatentRow| of(r).map(|q| q.median),
        ),
        Column::new(
            upper,
            "",
            "a quarter of these cosines is above",
            move |r: &LatentRow| of(r).map(|q| q.upper),
        ),
    ]
}

fn effects() -> Vec<Column<LatentRow>> {
    let ends = |names: [&'static str; 2], of: fn(&Contrast) -> Option<Interval>| {
        let interval = move |r: &LatentRow| r.contrast.as_ref().and_then(of);
        [
            Column::new(
                names[0],
                "",
                "lower end of its 95% interval: percentile bootstrap over groups of the rotated samples; empty for fewer than five groups",
                move |r: &LatentRow| interval(r).map(|i| i.lower),
            ),
            Column::new(
                names[1],
                "",
                "upper end of that interval",
                move |r: &LatentRow| interval(r).map(|i| i.upper),
            ),
        ]
    };
    let [median_lower, median_upper] = ends(
        ["median_difference_lower", "median_difference_upper"],
        |c| c.median_interval,
    );
    let [delta_lower, delta_upper] = ends(["cliffs_delta_lower", "cliffs_delta_upper"], |c| {
        c.delta_interval
    });
    vec![
        Column::new(
            "median_difference",
            "",
            "same_median - different_median",
            |r: &LatentRow| r.contrast.map(|c| c.median_difference),
        ),
        median_lower,
        median_upper,
        Column::new(
            "cliffs_delta",
            "",
            "P(same > different) - P(same < different) of one cosine of each kind: 1 where copies of a sample are always more alike than different samples, 0 where not more often than not",
            |r: &LatentRow| r.contrast.map(|c| c.delta),
        ),
        delta_lower,
        delta_upper,
        Column::new(
            "superiority",
            "",
            "probability of superiority, P(same > different) + P(same = different) / 2 = (1 + cliffs_delta) / 2",
            |r: &LatentRow| r.contrast.map(|c| 0.5 * (1.0 + c.delta)),
        ),
        Column::new(
            "rank_z",
            "",
            "test of Mann and Whitney on the mean cosine of each group: distance of U from what chance gives, in standard deviations, above 0 where same is larger; empty for fewer than five groups",
            |r: &LatentRow| r.contrast.and_then(|c| c.test).map(|t| t.z),
        ),
        Column::new(
            "rank_p",
            "",
            "its two-sided p-value, by the normal approximation. Pairs share samples, so it is approximate; of many samples it is tiny for differences that mean nothing: read the effect",
            |r: &LatentRow| r.contrast.and_then(|c| c.test).map(|t| t.p),
        ),
    ]
}

fn pairs() -> Vec<Column<SampleRow>> {
    vec![
        Column::new(
            "axis",
            "",
            "coordinate axis of the rotation",
            |r: &SampleRow| r.turn.axis.name(),
        ),
        Column::new(
            "angle_degrees",
            "degrees",
            "angle of the rotation",
            |r: &SampleRow| r.turn.degrees,
        ),
        Column::new(
            "sample",
            "",
            "the sample that is rotated, as an index in the split",
            |r: &SampleRow| r.sample.0,
        ),
        Column::new("group", "", "its group", |r: &SampleRow| {
            r.sample.1.to_string()
        }),
        Column::new(
            "partner",
            "",
            "the sample of another group that it is compared with; empty where it is compared with itself",
            |r: &SampleRow| r.partner.map(|p| p.0),
        ),
        Column::new("partner_group", "", "its group", |r: &SampleRow| {
            r.partner.map(|p| p.1.to_string())
        }),
        Column::new(
            "cosine",
            "",
            "cosine of the two latents; empty where one of them is 0",
            |r: &SampleRow| r.cosine,
        ),
    ]
}

/// Which evaluations are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Evaluations {
    /// Every one.
    All,
    /// The one after the last step.
    #[default]
    Last,
}

/// A coordinate axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AxisName {
    X,
    Y,
    Z,
}

impl AxisName {
    const fn name(self) -> &'static str {
        match self {
            Self::X => "x",
            Self::Y => "y",
            Self::Z => "z",
        }
    }
}

/// `[protocols.latents]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LatentSettings {
    /// Which evaluations are asked: `last` or `all`.
    evaluations: Evaluations,
    /// Samples of the measured split that are rotated, as far as there are so many.
    samples: usize,
    /// Samples, the first of them, that leave rows in `latent_samples.csv`.
    sample_rows: usize,
    /// Angles of rotations, degrees. Grids take multiples of 90 only; other angles leave no rows of them.
    angles: Vec<f64>,
    /// Axes of rotations.
    axes: Vec<AxisName>,
}

impl Default for LatentSettings {
    /// Those of the paper.
    fn default() -> Self {
        Self {
            evaluations: Evaluations::Last,
            samples: 1000,
            sample_rows: 1000,
            angles: vec![0.0, 90.0, 180.0, 270.0, 360.0],
            axes: vec![AxisName::X, AxisName::Y, AxisName::Z],
        }
    }
}

/// What the latent of a rotated input is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Invariance,
    Equivariance,
}

impl Reading {
    const fn name(self) -> &'static str {
        match self {
            Self::Invariance => "invariance",
            Self::Equivariance => "equivariance",
        }
    }
}

/// How two latents are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    pooled: bool,
    reading: Reading,
}

fn looks(latent: &LatentInfo) -> Vec<Look> {
    let poolings = if latent.has_space() {
        &[true, false][..]
    } else {
        &[true]
    };
    let readings = [Reading::Invariance, Reading::Equivariance];
    let of = |&pooled: &bool| readings.map(|reading| Look { pooled, reading });
    poolings.iter().flat_map(of).collect()
}

/// A rotation about a coordinate axis.
#[derive(Clone, Copy, Debug)]
struct Turn {
    axis: AxisName,
    degrees: f64,
    /// Its place among the different rotations.
    rotation: usize,
}

/// The rotations of the settings. Those by 0 and 360 degrees are one and the same about every axis, and are predicted once.
struct Turns {
    different: Vec<Rotation>,
    all: Vec<Turn>,
}

impl Turns {
    fn new(settings: &LatentSettings) -> Self {
        let (mut different, mut all): (Vec<Rotation>, _) = (Vec::new(), Vec::new());
        for &axis in &settings.axes {
            for &degrees in &settings.angles {
                let own = Rotation::about_coordinate(axis as usize, degrees);
                let known = different.iter().position(|r| *r == own);
                let rotation = known.unwrap_or_else(|| {
                    different.push(own);
                    different.len() - 1
                });
                all.push(Turn {
                    axis,
                    degrees,
                    rotation,
                });
            }
        }
        Self { different, all }
    }
}

/// The samples that are rotated, and whom each is compared with.
struct Sampled {
    samples: Vec<(u64, u64)>,
    partners: Option<Vec<usize>>,
}

impl Sampled {
    /// Indices of some of the samples, and of their partners.
    fn indices(&self, places: std::ops::Range<usize>) -> (Vec<u64>, Option<Vec<u64>>) {
        let own = self.samples[places.clone()].iter().map(|s| s.0).collect();
        let index = |&place: &usize| self.samples[place].0;
        let partners = self.partners.as_ref();
        let partners = partners.map(|all| all[places].iter().map(index).collect());
        (own, partners)
    }
}

/// Cosines of the samples in their order: with the sample itself, and with its partner.
#[derive(Clone, Default)]
struct Cosines {
    same: Vec<Option<f64>>,
    /// Empty where latents of two samples cannot be compared.
    different: Vec<Option<f64>>,
}

/// What was measured of a latent: cosines by [look](looks), then by rotation.
struct Measured {
    latent: Arc<LatentInfo>,
    cosines: Vec<(Look, Vec<Cosines>)>,
}

impl Measured {
    fn new(latent: &Arc<LatentInfo>, turns: &Turns) -> Self {
        let empty = vec![Cosines::default(); turns.different.len()];
        let looks = looks(latent).into_iter();
        Self {
            latent: Arc::clone(latent),
            cosines: looks.map(|look| (look, empty.clone())).collect(),
        }
    }

    /// Takes in the latents of a batch.
    fn add(&mut self, rotation: usize, batch: &Compared<'_>) -> Result<(), CoreError> {
        let latent = &self.latent;
        for (look, of_rotations) in &mut self.cosines {
            let cosines = &mut of_rotations[rotation];
            let see = |batch: &Batch, sample: usize| -> Result<Vec<f64>, CoreError> {
                let values = latent.of_sample(batch, sample)?;
                Ok(if look.pooled {
                    latent.pooled(values)
                } else {
                    values.to_vec()
                })
            };
            // Points of two samples are not each other's; their means are comparable.
            let partner = batch
                .partner
                .filter(|_| look.pooled || latent.shares_space());
            for sample in 0..batch.of_rotated.samples() {
                let of_rotated = see(batch.of_rotated, sample)?;
                let own = see(batch.own.at(look.reading), sample)?;
                cosines.same.push(cosine(&of_rotated, &own));
                if let Some(partner) = partner {
                    let other = see(partner.at(look.reading), sample)?;
                    cosines.different.push(cosine(&of_rotated, &other));
                }
            }
        }
        Ok(())
    }
}

/// A latent of some inputs as they are, and the same rotated.
struct Moved {
    straight: Batch,
    rotated: Batch,
}

impl Moved {
    fn new(straight: Batch) -> Self {
        Self {
            straight,
            rotated: Batch::default(),
        }
    }

    fn rotate(&mut self, rotation: &Rotation) -> Result<(), CoreError> {
        let rotations = vec![*rotation; self.straight.samples()];
        act(&rotations, &self.straight, &mut self.rotated)
    }

    fn at(&self, reading: Reading) -> &Batch {
        match reading {
            Reading::Invariance => &self.straight,
            Reading::Equivariance => &self.rotated,
        }
    }
}

/// A latent of rotated inputs, and what it is compared with.
struct Compared<'a> {
    of_rotated: &'a Batch,
    own: &'a Moved,
    partner: Option<&'a Moved>,
}

fn has_grids(inputs: &Batch) -> bool {
    let mut fields = inputs.fields.iter();
    fields.any(|f| f.kind == FieldKind::VoxelGrid)
}

/// Asks for latents of rotated inputs.
pub(super) struct Latents {
    settings: LatentSettings,
    schedule: Arc<Schedule>,
}

impl Latents {
    fn ask(
        &self,
        snapshot: &mut Snapshot<'_>,
        condition: &Condition,
        sampled: &Sampled,
        turns: &Turns,
    ) -> Result<Vec<Measured>, CoreError> {
        let latents = snapshot.latents().into_iter().map(Arc::new);
        let mut all: Vec<_> = latents.map(|l| Measured::new(&l, turns)).collect();
        let (count, size) = (sampled.samples.len(), snapshot.batch_size());
        for first in (0..count).step_by(size) {
            let (own, partners) = sampled.indices(first..(first + size).min(count));
            let own = snapshot.load(&own, condition)?.inputs;
            let partners = partners.map(|p| snapshot.load(&p, condition)).transpose()?;
            let partners = partners.map(|p| p.inputs);
            Self::ask_batch(snapshot, &own, partners.as_ref(), turns, &mut all)?;
        }
        Ok(all)
    }

    fn ask_batch(
        snapshot: &mut Snapshot<'_>,
        own: &Batch,
        partners: Option<&Batch>,
        turns: &Turns,
        all: &mut [Measured],
    ) -> Result<(), CoreError> {
        let mut of = |latent: &LatentInfo, inputs: &Batch| -> Result<Batch, CoreError> {
            latent.batch(&inputs.offsets, snapshot.latent(&latent.name, inputs)?)
        };
        let mut known = Vec::new();
        for measured in &*all {
            let own = Moved::new(of(&measured.latent, own)?);
            let partner = partners.map(|p| of(&measured.latent, p)).transpose()?;
            known.push((own, partner.map(Moved::new)));
        }
        let mut rotated = Batch::default();
        for (at, rotation) in turns.different.iter().enumerate() {
            let of_cube = rotation.as_signed_permutation().is_some();
            if !of_cube && has_grids(own) {
                continue;
            }
            act(&vec![*rotation; own.samples()], own, &mut rotated)?;
            for (measured, (own, partner)) in all.iter_mut().zip(&mut known) {
                if !of_cube && measured.latent.kind == FieldKind::VoxelGrid {
                    continue;
                }
                let of_rotated = of(&measured.latent, &rotated)?;
                own.rotate(rotation)?;
                partner.iter_mut().try_for_each(|p| p.rotate(rotation))?;
                let batch = Compared {
                    of_rotated: &of_rotated,
                    own,
                    partner: partner.as_ref(),
                };
                measured.add(at, &batch)?;
            }
        }
        Ok(())
    }

    fn write(
        &self,
        sink: &mut dyn Sink,
        place: &Place,
        of_rotations: &[Cosines],
        report: &Report<'_>,
    ) -> Result<(), CoreError> {
        let turns = report.turns;
        let measured = |turn: &&Turn| !of_rotations[turn.rotation].same.is_empty();
        let rows: Vec<_> = of_rotations
            .iter()
            .map(|cosines| report.summary(place, &[cosines]))
            .collect();
        for turn in turns.all.iter().filter(measured) {
            let row = LatentRow {
                turn: Some(*turn),
                place: place.clone(),
                ..rows[turn.rotation]
            };
            LATENT.write(sink, &row)?;
        }
        let pairs = of_rotations.iter().zip(&turns.different);
        let proper = pairs.filter(|(c, r)| !c.same.is_empty() && **r != Rotation::IDENTITY);
        let proper: Vec<&Cosines> = proper.map(|(cosines, _)| cosines).collect();
        if !proper.is_empty() {
            LATENT.write(sink, &report.summary(place, &proper))?;
        }
        for turn in turns.all.iter().filter(measured) {
            let cosines = &of_rotations[turn.rotation];
            self.write_samples(sink, place, *turn, cosines, report.sampled)?;
        }
        Ok(())
    }

    fn write_samples(
        &self,
        sink: &mut dyn Sink,
        place: &Place,
        turn: Turn,
        cosines: &Cosines,
        sampled: &Sampled,
    ) -> Result<(), CoreError> {
        let samples = sampled.samples.iter().take(self.settings.sample_rows);
        for (at, &sample) in samples.enumerate() {
            let row = |partner, cosine: &Option<f64>| SampleRow {
                place: place.clone(),
                turn,
                sample,
                partner,
                cosine: *cosine,
            };
            let partner = sampled.partners.as_ref().map(|p| sampled.samples[p[at]]);
            if let Some(same) = cosines.same.get(at) {
                SAMPLES.write(sink, &row(None, same))?;
            }
            if let Some(different) = cosines.different.get(at) {
                SAMPLES.write(sink, &row(partner, different))?;
            }
        }
        Ok(())
    }
}

/// What the rows of one moment share.
struct Report<'a> {
    turns: &'a Turns,
    sampled: &'a Sampled,
    seed: equivbench_core::Seed,
}

impl Report<'_> {
    /// Of all cosines of some rotations.
    fn summary(&self, place: &Place, rotations: &[&Cosines]) -> LatentRow {
        let of = |kind: fn(&Cosines) -> &[Option<f64>]| -> Vec<(f64, u64)> {
            let cosines = rotations
                .iter()
                .flat_map(|c| kind(c).iter().zip(&self.sampled.samples));
            cosines
                .filter_map(|(cosine, (_, group))| Some(((*cosine)?, *group)))
                .collect()
        };
        let (same, different) = (of(|c| &c.same), of(|c| &c.different));
        let spread = |cosines: &[(f64, u64)]| quartiles(cosines.iter().map(|c| c.0));
        let groups: BTreeSet<u64> = self.sampled.samples.iter().map(|s| s.1).collect();
        // The same resamples for every row.
        let mut stream = self.seed.stream("latents/bootstrap");
        LatentRow {
            place: place.clone(),
            turn: None,
            samples: self.sampled.samples.len(),
            groups: groups.len(),
            same: spread(&same),
            different: spread(&different),
            contrast: contrast(&same, &different, LEVEL, &mut stream),
        }
    }
}

impl Protocol for Latents {
    const NAME: &'static str = "latents";
    const ABOUT: &'static str = "whether latents are invariant or equivariant: cosines of those of rotated copies of a sample, against those of different samples";
    type Settings = LatentSettings;

    fn tables() -> Vec<TableInfo> {
        vec![LATENT.info(), SAMPLES.info()]
    }

    fn start(settings: LatentSettings, schedule: Arc<Schedule>) -> Self {
        Self { settings, schedule }
    }

    fn due(&self, step: u64) -> bool {
        match self.settings.evaluations {
            Evaluations::All => self.schedule.holds(step),
            Evaluations::Last => step == self.schedule.total,
        }
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        if snapshot.latents().is_empty() || self.settings.samples == 0 {
            return Ok(());
        }
        let (turns, samples) = (
            Turns::new(&self.settings),
            snapshot.samples(self.settings.samples)?,
        );
        let partners = partners(&samples, snapshot.seed());
        let sampled = Sampled { samples, partners };
        let report = Report {
            turns: &turns,
            sampled: &sampled,
            seed: snapshot.seed(),
        };
        let (moment, split) = (*snapshot.moment(), snapshot.frozen().about().split.clone());
        // What a further pass is shown would have to be predicted first; the latents of that pass are another question.
        for condition in &snapshot.first_passes() {
            for measured in self.ask(snapshot, condition, &sampled, &turns)? {
                for (look, of_rotations) in &measured.cosines {
                    let place = Place {
                        moment,
                        split: split.clone(),
                        condition: condition.clone(),
                        latent: Arc::clone(&measured.latent),
                        look: *look,
                    };
                    self.write(sink, &place, of_rotations, &report)?;
                }
            }
        }
        Ok(())
    }
}

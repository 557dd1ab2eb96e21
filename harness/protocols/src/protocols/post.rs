//! Protocol 11, post-processing: what symmetry at test time buys, and for how many calls of the model. The held-out loss of one prediction
//! as it is, of the mean of several twisted ones, and of one in a frame that the input defines (`docs/post-processing.md`).

use crate::{
    Moment, Protocol, Schedule, SetAbout, SetName, Snapshot, Twisted, TwistedSample, columns,
    when::When,
};
use equivbench_core::{
    Balance, Batch, Column, CoreError, Field, FieldKind, FiniteGroup, Interval, PrincipalAxes,
    Rotation, RotationPlan, Rows, Seed, Sink, Split, Supervised, Support, Table, TableInfo,
    group_interval,
};
use serde::{Deserialize, Serialize};
use std::{
    num::NonZeroU64,
    sync::{Arc, LazyLock},
};

/// Level of the intervals.
const LEVEL: f64 = 0.95;

/// Two principal axes whose variances differ by less than this share of the largest are too close to be told apart: noise of a hundredth
/// of the extent of a cloud turns them.
const AMBIGUOUS_GAP: f64 = 0.01;

static POST: LazyLock<Table<PostRow>> = LazyLock::new(|| Table {
    name: "post",
    about: "what symmetry at test time buys: the held-out loss of one prediction, of means of twisted predictions, and of predictions in frames that the input defines; first passes",
    columns: [
        vec![
            columns::version(),
            columns::step(|r: &PostRow| r.moment.step),
            columns::weights(|r: &PostRow| r.split.weights),
        ],
        columns::samples_measured(|r: &PostRow| &*r.set),
        columns::condition(|r: &PostRow| &r.split.condition),
        figures(),
        sizes(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// One method under one condition.
struct PostRow {
    moment: Moment,
    set: Arc<SetAbout>,
    split: Arc<Split>,
    method: String,
    model_calls: u64,
    loss: f64,
    loss_interval: Option<Interval>,
    gain: Option<f64>,
    gain_interval: Option<Interval>,
    ambiguous: Option<u64>,
}

fn figures() -> Vec<Column<PostRow>> {
    vec![
        Column::new(
            "method",
            "",
            "as-is: one prediction in the frame of the data; as-is-random-frame: one in a random frame, L itself; twirled-random-N, twirled-tetrahedral, twirled-octahedral: the mean of so many twisted predictions; canonical-pca: one in the frame of the principal axes; frame-average: the mean over the four proper frames of the principal axes",
            |r: &PostRow| r.method.clone(),
        ),
        Column::new(
            "model_calls",
            "predictions",
            "predictions that a user of the method makes of each sample",
            |r: &PostRow| r.model_calls,
        ),
        Column::new(
            "loss",
            "target²",
            "held-out loss of what the method predicts, pooled as loss_total is; of a mean of N random rotations that of this mean, L_mean + L_equiv/N on average",
            |r: &PostRow| r.loss,
        ),
        Column::new(
            "loss_sampling_lower",
            "target²",
            "lower end of the 95% sampling interval: studentised bootstrap over groups of samples, each with its samples and their rotations; empty for fewer than five groups",
            |r: &PostRow| r.loss_interval.map(|i| i.lower),
        ),
        Column::new(
            "loss_sampling_upper",
            "target²",
            "upper end of that interval",
            |r: &PostRow| r.loss_interval.map(|i| i.upper),
        ),
        Column::new(
            "gain_percent",
            "%",
            "100 (1 - loss / L), L the row as-is-random-frame: of an exact twirl it is equiv_percent; below 0 the method loses",
            |r: &PostRow| r.gain,
        ),
        Column::new(
            "gain_percent_sampling_lower",
            "%",
            "lower end of its 95% sampling interval, paired: both losses are of the same samples",
            |r: &PostRow| r.gain_interval.map(|i| i.lower),
        ),
        Column::new(
            "gain_percent_sampling_upper",
            "%",
            "upper end of that interval",
            |r: &PostRow| r.gain_interval.map(|i| i.upper),
        ),
        Column::new(
            "ambiguous_samples",
            "samples",
            "samples with two principal axes whose variances differ by less than 1% of the largest: there the frame jumps where the input hardly moves; empty for methods without frames",
            |r: &PostRow| r.ambiguous,
        ),
    ]
}

fn sizes() -> Vec<Column<PostRow>> {
    vec![
        Column::new(
            "measured_loss",
            "",
            "the loss: mse, mae or l2",
            |r: &PostRow| r.split.loss.name(),
        ),
        Column::new("samples", "samples", "measured samples", |r: &PostRow| {
            r.split.estimate.samples as u64
        }),
        Column::new(
            "groups",
            "groups",
            "independent groups of measured samples",
            |r: &PostRow| r.split.estimate.groups as u64,
        ),
    ]
}

/// `[protocols.post]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PostSettings {
    /// After which steps: numbers, or `"last"`.
    at: When,
    /// Numbers of random rotations; on voxel grids those below 24.
    random: Vec<NonZeroU64>,
}

impl Default for PostSettings {
    fn default() -> Self {
        Self {
            at: When::last(),
            random: [5, 10].into_iter().filter_map(NonZeroU64::new).collect(),
        }
    }
}

/// A way to predict, and of the copies of a sample which it averages.
struct Method {
    name: String,
    copies: Vec<usize>,
    has_frame: bool,
}

impl Method {
    fn new(name: impl Into<String>, copies: impl IntoIterator<Item = usize>) -> Self {
        Self {
            name: name.into(),
            copies: copies.into_iter().collect(),
            has_frame: false,
        }
    }

    fn in_frames(self) -> Self {
        Self {
            has_frame: true,
            ..self
        }
    }
}

/// What can be done with the inputs of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    /// Any rotation, and frames where there are positions.
    Clouds { have_positions: bool },
    /// The rotations of the cube only.
    Grids,
}

/// The positions of a cloud, vectors `[points, 3]`.
fn positions(inputs: &Batch) -> Option<&Field> {
    let is_cloud =
        |f: &&Field| f.kind == FieldKind::Vector && f.rows == Rows::Point && f.width() == 3;
    inputs.field("positions").ok().filter(is_cloud)
}

impl Space {
    fn of(samples: &Supervised) -> Self {
        if samples.has_grids() {
            return Self::Grids;
        }
        Self::Clouds {
            have_positions: positions(&samples.inputs).is_some(),
        }
    }
}

/// Chooses rotations and what is averaged.
struct Design<'a> {
    space: Space,
    random: &'a [NonZeroU64],
    seed: Seed,
}

impl Design<'_> {
    fn counts(&self) -> impl Iterator<Item = usize> {
        let counts = self.random.iter();
        counts.map(|n| usize::try_from(n.get()).unwrap_or(usize::MAX))
    }

    fn most_random(&self) -> usize {
        self.counts().max().unwrap_or_default()
    }

    /// The rotations of a sample: the identity, as many Haar rotations as the largest number asks, one more times the tetrahedral group,
    /// the frames. Of grids all 24.
    fn plan(&self, index: u64, frames: Option<&PrincipalAxes>) -> RotationPlan {
        let rotations = match self.space {
            Space::Grids => FiniteGroup::Octahedral.elements(),
            Space::Clouds { .. } => {
                let mut random = self.seed.indexed_stream("post/random", index);
                let start = Rotation::haar(&mut self.seed.indexed_stream("post/structured", index));
                let elements = FiniteGroup::Tetrahedral.elements();
                std::iter::once(Rotation::IDENTITY)
                    .chain((0..self.most_random()).map(|_| Rotation::haar(&mut random)))
                    .chain(elements.iter().map(|g| start.compose(g)))
                    .chain(frames.iter().flat_map(|axes| axes.frames))
                    .collect()
            }
        };
        RotationPlan {
            cosets: 1,
            rotations,
        }
    }

    /// The methods for a sample. Smaller numbers of random rotations are the first of the larger ones: the model is asked once.
    fn methods(&self, index: u64) -> Vec<Method> {
        match self.space {
            Space::Grids => self.methods_of_grids(index),
            Space::Clouds { have_positions } => self.methods_of_clouds(have_positions),
        }
    }

    fn methods_of_clouds(&self, have_positions: bool) -> Vec<Method> {
        let random = |n| Method::new(format!("twirled-random-{n}"), 1..=n);
        let structured = 1 + self.most_random();
        let frames = structured + FiniteGroup::Tetrahedral.order();
        let mut methods = vec![Method::new("as-is", [0])];
        methods.extend(self.counts().map(random));
        methods.push(Method::new("twirled-tetrahedral", structured..frames));
        if have_positions {
            methods.push(Method::new("canonical-pca", [frames]).in_frames());
            methods.push(Method::new("frame-average", frames..frames + 4).in_frames());
        }
        methods
    }

    /// Rotations of the cube, drawn without replacement.
    fn methods_of_grids(&self, index: u64) -> Vec<Method> {
        let all = FiniteGroup::Octahedral.elements();
        let even = FiniteGroup::Tetrahedral.elements();
        let order = self
            .seed
            .permutation(&format!("post/random/{index}"), all.len());
        let random = |n| {
            let drawn = order.iter().take(n).map(|copy| *copy as usize);
            Method::new(format!("twirled-random-{n}"), drawn)
        };
        let tetrahedral = (0..all.len()).filter(|copy| even.contains(&all[*copy]));
        let mut methods = vec![Method::new("as-is", [0])];
        methods.extend(self.counts().filter(|n| *n < all.len()).map(random));
        methods.push(Method::new("twirled-tetrahedral", tetrahedral));
        methods.push(Method::new("twirled-octahedral", 0..all.len()));
        methods
    }
}

/// What a method costs and the loss of every sample, summed, with what it is divided by.
struct Tally {
    name: String,
    model_calls: u64,
    has_frame: bool,
    losses: Vec<(f64, f64)>,
}

/// The loss of a mean of some twisted predictions, and what it is divided by.
fn loss_of(sample: &TwistedSample<'_>, copies: &[usize], balance: Balance) -> (f64, f64) {
    let prediction = sample.twirl(copies, 1).twirled();
    let sum = sample.loss.sum(&prediction, sample.target, sample.width);
    let components = sample.denominator();
    let divisor = balance.divisor(components);
    (sum / divisor, components / divisor)
}

/// Asks for twirled and canonicalised predictions.
pub(super) struct PostProcessing {
    settings: PostSettings,
    schedule: Arc<Schedule>,
}

impl PostProcessing {
    /// The methods under one condition, in the order of their rows, and the number of samples whose frames are ambiguous.
    fn tally(
        &self,
        snapshot: &mut Snapshot<'_>,
        split: &Split,
    ) -> Result<(Vec<Tally>, u64), CoreError> {
        let Some(first) = snapshot.frozen().batches().next() else {
            return Ok((Vec::new(), 0));
        };
        let design = Design {
            space: Space::of(&*snapshot.inputs(first, &split.condition)?),
            random: &self.settings.random,
            seed: snapshot.seed(),
        };
        let balance = snapshot.task().balance();
        let asked = Twisted {
            weights: split.weights,
            condition: &split.condition,
            most: usize::MAX,
        };
        let mut ambiguous = 0;
        let mut plan = |index: u64, inputs: &Batch, place: usize| {
            let axes = match design.space {
                Space::Grids => None,
                Space::Clouds { .. } => axes_of(inputs, place)?,
            };
            ambiguous += u64::from(axes.is_some_and(|a| a.relative_gap() < AMBIGUOUS_GAP));
            Ok(design.plan(index, axes.as_ref()))
        };
        let mut tallies: Vec<Tally> = Vec::new();
        let mut add = |sample: &TwistedSample<'_>| {
            let methods = design.methods(sample.index);
            if tallies.is_empty() {
                tallies.extend(methods.iter().map(Tally::of));
            }
            for (tally, method) in tallies.iter_mut().zip(&methods) {
                tally.losses.push(loss_of(sample, &method.copies, balance));
            }
            Ok(())
        };
        snapshot.twisted_samples(&asked, &mut plan, &mut add)?;
        Ok((tallies, ambiguous))
    }
}

/// The principal axes of a sample, where there are positions.
fn axes_of(inputs: &Batch, place: usize) -> Result<Option<PrincipalAxes>, CoreError> {
    let Some(field) = positions(inputs) else {
        return Ok(None);
    };
    let own = inputs.rows_of(field.rows, place);
    let own = &field.reals()?[3 * own.start..3 * own.end];
    Ok(Some(PrincipalAxes::of(own)))
}

impl Tally {
    fn of(method: &Method) -> Self {
        Self {
            name: method.name.clone(),
            model_calls: method.copies.len() as u64,
            has_frame: method.has_frame,
            losses: Vec::new(),
        }
    }

    /// L itself: one prediction in a random frame, as the split has it, averaged over its rotations.
    fn random_frame(split: &Split) -> Self {
        let terms = split.samples.iter().map(|s| s.terms);
        Self {
            name: "as-is-random-frame".into(),
            model_calls: 1,
            has_frame: false,
            losses: terms.map(|t| (t.loss_total, t.components)).collect(),
        }
    }
}

/// What is the same for all methods.
struct Common<'a> {
    moment: Moment,
    set: &'a Arc<SetAbout>,
    split: &'a Arc<Split>,
    reference: &'a Tally,
    ambiguous: u64,
    seed: Seed,
}

impl Common<'_> {
    fn row(&self, tally: &Tally) -> PostRow {
        let groups: Vec<u64> = self.split.samples.iter().map(|s| s.group).collect();
        let total = |losses: &[(f64, f64)]| losses.iter().map(|l| l.0).sum::<f64>();
        let over: f64 = tally.losses.iter().map(|l| l.1).sum();
        let (own, reference) = (total(&tally.losses), total(&self.reference.losses));
        let gained = tally.losses.iter().zip(&self.reference.losses);
        let gained: Vec<(f64, f64)> = gained.map(|(a, l)| (100.0 * (l.0 - a.0), l.0)).collect();
        let interval = |pairs: &[(f64, f64)], support, name: &str| {
            group_interval(pairs, &groups, LEVEL, support, &mut self.seed.stream(name))
        };
        PostRow {
            moment: self.moment,
            set: Arc::clone(self.set),
            split: Arc::clone(self.split),
            method: tally.name.clone(),
            model_calls: tally.model_calls,
            loss: own / over,
            loss_interval: interval(&tally.losses, Support::NonNegative, "post/bootstrap"),
            gain: (reference > 0.0).then(|| 100.0 * (1.0 - own / reference)),
            gain_interval: interval(&gained, Support::Real, "post/bootstrap/gain"),
            ambiguous: tally.has_frame.then_some(self.ambiguous),
        }
    }
}

impl Protocol for PostProcessing {
    const NAME: &'static str = "post";
    const ABOUT: &'static str = "held-out loss and cost of symmetry at test time: twirled predictions, canonical frames, frame averaging";
    type Settings = PostSettings;

    fn tables() -> Vec<TableInfo> {
        vec![POST.info()]
    }

    fn start(settings: PostSettings, schedule: Arc<Schedule>) -> Self {
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
        let measured = snapshot.set(SetName::Measured)?;
        for split in &*measured.splits {
            // A further pass has been fed with the first one, in the frame of that.
            if snapshot.task().pass(&split.condition) > 0 {
                continue;
            }
            let (tallies, ambiguous) = self.tally(snapshot, split)?;
            let reference = Tally::random_frame(split);
            let common = Common {
                moment: *snapshot.moment(),
                set: &measured.about,
                split,
                reference: &reference,
                ambiguous,
                seed: snapshot.seed(),
            };
            let (as_is, others) = tallies.split_at(tallies.len().min(1));
            let all = as_is.iter().chain([&reference]).chain(others);
            for tally in all {
                POST.write(sink, &common.row(tally))?;
            }
        }
        Ok(())
    }
}

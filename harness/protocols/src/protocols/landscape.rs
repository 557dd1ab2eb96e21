//! Protocol 5, the landscape of the loss: `L`, `L_mean` and `L_equiv` on a grid of parameters along the eigenvectors of the Hessian of
//! `L` with the largest and the smallest eigenvalue that can be told from 0 (the paper's Figure 1c), at a fixed training batch with fixed
//! rotations; and how rough each part is there.

use super::curvature::groups_of;
use crate::{Protocol, Schedule, Snapshot, columns, when::When};
use equivbench_core::{
    Column, CoreError, Estimator, LossPart, Scheme, Sink, Table, TableInfo, roughness,
};
use equivbench_curvature::{Axes, Limits, Subset, axes};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

static LANDSCAPE: LazyLock<Table<PointRow>> = LazyLock::new(|| Table {
    name: "landscape",
    about: "the parts of the loss on a grid of parameters along two eigenvectors of the Hessian of loss_total, at a fixed training batch",
    columns: vec![
        columns::version(),
        columns::step(|r: &PointRow| r.of.step),
        Column::new("group", "", "parameters that are moved", |r: &PointRow| {
            r.of.group.clone()
        }),
        Column::new(
            "i",
            "",
            "place along the eigenvector of the largest eigenvalue, counted from 0",
            |r: &PointRow| r.at[0],
        ),
        Column::new(
            "j",
            "",
            "place along that of the smallest",
            |r: &PointRow| r.at[1],
        ),
        Column::new(
            "along_largest",
            "parameter",
            "distance from the middle along the first",
            |r: &PointRow| r.away[0],
        ),
        Column::new(
            "along_smallest",
            "parameter",
            "and along the second",
            |r: &PointRow| r.away[1],
        ),
        Column::new("loss_total", "target²", "L", |r: &PointRow| r.losses[0]),
        Column::new("loss_twirled", "target²", "L_mean", |r: &PointRow| {
            r.losses[1]
        }),
        Column::new("loss_equiv", "target²", "L_equiv", |r: &PointRow| {
            r.losses[2]
        }),
    ],
});

static ROUGHNESS: LazyLock<Table<PartRow>> = LazyLock::new(|| Table {
    name: "roughness",
    about: "how rough the parts of the loss are on the grid of landscape.csv",
    columns: vec![
        columns::version(),
        columns::step(|r: &PartRow| r.of.step),
        Column::new("group", "", "parameters that are moved", |r: &PartRow| {
            r.of.group.clone()
        }),
        Column::new(
            "part",
            "",
            "loss_total, loss_twirled or loss_equiv",
            |r: &PartRow| r.part.name(),
        ),
        Column::new("grid", "points", "points along each axis", |r: &PartRow| {
            r.of.grid
        }),
        Column::new(
            "spacing",
            "parameter",
            "distance between points: protocols.landscape.spacing times the learning rate times the norm of the gradient of the last step",
            |r: &PartRow| r.of.spacing,
        ),
        Column::new(
            "lambda_largest",
            "target²/parameter²",
            "eigenvalue along the first axis",
            |r: &PartRow| r.of.eigenvalues[0],
        ),
        Column::new(
            "lambda_smallest",
            "target²/parameter²",
            "eigenvalue along the second axis",
            |r: &PartRow| r.of.eigenvalues[1],
        ),
        Column::new(
            "roughness_largest",
            "",
            "mean squared second difference over mean squared first difference along the first axis: 0 for a slope, near 0 for a wide bowl, 3 for noise",
            |r: &PartRow| r.roughness[0],
        ),
        Column::new(
            "roughness_smallest",
            "",
            "and along the second",
            |r: &PartRow| r.roughness[1],
        ),
        Column::new("roughness", "", "both axes together", |r: &PartRow| {
            r.roughness[2]
        }),
        Column::new(
            "samples",
            "samples",
            "training samples of the batch",
            |r: &PartRow| r.of.samples,
        ),
        Column::new("rotations", "rotations", "copies of each", |r: &PartRow| {
            r.of.rotations
        }),
    ],
});

/// One grid.
struct Grid {
    step: u64,
    group: String,
    grid: u64,
    spacing: f64,
    eigenvalues: [f64; 2],
    samples: u64,
    rotations: u64,
}

/// One point of it.
struct PointRow {
    of: Arc<Grid>,
    /// Counted from 0.
    at: [u64; 2],
    /// Distance from the middle.
    away: [f64; 2],
    losses: [f64; 3],
}

/// One part on it.
struct PartRow {
    of: Arc<Grid>,
    part: LossPart,
    roughness: [Option<f64>; 3],
}

/// `[protocols.landscape]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LandscapeSettings {
    /// Steps after which it asks, such as `[500, "last"]`.
    pub at: When,
    /// Parameter groups; none for those of protocol curvature.
    pub groups: Vec<String>,
    /// Points along each axis, an odd number.
    pub grid: u64,
    /// Distance of points in units of learning rate times gradient norm: 2 to 3 in the paper.
    pub spacing: f64,
    /// Training samples of the batch; 0 for as many as a training batch has.
    pub samples: u64,
    /// Parameters of a dense Hessian at most.
    pub max_dense: u64,
    /// Gigabytes for matrices or vectors at most.
    pub max_gb: f64,
    /// Products with a Hessian at most, where it is not dense.
    pub lanczos_steps: u64,
}

impl Default for LandscapeSettings {
    fn default() -> Self {
        Self {
            at: When::at(500),
            groups: Vec::new(),
            grid: 21,
            spacing: 2.5,
            samples: 0,
            max_dense: 2048,
            max_gb: 4.0,
            lanczos_steps: 48,
        }
    }
}

/// Asks for a grid of losses at some steps.
pub(super) struct Landscape(LandscapeSettings, Arc<Schedule>);

impl Landscape {
    fn ask(
        &self,
        snapshot: &mut Snapshot<'_>,
        group: &str,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        // Before the first step there is neither a rate nor a gradient to measure the grid by.
        let Some(last) = snapshot.moment().last_step else {
            return Ok(());
        };
        let scheme = Scheme::parse(snapshot.task().default_scheme())?;
        let portion = snapshot.fixed_batch(self.0.samples, &scheme, Estimator::Unbiased)?;
        let limits = Limits::new(self.0.max_dense, self.0.max_gb, self.0.lanczos_steps);
        let half = (self.0.grid / 2) as i64;
        let spacing = self.0.spacing * last.lr * last.gradient_norm;
        let found = snapshot.with_subset(&portion, group, |subset| {
            let Some(axes) = axes(subset, &limits)? else {
                return Ok(None);
            };
            Ok(Some((grid_of(subset, &axes, spacing, half)?, axes)))
        })?;
        let Some((losses, axes)) = found else {
            return Ok(());
        };
        let grid = Arc::new(Grid {
            step: snapshot.moment().step,
            group: group.to_owned(),
            grid: 2 * half as u64 + 1,
            spacing,
            eigenvalues: [axes.largest.0, axes.smallest.0],
            samples: portion.plans.len() as u64,
            rotations: scheme.rotations() as u64,
        });
        write(&grid, half, &losses, sink)
    }
}

/// The losses on the grid, the second axis the fastest.
fn grid_of(
    subset: &mut Subset<'_>,
    axes: &Axes,
    spacing: f64,
    half: i64,
) -> Result<Vec<[f64; 3]>, CoreError> {
    let start = subset.start()?;
    let mut losses = Vec::new();
    for i in -half..=half {
        for j in -half..=half {
            let (a, b) = (i as f64 * spacing, j as f64 * spacing);
            let along = axes.largest.1.iter().zip(&axes.smallest.1);
            let moved = start.iter().zip(along).map(|(p, (u, v))| p + a * u + b * v);
            subset.move_to(&moved.collect::<Vec<_>>())?;
            losses.push(subset.losses()?);
        }
    }
    subset.move_to(&start)?;
    Ok(losses)
}

fn write(
    grid: &Arc<Grid>,
    half: i64,
    losses: &[[f64; 3]],
    sink: &mut dyn Sink,
) -> Result<(), CoreError> {
    let side = 2 * half + 1;
    for (at, losses) in losses.iter().enumerate() {
        let place = [at as i64 / side, at as i64 % side];
        let row = PointRow {
            of: Arc::clone(grid),
            at: place.map(|i| i as u64),
            away: place.map(|i| (i - half) as f64 * grid.spacing),
            losses: *losses,
        };
        LANDSCAPE.write(sink, &row)?;
    }
    for (p, part) in LossPart::ALL.into_iter().enumerate() {
        let values: Vec<f64> = losses.iter().map(|l| l[p]).collect();
        let row = PartRow {
            of: Arc::clone(grid),
            part,
            roughness: roughness(&values, side as usize),
        };
        ROUGHNESS.write(sink, &row)?;
    }
    Ok(())
}

impl Protocol for Landscape {
    const NAME: &'static str = "landscape";
    const ABOUT: &'static str = "the parts of the loss on a grid along two eigenvectors of the Hessian, and how rough they are";
    type Settings = LandscapeSettings;

    fn tables() -> Vec<TableInfo> {
        vec![LANDSCAPE.info(), ROUGHNESS.info()]
    }

    fn start(settings: LandscapeSettings, schedule: Arc<Schedule>) -> Self {
        Self(settings, schedule)
    }

    fn due(&self, step: u64) -> bool {
        self.0.at.holds(step, self.1.total)
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        for (group, _) in groups_of(&self.0.groups, snapshot)? {
            snapshot.in_double(|snapshot| self.ask(snapshot, &group, sink))?;
        }
        Ok(())
    }
}

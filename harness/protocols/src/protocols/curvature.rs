//! Protocol 4, condition numbers and what they are worth: Hessians of `L`, `L_mean` and `L_equiv` over a subset of the parameters at a
//! fixed training batch with fixed rotations, their spectra, and how fast gradient descent would remove each part.

use crate::{Protocol, Schedule, Snapshot, columns, when::When};
use equivbench_core::{
    Column, CoreError, Estimator, LossPart, Portion, Scheme, Sink, Table, TableInfo, normals,
};
use equivbench_curvature::{
    Differences, Limits, MASSES, PartStudy, SpectrumNode, Study, study, study_single,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

static CONDITION: LazyLock<Table<PartRow>> = LazyLock::new(|| Table {
    name: "condition",
    about: "curvature of the parts of the loss over a subset of the parameters, at a fixed training batch with fixed rotations: condition numbers, and how fast gradient descent would remove each part",
    columns: [
        key_columns(|r: &PartRow| r),
        part_columns(),
        figure_columns(),
        decay_columns(),
        trust_columns(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

static SPECTRA: LazyLock<Table<NodeRow>> = LazyLock::new(|| Table {
    name: "spectra",
    about: "spectra of the Hessians of condition.csv: every eigenvalue where they are dense, else Ritz values",
    columns: [key_columns(|r: &NodeRow| &r.of), node_columns()]
        .into_iter()
        .flatten()
        .collect(),
});

/// One part of one subset, found in one way.
struct PartRow {
    step: u64,
    group: String,
    parameters: u64,
    how: Arc<How>,
    loss: f64,
    why_not_dense: Option<String>,
    study: Arc<PartStudy>,
}

/// How a batch was measured.
struct How {
    scheme: String,
    rotations: u64,
    estimator: String,
    samples: u64,
}

/// One point of a spectrum.
struct NodeRow {
    of: Arc<PartRow>,
    index: u64,
    node: SpectrumNode,
}

fn key_columns<R: 'static>(of: fn(&R) -> &PartRow) -> Vec<Column<R>> {
    vec![
        columns::version(),
        columns::step(move |r: &R| of(r).step),
        Column::new(
            "group",
            "",
            "parameters that the Hessian is over: a group that the model names",
            move |r: &R| of(r).group.clone(),
        ),
        Column::new(
            "part",
            "",
            "loss_total, loss_twirled (L_mean) or loss_equiv",
            move |r: &R| of(r).study.part.name(),
        ),
        Column::new(
            "precision",
            "",
            "f64, or f32 as in the paper: matrix and eigenvalues in single precision (features too, where the prediction is linear in the group; elsewhere the f64 matrix is rounded)",
            move |r: &R| of(r).study.precision,
        ),
        Column::new("scheme", "", "how rotations are drawn", move |r: &R| {
            of(r).how.scheme.clone()
        }),
        Column::new(
            "estimator",
            "",
            "unbiased, plug-in (its Hessian of L_mean carries 1/n of that of L_equiv) or exact",
            move |r: &R| of(r).how.estimator.clone(),
        ),
        Column::new(
            "method",
            "",
            "gauss-newton (exact: the prediction is linear in the group), differences (of gradients) or lanczos (products with vectors only)",
            move |r: &R| of(r).study.method.name(),
        ),
    ]
}

fn part_columns() -> Vec<Column<PartRow>> {
    vec![
        Column::new(
            "parameters",
            "parameters",
            "scalars of the group",
            |r: &PartRow| r.parameters,
        ),
        Column::new(
            "samples",
            "samples",
            "training samples of the batch",
            |r: &PartRow| r.how.samples,
        ),
        Column::new("rotations", "rotations", "copies of each", |r: &PartRow| {
            r.how.rotations
        }),
        Column::new(
            "loss",
            "target²",
            "the part of the loss at this batch",
            |r: &PartRow| r.loss,
        ),
        Column::new(
            "gradient_norm",
            "target²/parameter",
            "norm of its gradient over the group",
            |r: &PartRow| r.study.gradient_norm,
        ),
    ]
}

fn figure_columns() -> Vec<Column<PartRow>> {
    let figures = |r: &PartRow| r.study.figures.clone();
    let mut all = vec![
        Column::new(
            "lambda_max",
            "target²/parameter²",
            "largest eigenvalue (lanczos: largest Ritz value)",
            |r: &PartRow| r.study.largest,
        ),
        Column::new(
            "floor",
            "target²/parameter²",
            "below this an eigenvalue is rounding: parameters times the precision times lambda_max of loss_total, or the largest asymmetry of a matrix of differences where that is more; empty for lanczos",
            move |r: &PartRow| figures(r).map(|f| f.floor),
        ),
        Column::new(
            "rank",
            "",
            "eigenvalues above the floor; empty for lanczos",
            move |r: &PartRow| figures(r).map(|f| f.rank as u64),
        ),
        Column::new(
            "lambda_min",
            "target²/parameter²",
            "smallest eigenvalue above the floor",
            move |r: &PartRow| figures(r).and_then(|f| f.smallest),
        ),
        Column::new(
            "condition_number",
            "",
            "lambda_max / lambda_min: of the part on its range, as far as this precision can see",
            move |r: &PartRow| figures(r).and_then(|f| f.condition),
        ),
        Column::new(
            "condition_number_paper",
            "",
            "largest over smallest positive eigenvalue, however small: the paper's definition, which measures rounding where a Hessian is not of full rank",
            move |r: &PartRow| figures(r).and_then(|f| f.condition_paper),
        ),
        Column::new(
            "trace_over_max",
            "",
            "sum of the eigenvalues over the largest: an effective rank",
            move |r: &PartRow| figures(r).and_then(|f| f.trace_over_largest),
        ),
    ];
    all.extend(MASS_COLUMNS.iter().enumerate().map(|(i, (name, about))| {
        Column::new(name, "", about, move |r: &PartRow| r.study.above[i])
    }));
    all.push(Column::new(
        "negative",
        "",
        "fraction of the eigenvalues below minus the floor (lanczos: minus its resolution): of unbiased estimates and of groups in which the prediction is not linear",
        |r: &PartRow| r.study.negative,
    ));
    all
}

/// Names and texts of the columns of `MASSES`.
const MASS_COLUMNS: [(&str, &str); MASSES.len()] = [
    (
        "above_1e2",
        "fraction of the eigenvalues above 1e-2 of lambda_max; empty where lanczos does not resolve it",
    ),
    ("above_1e4", "above 1e-4"),
    ("above_1e6", "above 1e-6"),
    ("above_1e8", "above 1e-8"),
];

fn decay_columns() -> Vec<Column<PartRow>> {
    vec![
        Column::new(
            "steps_half",
            "steps",
            "steps of gradient descent at the rate 1/lambda_max of loss_total after which half of what can be removed of the part is gone, in its quadratic model",
            |r: &PartRow| r.study.decay.half,
        ),
        Column::new("steps_90", "steps", "and 90 percent", |r: &PartRow| {
            r.study.decay.most
        }),
        Column::new("steps_99", "steps", "and 99 percent", |r: &PartRow| {
            r.study.decay.nearly_all
        }),
        Column::new(
            "removable",
            "target²",
            "what can be removed in the quadratic model; where it exceeds the loss itself, the Hessian is none of a loss (an unbiased estimate with negative eigenvalues, say) and the steps mean nothing",
            |r: &PartRow| r.study.decay.removable,
        ),
        Column::new(
            "left_out",
            "",
            "fraction of the squared gradient along eigenvalues that were left out of the decay: negative, below the floor, above lambda_max of loss_total",
            |r: &PartRow| r.study.decay.left_out,
        ),
    ]
}

fn trust_columns() -> Vec<Column<PartRow>> {
    vec![
        Column::new(
            "residual",
            "",
            "largest |Hv - λv| over lambda_max: of all eigenpairs, or of the largest Ritz pair",
            |r: &PartRow| r.study.residual,
        ),
        Column::new(
            "asymmetry",
            "",
            "largest difference of an entry to its mirror image over lambda_max, before the matrix was made symmetric: the error of differences",
            |r: &PartRow| r.study.asymmetry,
        ),
        Column::new(
            "below_resolution",
            "",
            "fraction of the eigenvalues that lanczos cannot tell from 0: about lambda_max over the square of its products",
            |r: &PartRow| r.study.below_resolution,
        ),
        Column::new(
            "not_dense",
            "",
            "why eigenvalues are not all known, and what it would take",
            |r: &PartRow| r.why_not_dense.clone(),
        ),
    ]
}

fn node_columns() -> Vec<Column<NodeRow>> {
    vec![
        Column::new(
            "seen_from",
            "",
            "all for an eigenvalue; gradient or probe-N for a Ritz value from that start vector",
            |r: &NodeRow| r.node.seen_from.clone(),
        ),
        Column::new("index", "", "counts from 0, ascending", |r: &NodeRow| {
            r.index
        }),
        Column::new(
            "value",
            "target²/parameter²",
            "eigenvalue or Ritz value",
            |r: &NodeRow| r.node.value,
        ),
        Column::new(
            "gradient_weight",
            "",
            "fraction of the squared gradient of the part along it",
            |r: &NodeRow| r.node.gradient_weight,
        ),
        Column::new(
            "density",
            "",
            "fraction of all eigenvalues that it stands for",
            |r: &NodeRow| r.node.density,
        ),
    ]
}

/// `[protocols.curvature]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CurvatureSettings {
    /// Steps after which it asks, such as `[500, "last"]`.
    pub at: When,
    /// Parameter groups; none for `head` and `equivariant-subspace`, as far as the model names them.
    pub groups: Vec<String>,
    /// Training samples of the batch; 0 for as many as a training batch has.
    pub samples: u64,
    /// How rotations are drawn; empty for what the task suggests.
    pub scheme: String,
    /// Whether the paper's set-up is measured too (f32, plug-in, rotations by `paper_scheme`), and the same in f64.
    pub paper: bool,
    /// How rotations of the paper's set-up are drawn; empty for random-10, on grids cube16-a.
    pub paper_scheme: String,
    /// Parameters of a dense Hessian at most.
    pub max_dense: u64,
    /// Gigabytes for matrices or vectors at most.
    pub max_gb: f64,
    /// Products with a Hessian at most, where it is not dense.
    pub lanczos_steps: u64,
    /// Random vectors for the density of a spectrum that is not dense.
    pub probes: u64,
    /// `central` or `richardson`.
    pub differences: String,
    /// Rows of spectra.csv for each part at most; those in between are left out evenly.
    pub spectrum_rows: u64,
}

impl Default for CurvatureSettings {
    fn default() -> Self {
        Self {
            at: When::at(500),
            groups: Vec::new(),
            samples: 0,
            scheme: String::new(),
            paper: true,
            paper_scheme: String::new(),
            max_dense: 8192,
            max_gb: 4.0,
            lanczos_steps: 48,
            probes: 1,
            differences: "richardson".into(),
            spectrum_rows: 10_000,
        }
    }
}

impl CurvatureSettings {
    fn limits(&self) -> Result<Limits, CoreError> {
        Ok(Limits {
            probes: self.probes as usize,
            differences: Differences::parse(&self.differences)?,
            ..Limits::new(self.max_dense, self.max_gb, self.lanczos_steps)
        })
    }
}

/// The groups that are asked for, or those that curvature is about, as far as the model names them.
///
/// # Errors
/// A group that the model does not name.
pub(super) fn groups_of(
    asked: &[String],
    snapshot: &Snapshot<'_>,
) -> Result<Vec<(String, usize)>, CoreError> {
    let known = snapshot.groups();
    let all = known
        .iter()
        .find(|(name, _)| name == "all")
        .map(|(_, n)| *n);
    if asked.is_empty() {
        let usual = ["head", "equivariant-subspace"];
        let own = |g: &&(String, usize)| usual.contains(&g.0.as_str()) && Some(g.1) != all;
        let found: Vec<_> = known.iter().filter(own).cloned().collect();
        let whole = || (String::from("all"), all.unwrap_or(0));
        return Ok(if found.is_empty() {
            vec![whole()]
        } else {
            found
        });
    }
    let find = |name: &String| {
        let found = known.iter().find(|(known, _)| known == name);
        found.cloned().ok_or_else(|| CoreError::Unknown {
            what: "parameter group",
            name: name.clone(),
            known: known
                .iter()
                .map(|g| g.0.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
    };
    asked.iter().map(find).collect()
}

/// Asks for Hessians at some steps.
pub(super) struct Curvature(CurvatureSettings, Arc<Schedule>);

impl Curvature {
    /// The scheme of a name, or the first of some that the task can use.
    fn scheme(named: &str, usual: &[&str], snapshot: &Snapshot<'_>) -> Result<Scheme, CoreError> {
        if !named.is_empty() {
            let scheme = Scheme::parse(named)?;
            return snapshot.task().check_scheme(&scheme).map(|()| scheme);
        }
        let mut last = CoreError::Shape("no scheme".into());
        for name in usual {
            let scheme = Scheme::parse(name)?;
            match snapshot.task().check_scheme(&scheme) {
                Ok(()) => return Ok(scheme),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn batch(
        &self,
        scheme: &Scheme,
        estimator: Estimator,
        snapshot: &Snapshot<'_>,
    ) -> Result<(Portion, How), CoreError> {
        let portion = snapshot.fixed_batch(self.0.samples, scheme, estimator)?;
        let how = How {
            scheme: scheme.name(),
            rotations: scheme.rotations() as u64,
            estimator: estimator.named_for(scheme, portion.how.loss).into(),
            samples: portion.plans.len() as u64,
        };
        Ok((portion, how))
    }

    /// In double precision, with the rotations that the task suggests.
    fn in_full(
        &self,
        snapshot: &mut Snapshot<'_>,
        group: &(String, usize),
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let usual = [snapshot.task().default_scheme()];
        let scheme = Self::scheme(&self.0.scheme, &usual, snapshot)?;
        self.study(snapshot, group, &scheme, Estimator::Unbiased, sink)
            .map(drop)
    }

    /// Plug-in over ten rotations in single precision, and in double beside it: what of the difference to the rows above is the estimator,
    /// and what is rounding.
    fn as_in_the_paper(
        &self,
        snapshot: &mut Snapshot<'_>,
        group: &(String, usize),
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let limits = self.0.limits()?;
        // Without its matrix there is nothing to round.
        if limits.why_not_dense(group.1).is_some() {
            return Ok(());
        }
        let usual = ["random-10", "cube16-a"];
        let scheme = Self::scheme(&self.0.paper_scheme, &usual, snapshot)?;
        let rounded = snapshot.in_double(|snapshot| {
            let (studied, how, losses) =
                self.study(snapshot, group, &scheme, Estimator::PlugIn, sink)?;
            let rounded = studied.rounded()?;
            let is_written = rounded.is_some();
            let rounded = rounded.unwrap_or_default();
            self.write(snapshot, group, &how, losses, rounded, sink)?;
            Ok(is_written)
        })?;
        if rounded {
            return Ok(());
        }
        let (portion, how) = self.batch(&scheme, Estimator::PlugIn, snapshot)?;
        let (losses, studies) = snapshot.with_subset(&portion, &group.0, |subset| {
            Ok((subset.losses()?, study_single(subset, &limits)?))
        })?;
        let studies = studies.unwrap_or_default();
        self.write(snapshot, group, &Arc::new(how), losses, studies, sink)
    }

    /// Studies a group of a model in double precision and writes what is found; with how, and the losses.
    fn study(
        &self,
        snapshot: &mut Snapshot<'_>,
        group: &(String, usize),
        scheme: &Scheme,
        estimator: Estimator,
        sink: &mut dyn Sink,
    ) -> Result<(Study, Arc<How>, [f64; 3]), CoreError> {
        let limits = self.0.limits()?;
        let (portion, how) = self.batch(scheme, estimator, snapshot)?;
        let seed = snapshot.seed();
        let probe = |index: usize, count: usize| {
            let mut stream = seed.indexed_stream("curvature/probe", index as u64);
            normals(&mut stream, count)
        };
        let (losses, studied) = snapshot.with_subset(&portion, &group.0, |subset| {
            Ok((subset.losses()?, study(subset, &limits, &probe)?))
        })?;
        let (how, parts) = (Arc::new(how), studied.parts.clone());
        self.write(snapshot, group, &how, losses, parts, sink)?;
        Ok((studied, how, losses))
    }

    fn write(
        &self,
        snapshot: &Snapshot<'_>,
        (group, parameters): &(String, usize),
        how: &Arc<How>,
        losses: [f64; 3],
        studies: Vec<PartStudy>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let why_not_dense = self.0.limits()?.why_not_dense(*parameters);
        for study in studies {
            let loss = losses[LossPart::ALL
                .iter()
                .position(|p| *p == study.part)
                .unwrap_or(0)];
            let row = Arc::new(PartRow {
                step: snapshot.moment().step,
                group: group.clone(),
                parameters: *parameters as u64,
                how: Arc::clone(how),
                loss,
                why_not_dense: why_not_dense.clone(),
                study: Arc::new(study),
            });
            CONDITION.write(sink, &row)?;
            self.write_spectrum(&row, sink)?;
        }
        Ok(())
    }

    fn write_spectrum(&self, of: &Arc<PartRow>, sink: &mut dyn Sink) -> Result<(), CoreError> {
        let nodes = &of.study.nodes;
        // Of more rows than are asked for every so-manieth, both ends among them.
        let every = (nodes.len() as u64)
            .div_ceil(self.0.spectrum_rows.max(1))
            .max(1) as usize;
        for (index, node) in nodes.iter().enumerate() {
            if index % every != 0 && index + 1 != nodes.len() {
                continue;
            }
            let row = NodeRow {
                of: Arc::clone(of),
                index: index as u64,
                node: node.clone(),
            };
            SPECTRA.write(sink, &row)?;
        }
        Ok(())
    }
}

impl Protocol for Curvature {
    const NAME: &'static str = "curvature";
    const ABOUT: &'static str = "Hessians of the parts of the loss: spectra, condition numbers, and how fast gradient descent removes each part";
    type Settings = CurvatureSettings;

    fn tables() -> Vec<TableInfo> {
        vec![CONDITION.info(), SPECTRA.info()]
    }

    fn start(settings: CurvatureSettings, schedule: Arc<Schedule>) -> Self {
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
        for group in groups_of(&self.0.groups, snapshot)? {
            snapshot.in_double(|snapshot| self.in_full(snapshot, &group, sink))?;
            if self.0.paper {
                self.as_in_the_paper(snapshot, &group, sink)?;
            }
        }
        Ok(())
    }
}

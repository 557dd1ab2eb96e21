//! From a subset to what tables say of its curvature: dense where it fits, matrix-free where it does not.

use crate::{
    Decay, Differences, Eigenpairs, Figures, LanczosRun, MASSES, Node, Number, Subset, decay,
    eigenpairs, eigenvalues, figures, gauss_newton, hessians, lanczos, product,
};
use equivbench_core::{CoreError, LossPart, norm};
use faer::Mat;

/// Parameters up to which eigenvectors are made: 16 million numbers, seconds; beyond, Lanczos on the matrix tells of the gradient.
const WITH_VECTORS: usize = 2048;

/// What may be spent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Parameters of a dense Hessian at most.
    pub max_dense: usize,
    /// Bytes for matrices, or for the vectors of Lanczos, at most.
    pub max_bytes: u64,
    /// Products of a Lanczos run at most.
    pub lanczos_steps: usize,
    /// Random vectors from which the density of a spectrum is seen where it is not dense.
    pub probes: usize,
    /// How gradients are differenced.
    pub differences: Differences,
}

impl Limits {
    /// No probes, and Richardson's differences.
    #[must_use]
    pub const fn new(max_dense: u64, max_gb: f64, lanczos_steps: u64) -> Self {
        Self {
            max_dense: max_dense as usize,
            max_bytes: (max_gb * 1e9) as u64,
            lanczos_steps: lanczos_steps as usize,
            probes: 0,
            differences: Differences::Richardson,
        }
    }

    /// Bytes of a dense study: three matrices, eigenvectors and what they are made in.
    #[must_use]
    pub const fn dense_bytes(parameters: usize) -> u64 {
        6 * 8 * (parameters as u64) * (parameters as u64)
    }

    /// Why a Hessian is not dense; `None` where it is.
    #[must_use]
    pub fn why_not_dense(&self, parameters: usize) -> Option<String> {
        let bytes = Self::dense_bytes(parameters);
        let gigabytes = bytes as f64 / 1e9;
        if parameters > self.max_dense {
            return Some(format!(
                "{parameters} parameters are more than max_dense = {}; dense they take {gigabytes:.1} GB",
                self.max_dense
            ));
        }
        (bytes > self.max_bytes).then(|| {
            let allowed = self.max_bytes as f64 / 1e9;
            format!("{parameters} parameters take {gigabytes:.1} GB dense, max_gb is {allowed:.1}")
        })
    }

    /// Products of a run whose vectors fit.
    ///
    /// # Errors
    /// Fewer than two vectors fit.
    fn steps(&self, parameters: usize) -> Result<usize, CoreError> {
        let vector = 8 * parameters.max(1) as u64;
        // Beside the basis there is the product that is being made, and four gradients.
        let fit = (self.max_bytes / vector).saturating_sub(6) as usize;
        if fit < 2 {
            return Err(CoreError::Shape(format!(
                "Lanczos over {parameters} parameters keeps vectors of {:.2} GB each; max_gb = {:.2} holds no two beside the gradients",
                vector as f64 / 1e9,
                self.max_bytes as f64 / 1e9
            )));
        }
        Ok(self.lanczos_steps.min(fit))
    }
}

/// How a Hessian was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Products of features: exact.
    GaussNewton,
    /// Differences of gradients, dense.
    Differences,
    /// Products with vectors only.
    Lanczos,
}

impl Method {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GaussNewton => "gauss-newton",
            Self::Differences => "differences",
            Self::Lanczos => "lanczos",
        }
    }
}

/// A point of a spectrum.
#[derive(Clone, Debug, PartialEq)]
pub struct SpectrumNode {
    /// `all` for an eigenvalue, `gradient` or `probe-0`, … for a Ritz value from that start.
    pub seen_from: String,
    /// Eigenvalue or Ritz value.
    pub value: f64,
    /// Share of the squared gradient of the part along it, where the gradient is what it is seen from or all is known.
    pub gradient_weight: Option<f64>,
    /// Share of all eigenvalues that it stands for, where that is known.
    pub density: Option<f64>,
}

/// What is known of the curvature of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct PartStudy {
    /// The part.
    pub part: LossPart,
    /// How it was found.
    pub method: Method,
    /// In which precision.
    pub precision: &'static str,
    /// Norm of the gradient of the part over the subset.
    pub gradient_norm: f64,
    /// The largest eigenvalue, or Ritz value.
    pub largest: f64,
    /// Figures of all eigenvalues, where they are known.
    pub figures: Option<Figures>,
    /// Fractions of the eigenvalues above `10^-k` of the largest, for [`MASSES`], as far as they are resolved.
    pub above: [Option<f64>; 4],
    /// Fraction of the eigenvalues below 0 by more than can be told.
    pub negative: Option<f64>,
    /// Fraction of the eigenvalues that Lanczos cannot tell from 0.
    pub below_resolution: Option<f64>,
    /// What Lanczos cannot tell from 0.
    pub resolution: Option<f64>,
    /// Decay under gradient descent.
    pub decay: Decay,
    /// Largest residual of eigenpairs over the largest eigenvalue.
    pub residual: Option<f64>,
    /// Largest difference of an entry to its mirror image, over the largest eigenvalue.
    pub asymmetry: Option<f64>,
    /// The spectrum.
    pub nodes: Vec<SpectrumNode>,
}

/// The gradients of the three parts.
struct Gradients([Vec<f64>; 3]);

impl Gradients {
    fn of(subset: &mut Subset<'_>) -> Result<Self, CoreError> {
        let mut found = subset.gradients(&[LossPart::Total, LossPart::Equivariance])?;
        let equiv = found.pop().unwrap_or_default();
        let total = found.pop().unwrap_or_default();
        let twirled = difference(&total, &equiv);
        Ok(Self([total, twirled, equiv]))
    }

    fn part(&self, part: LossPart) -> &[f64] {
        &self.0[part as usize]
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// A vector for the density of a spectrum: standard normal numbers by its index.
pub type Probe<'a> = dyn Fn(usize, usize) -> Vec<f64> + 'a;

/// What was found of a subset in double precision.
pub struct Study {
    /// `L`, `L_mean`, `L_equiv`.
    pub parts: Vec<PartStudy>,
    gradients: Gradients,
    /// `None` where it was too large.
    dense: Option<Dense>,
}

/// Studies the curvature of all parts in double precision.
///
/// # Errors
/// What the model reports, a request to stop, vectors that do not fit.
pub fn study(
    subset: &mut Subset<'_>,
    limits: &Limits,
    probe: &Probe<'_>,
) -> Result<Study, CoreError> {
    let gradients = Gradients::of(subset)?;
    if limits.why_not_dense(subset.start()?.len()).is_some() {
        return Ok(Study {
            parts: matrix_free(subset, &gradients, limits, probe)?,
            gradients,
            dense: None,
        });
    }
    let dense = Dense::of(subset, limits)?;
    let look = |part| Seen::of(&dense.part(part), gradients.part(part));
    Ok(Study {
        parts: parts_of::<f64>(&look, &dense.how, &gradients)?,
        gradients,
        dense: Some(dense),
    })
}

impl Study {
    /// The same with Hessians of differences rounded to single precision, whose eigenvalues are found in it: gradients in single precision
    /// are no use for differences. `None` where Hessians are products of features, which single precision makes itself
    /// ([`study_single`]), and where there are none.
    ///
    /// # Errors
    /// A matrix for which the iteration does not end.
    pub fn rounded(&self) -> Result<Option<Vec<PartStudy>>, CoreError> {
        let is_rounded = |dense: &&Dense| dense.how.method == Method::Differences;
        let Some(dense) = self.dense.as_ref().filter(is_rounded) else {
            return Ok(None);
        };
        let look = |part| {
            let wide = dense.part(part);
            let narrow = Mat::from_fn(wide.nrows(), wide.ncols(), |i, j| wide[(i, j)] as f32);
            Seen::in_single(&narrow, self.gradients.part(part))
        };
        parts_of::<f32>(&look, &dense.how, &self.gradients).map(Some)
    }
}

/// Studies the curvature of all parts in single precision over a subset in which the prediction is linear: features, as the model gives
/// them, their products and the eigenvalues of these. `None` for other subsets, and where a Hessian does not fit.
///
/// # Errors
/// As [`study`].
pub fn study_single(
    subset: &mut Subset<'_>,
    limits: &Limits,
) -> Result<Option<Vec<PartStudy>>, CoreError> {
    if limits.why_not_dense(subset.start()?.len()).is_some() || subset.linear().is_none() {
        return Ok(None);
    }
    let gradients = Gradients::of(subset)?;
    let products = gauss_newton::<f32>(subset)?;
    let look = |part| Seen::in_single(&products.hessian(part), gradients.part(part));
    parts_of::<f32>(&look, &How::PRODUCTS, &gradients).map(Some)
}

/// Eigenvalues of a sum of `n` terms are good to `n ε` of the largest one; parts are differences of sums as large as `L` has.
fn floor(parameters: usize, largest: f64, epsilon: f64) -> f64 {
    parameters as f64 * epsilon * largest.abs()
}

/// The eigenvalues of a matrix, and what a gradient sees of it.
struct Seen {
    /// Ascending.
    values: Vec<f64>,
    /// One for each eigenvalue, or fewer.
    nodes: Vec<Node>,
    residual: Option<f64>,
}

impl Seen {
    fn of(matrix: &Mat<f64>, gradient: &[f64]) -> Result<Self, CoreError> {
        if matrix.nrows() > WITH_VECTORS {
            return Ok(Self {
                values: eigenvalues(matrix)?,
                nodes: from_gradient(matrix, gradient)?,
                residual: None,
            });
        }
        let found = eigenpairs(matrix)?;
        Ok(Self {
            nodes: whole_nodes(&found, gradient),
            residual: Some(found.residual),
            values: found.values,
        })
    }

    /// Eigenvalues as single precision finds them; what the gradient sees, by eigenvectors of the same matrix that are not rounded again.
    fn in_single(matrix: &Mat<f32>, gradient: &[f64]) -> Result<Self, CoreError> {
        let wide = Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| {
            f64::from(matrix[(i, j)])
        });
        Ok(Self {
            values: eigenvalues(matrix)?,
            ..Self::of(&wide, gradient)?
        })
    }

    fn spectrum(&self, has_gradient: bool) -> Vec<SpectrumNode> {
        let n = self.values.len();
        let is_whole = self.nodes.len() == n;
        let all = self
            .values
            .iter()
            .enumerate()
            .map(|(i, &value)| SpectrumNode {
                seen_from: "all".into(),
                value,
                gradient_weight: (is_whole && has_gradient).then(|| self.nodes[i].weight),
                density: Some(1.0 / n as f64),
            });
        let rest: &[Node] = if is_whole { &[] } else { &self.nodes };
        all.chain(rest.iter().map(gradient_node)).collect()
    }
}

/// All parts, `L` first: its largest eigenvalue is the measure of the others.
fn parts_of<N: Number>(
    look: &dyn Fn(LossPart) -> Result<Seen, CoreError>,
    how: &How,
    gradients: &Gradients,
) -> Result<Vec<PartStudy>, CoreError> {
    let seen: Vec<Seen> = LossPart::ALL
        .into_iter()
        .map(look)
        .collect::<Result<_, _>>()?;
    let largest = seen[0].values.last().copied().unwrap_or_default();
    let parts = LossPart::ALL.into_iter().zip(&seen);
    Ok(parts
        .map(|(part, seen)| part_of::<N>(part, seen, how, gradients.part(part), largest))
        .collect())
}

fn part_of<N: Number>(
    part: LossPart,
    seen: &Seen,
    how: &How,
    gradient: &[f64],
    largest: f64,
) -> PartStudy {
    let floor = floor(seen.values.len(), largest, N::EPSILON).max(how.asymmetry.unwrap_or(0.0));
    let found = figures(&seen.values, floor);
    let length = norm(gradient);
    PartStudy {
        part,
        method: how.method,
        precision: N::NAME,
        gradient_norm: length,
        largest: found.largest,
        above: found.above.map(Some),
        negative: Some(found.negative),
        below_resolution: None,
        resolution: None,
        decay: decay(&seen.nodes, length * length, floor, largest),
        residual: seen.residual,
        asymmetry: how.asymmetry.map(|a| a / largest.abs()),
        nodes: seen.spectrum(length > 0.0),
        figures: Some(found),
    }
}

/// How dense Hessians were found.
struct How {
    method: Method,
    /// Of entries.
    asymmetry: Option<f64>,
}

impl How {
    const PRODUCTS: Self = Self {
        method: Method::GaussNewton,
        asymmetry: None,
    };
}

enum Matrices {
    Total { total: Mat<f64>, equiv: Mat<f64> },
    Products(crate::GaussNewton<f64>),
}

/// Dense Hessians.
struct Dense {
    how: How,
    matrices: Matrices,
}

impl Dense {
    fn of(subset: &mut Subset<'_>, limits: &Limits) -> Result<Self, CoreError> {
        if subset.linear().is_some() {
            return Ok(Self {
                how: How::PRODUCTS,
                matrices: Matrices::Products(gauss_newton(subset)?),
            });
        }
        let start = subset.start()?;
        let parts = [LossPart::Total, LossPart::Equivariance];
        let mut at = |parameters: &[f64]| {
            let held = subset.move_to(parameters)?;
            Ok((held, subset.gradients(&parts)?))
        };
        let mut found = hessians(&start, limits.differences, &mut at)?;
        subset.move_to(&start)?;
        let none = || CoreError::Shape("a subset without parameters has no Hessian".into());
        let (equiv, b) = found.pop().ok_or_else(none)?;
        let (total, a) = found.pop().ok_or_else(none)?;
        Ok(Self {
            how: How {
                method: Method::Differences,
                asymmetry: Some(a.max(b)),
            },
            matrices: Matrices::Total { total, equiv },
        })
    }

    fn part(&self, part: LossPart) -> Mat<f64> {
        match &self.matrices {
            Matrices::Products(products) => products.hessian(part),
            Matrices::Total { total, equiv } => match part {
                LossPart::Total => total.clone(),
                LossPart::Equivariance => equiv.clone(),
                LossPart::Twirled => total - equiv,
            },
        }
    }
}

fn gradient_node(node: &Node) -> SpectrumNode {
    SpectrumNode {
        seen_from: "gradient".into(),
        value: node.value,
        gradient_weight: Some(node.weight),
        density: None,
    }
}

fn whole_nodes(found: &Eigenpairs, gradient: &[f64]) -> Vec<Node> {
    let square: f64 = gradient.iter().map(|g| g * g).sum();
    let node = |(value, weight): (&f64, f64)| Node {
        value: *value,
        weight: if square > 0.0 { weight / square } else { 0.0 },
    };
    found
        .values
        .iter()
        .zip(found.weights(gradient))
        .map(node)
        .collect()
}

/// Products with a dense matrix cost nothing beside its eigenvalues.
fn from_gradient(matrix: &Mat<f64>, gradient: &[f64]) -> Result<Vec<Node>, CoreError> {
    let mut times = |v: &[f64]| {
        let vector = faer::ColRef::from_slice(v);
        Ok((matrix * vector).iter().copied().collect())
    };
    let run = lanczos(gradient, 256, &mut times)?;
    Ok(run.map(|run| run.found.nodes).unwrap_or_default())
}

/// Lanczos with products of one part by differences of its gradients.
fn run_part(
    subset: &mut Subset<'_>,
    part: LossPart,
    start: &[f64],
    limits: &Limits,
) -> Result<Option<LanczosRun>, CoreError> {
    let steps = limits.steps(start.len())?;
    let parameters = subset.start()?;
    let mut times = |vector: &[f64]| {
        let mut at = |moved: &[f64]| {
            let held = subset.move_to(moved)?;
            Ok((held, subset.gradients(&[part])?))
        };
        // Good to 3e-12, where a run of 80 products resolves 1e-4.
        let mut found = product(&parameters, vector, Differences::Central, &mut at)?;
        Ok(found.pop().unwrap_or_else(|| vec![0.0; vector.len()]))
    };
    let run = lanczos(start, steps, &mut times);
    subset.move_to(&parameters)?;
    run
}

fn matrix_free(
    subset: &mut Subset<'_>,
    gradients: &Gradients,
    limits: &Limits,
    probe: &Probe<'_>,
) -> Result<Vec<PartStudy>, CoreError> {
    let count = subset.start()?.len();
    let mut runs = Vec::new();
    for part in LossPart::ALL {
        let mut of_part = vec![run_part(subset, part, gradients.part(part), limits)?];
        for index in 0..limits.probes {
            of_part.push(run_part(subset, part, &probe(index, count), limits)?);
        }
        runs.push((part, of_part));
    }
    let top = |runs: &[Option<LanczosRun>]| {
        let nodes = runs.iter().flatten().flat_map(|r| &r.found.nodes);
        nodes.map(|n| n.value).fold(f64::NEG_INFINITY, f64::max)
    };
    let largest = top(&runs[0].1);
    let known = runs.iter().map(|(part, runs)| {
        let gradient = gradients.part(*part);
        free_study(*part, runs, gradient, top(runs), largest)
    });
    Ok(known.collect())
}

fn free_study(
    part: LossPart,
    runs: &[Option<LanczosRun>],
    gradient: &[f64],
    own_largest: f64,
    largest: f64,
) -> PartStudy {
    let (from_gradient, probes) = (&runs[0], &runs[1..]);
    let probes: Vec<&LanczosRun> = probes.iter().flatten().collect();
    let square: f64 = gradient.iter().map(|g| g * g).sum();
    let nodes_of = |run: &LanczosRun| run.found.nodes.clone();
    let seen = from_gradient.as_ref().map(nodes_of).unwrap_or_default();
    let resolution = probes
        .iter()
        .map(|r| r.found.resolution)
        .fold(0.0, f64::max);
    let share = |holds: &dyn Fn(f64) -> bool| {
        let of = |run: &&LanczosRun| -> f64 {
            run.found
                .nodes
                .iter()
                .filter(|n| holds(n.value))
                .map(|n| n.weight)
                .sum()
        };
        let sum: f64 = probes.iter().map(of).sum();
        (!probes.is_empty()).then(|| sum / probes.len() as f64)
    };
    let above = MASSES.map(|k| {
        let level = own_largest * 10f64.powi(-k);
        if level < resolution {
            None
        } else {
            share(&|v| v > level)
        }
    });
    let mut nodes: Vec<SpectrumNode> = seen.iter().map(gradient_node).collect();
    for (index, run) in probes.iter().enumerate() {
        nodes.extend(run.found.nodes.iter().map(|n| SpectrumNode {
            seen_from: format!("probe-{index}"),
            value: n.value,
            gradient_weight: None,
            density: Some(n.weight / probes.len() as f64),
        }));
    }
    PartStudy {
        part,
        method: Method::Lanczos,
        precision: f64::NAME,
        gradient_norm: norm(gradient),
        largest: own_largest,
        figures: None,
        above,
        negative: share(&|v| v < -resolution),
        below_resolution: share(&|v| v.abs() <= resolution),
        resolution: (!probes.is_empty()).then_some(resolution),
        // What is left of the gradient below the floor of f64 is nothing that Lanczos could resolve.
        decay: decay(
            &seen,
            square,
            floor(gradient.len(), largest, f64::EPSILON),
            largest,
        ),
        residual: from_gradient.as_ref().map(|r| r.found.residual),
        asymmetry: None,
        nodes,
    }
}

/// Two directions in parameters with the curvature of `L` along them.
#[derive(Clone, Debug, PartialEq)]
pub struct Axes {
    /// The largest eigenvalue of `L` and its eigenvector.
    pub largest: (f64, Vec<f64>),
    /// The smallest eigenvalue of `L` above its floor (matrix-free: above what Lanczos resolves) and its eigenvector.
    pub smallest: (f64, Vec<f64>),
}

/// The axes of the landscape; `None` where `L` has no two positive eigenvalues.
///
/// # Errors
/// As [`study`].
pub fn axes(subset: &mut Subset<'_>, limits: &Limits) -> Result<Option<Axes>, CoreError> {
    let count = subset.start()?.len();
    let pick = |values: &[f64], floor: f64| {
        let smallest = values.iter().position(|v| *v > floor)?;
        let largest = values.len() - 1;
        (smallest < largest).then_some((smallest, largest))
    };
    // Eigenvectors of more would take minutes.
    if limits.why_not_dense(count).is_none() && count <= WITH_VECTORS {
        let dense = Dense::of(subset, limits)?;
        let found = eigenpairs(&dense.part(LossPart::Total))?;
        let largest = found.values.last().copied().unwrap_or_default();
        let floor = floor(count, largest, f64::EPSILON).max(dense.how.asymmetry.unwrap_or(0.0));
        let of = |i: usize| (found.values[i], found.vector(i));
        return Ok(pick(&found.values, floor).map(|(smallest, largest)| Axes {
            largest: of(largest),
            smallest: of(smallest),
        }));
    }
    let gradients = subset.gradients(&[LossPart::Total])?;
    let Some(run) = run_part(subset, LossPart::Total, &gradients[0], limits)? else {
        return Ok(None);
    };
    let values: Vec<f64> = run.found.nodes.iter().map(|n| n.value).collect();
    let of = |i: usize| (values[i], run.vector(i));
    let floor = run.found.resolution.max(floor(
        count,
        values.last().copied().unwrap_or_default(),
        f64::EPSILON,
    ));
    Ok(pick(&values, floor).map(|(smallest, largest)| Axes {
        largest: of(largest),
        smallest: of(smallest),
    }))
}

//! From a blueprint to space: ideal places of the residues of helices and strands, strand pairs, and a first chain with exact bonds.

use crate::{
    blueprint::{Blueprint, Element, STRAND_RISE, STRAND_SPACING, SecondaryStructure},
    geometry::{Point, Turn, add, distance, norm, scale, sub, unit},
    random::RandomStream,
};

/// Ideal α-helix: radius of the C-alpha atoms (Å) and turn for each residue (degrees).
const HELIX_RADIUS: f64 = 2.3;
const HELIX_TURN_DEG: f64 = 100.0;
/// Half the height of a strand's pleat (Å), which makes virtual bonds of 3.76 Å with a rise of 3.3 Å.
const PLEAT: f64 = 0.9;
/// Twist of a sheet from strand to strand (degrees about the direction across the strands; left-handed that way, as in real sheets).
const SHEET_TWIST_DEG: f64 = -20.0;
/// Half the crossing angle of packed helices (degrees).
const HELIX_TILT_DEG: f64 = 10.0;
/// Virtual bond in Å: mean, and standard deviations of the sharp bulk and of the rest with their shares. Together they have the real
/// chains' spread (0.029 Å between 3.6 and 4.0 Å) and quartiles (3.790, 3.805, 3.821).
const BOND: f64 = 3.805;
const BOND_SD: [(f64, f64); 2] = [(0.7, 0.018), (0.3, 0.046)];

/// A pair of residues of one sheet with the distance that the ideal sheet gives them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) residues: [usize; 2],
    pub(crate) distance: f64,
}

/// What the annealing starts from.
pub(crate) struct Scaffold {
    pub(crate) kinds: Vec<SecondaryStructure>,
    /// Ideal place of each residue of a helix or strand.
    pub(crate) targets: Vec<Option<Point>>,
    pub(crate) pairs: Vec<Pair>,
    /// A chain near the targets whose virtual bonds have their final lengths.
    pub(crate) start: Vec<Point>,
}

impl Scaffold {
    pub(crate) fn draw(blueprint: &Blueprint, draws: &mut RandomStream) -> Self {
        let targets = targets(blueprint, draws);
        let pairs = pairs(blueprint);
        let bonds: Vec<f64> = (1..targets.len()).map(|_| bond(draws)).collect();
        let start = with_bonds(interpolated(&targets, draws), &bonds);
        Self {
            kinds: blueprint.kinds(),
            targets,
            pairs,
            start,
        }
    }
}

fn bond(draws: &mut RandomStream) -> f64 {
    let sd = BOND_SD[draws.weighted(BOND_SD.iter().map(|b| b.0))].1;
    BOND + sd * draws.normal().clamp(-3.0, 3.0)
}

fn targets(blueprint: &Blueprint, draws: &mut RandomStream) -> Vec<Option<Point>> {
    let centre = centre_of(blueprint);
    let mut targets = vec![None; blueprint.loops[0]];
    for (element, &after) in blueprint.elements.iter().zip(&blueprint.loops[1..]) {
        let phase = 360.0 * draws.uniform();
        let axis = [element.part.x, 0.0, element.part.z];
        let tilt = tilt_of(element, blueprint, centre);
        targets.extend(
            (0..element.residues).map(|k| Some(add(axis, tilt.apply(ideal(element, k, phase))))),
        );
        targets.extend(std::iter::repeat_n(None, after));
    }
    targets
}

/// Mean of the elements' places.
fn centre_of(blueprint: &Blueprint) -> Point {
    let sum = blueprint
        .elements
        .iter()
        .fold([0.0; 3], |sum, e| add(sum, [e.part.x, 0.0, e.part.z]));
    scale(sum, 1.0 / blueprint.elements.len() as f64)
}

/// Residue `k` relative to the middle of an element that stands along y.
fn ideal(element: &Element, k: usize, phase_deg: f64) -> Point {
    let y = element.y(k);
    if element.part.kind == SecondaryStructure::Strand {
        // The normal of the twisted sheet z = −c x y turns towards +x along y; pleats follow it, which coils each strand.
        let turn = (-SHEET_TWIST_DEG / STRAND_SPACING * y).to_radians();
        let height = if element.row(k) % 2 == 0 {
            PLEAT
        } else {
            -PLEAT
        };
        return [height * libm::sin(turn), y, height * libm::cos(turn)];
    }
    // Right-handed whichever way it runs: the angle about +y grows with y.
    let angle = (phase_deg + HELIX_TURN_DEG * y / element.rise()).to_radians();
    [
        HELIX_RADIUS * libm::sin(angle),
        y,
        HELIX_RADIUS * libm::cos(angle),
    ]
}

/// Elements of a fold with a sheet follow its twist; helices of a bundle are tilted about the line from the bundle's middle.
fn tilt_of(element: &Element, blueprint: &Blueprint, centre: Point) -> Turn {
    let has_sheet = blueprint
        .elements
        .iter()
        .any(|e| e.part.kind == SecondaryStructure::Strand);
    let from_centre = sub([element.part.x, 0.0, element.part.z], centre);
    if has_sheet {
        let columns = from_centre[0] / STRAND_SPACING;
        Turn::about([1.0, 0.0, 0.0], (SHEET_TWIST_DEG * columns).to_radians())
    } else {
        Turn::about(unit(from_centre), HELIX_TILT_DEG.to_radians())
    }
}

/// Residues of neighbouring strands of a sheet at most two rows apart, and those in one row two strands apart. Others follow from these, and
/// would have other distances in a twisted sheet than in the flat one.
fn pairs(blueprint: &Blueprint) -> Vec<Pair> {
    let places = strand_places(blueprint);
    let mut pairs = Vec::new();
    for (n, &(i, a, row)) in places.iter().enumerate() {
        for &(j, b, other_row) in &places[n + 1..] {
            let columns = ((a.part.x - b.part.x) / STRAND_SPACING).abs();
            let rows = (row - other_row).abs();
            let near = if columns < 1.5 {
                rows <= 2
            } else {
                columns < 2.5 && rows == 0
            };
            if a.part.z == b.part.z && columns > 0.5 && near {
                pairs.push(Pair {
                    residues: [i, j],
                    distance: pair_distance(columns, rows),
                });
            }
        }
    }
    pairs
}

/// Distance in a pleated sheet that is locally flat; places of one parity of rows lie on one side of it.
fn pair_distance(columns: f64, rows: i32) -> f64 {
    let height = if rows % 2 == 0 { 0.0 } else { 2.0 * PLEAT };
    let (across, along) = (STRAND_SPACING * columns, STRAND_RISE * f64::from(rows));
    (across * across + along * along + height * height).sqrt()
}

/// Residue, strand and row of every residue of a strand.
fn strand_places(blueprint: &Blueprint) -> Vec<(usize, &Element, i32)> {
    let mut places = Vec::new();
    let mut residue = blueprint.loops[0];
    for (element, &after) in blueprint.elements.iter().zip(&blueprint.loops[1..]) {
        if element.part.kind == SecondaryStructure::Strand {
            places.extend((0..element.residues).map(|k| (residue + k, element, element.row(k))));
        }
        residue += element.residues + after;
    }
    places
}

/// Fills loops with arcs that bulge away from the middle, tails with straight lines away from it.
fn interpolated(targets: &[Option<Point>], draws: &mut RandomStream) -> Vec<Point> {
    let known: Vec<(usize, Point)> = targets
        .iter()
        .enumerate()
        .filter_map(|(i, p)| p.map(|p| (i, p)))
        .collect();
    let centre = scale(
        known.iter().fold([0.0; 3], |sum, k| add(sum, k.1)),
        1.0 / known.len() as f64,
    );
    let mut chain: Vec<Point> = Vec::with_capacity(targets.len());
    for i in 0..targets.len() {
        let noise = scale(draws.direction(), 0.3);
        let place = match (
            known.iter().rev().find(|k| k.0 <= i),
            known.iter().find(|k| k.0 >= i),
        ) {
            (Some(&(_, p)), Some(&(j, _))) if i == j => p,
            (Some(&(a, p)), Some(&(b, q))) => add(noise, on_arc(p, q, b - a, i - a, centre)),
            (Some(&(a, p)), None) | (None, Some(&(a, p))) => add(
                noise,
                add(
                    p,
                    scale(unit(sub(p, centre)), BOND * 0.9 * i.abs_diff(a) as f64),
                ),
            ),
            (None, None) => noise,
        };
        chain.push(place);
    }
    chain
}

/// Point `step` of `steps` from `p` to `q` on half an ellipse whose height uses up the slack of the loop.
fn on_arc(p: Point, q: Point, steps: usize, step: usize, centre: Point) -> Point {
    let t = step as f64 / steps as f64;
    let chord = distance(p, q);
    let slack = (BOND * 0.9 * steps as f64 - chord).max(0.0);
    let middle = scale(add(p, q), 0.5);
    let height = 0.5 * slack.min(8.0);
    let bulge = scale(
        unit(sub(middle, centre)),
        height * libm::sin(std::f64::consts::PI * t),
    );
    add(add(scale(p, 1.0 - t), scale(q, t)), bulge)
}

/// Moves points until every bond has its length: pairwise projections, then one pass along the chain that makes it exact.
fn with_bonds(mut chain: Vec<Point>, bonds: &[f64]) -> Vec<Point> {
    for _ in 0..500 {
        for (i, &bond) in bonds.iter().enumerate() {
            let step = sub(chain[i + 1], chain[i]);
            let shift = scale(unit(step), 0.5 * (norm(step) - bond));
            chain[i] = add(chain[i], shift);
            chain[i + 1] = sub(chain[i + 1], shift);
        }
    }
    let mut exact = vec![chain[0]];
    for (i, &bond) in bonds.iter().enumerate() {
        exact.push(add(
            exact[i],
            scale(unit(sub(chain[i + 1], chain[i])), bond),
        ));
    }
    exact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::torsion_deg;

    fn scaffolds() -> impl Iterator<Item = (Blueprint, Scaffold)> {
        (0..60).map(|stream| {
            let mut draws = RandomStream::new(9, stream);
            let blueprint = Blueprint::draw(&mut draws);
            let scaffold = Scaffold::draw(&blueprint, &mut draws);
            (blueprint, scaffold)
        })
    }

    #[test]
    fn ideal_helices_are_right_handed_whichever_way_they_run() {
        for (_, scaffold) in scaffolds() {
            for i in 0..scaffold.kinds.len() - 3 {
                if scaffold.kinds[i..i + 4]
                    .iter()
                    .all(|&k| k == SecondaryStructure::Helix)
                {
                    let p: Vec<Point> = scaffold.targets[i..i + 4]
                        .iter()
                        .map(|t| t.unwrap())
                        .collect();
                    // 49.7° is the torsion of radius 2.3 Å, 100° and 1.5 Å.
                    assert!((torsion_deg(p[0], p[1], p[2], p[3]) - 49.7).abs() < 0.5);
                }
            }
        }
    }

    #[test]
    fn the_first_chain_has_exact_bonds_near_their_mean() {
        for (blueprint, scaffold) in scaffolds() {
            assert_eq!(scaffold.start.len(), blueprint.residues());
            for pair in scaffold.start.windows(2) {
                assert!(
                    (distance(pair[0], pair[1]) - BOND).abs() <= 3.0 * BOND_SD[1].1 + 1e-12,
                    "{}",
                    blueprint.fold
                );
            }
        }
    }

    #[test]
    fn neighbouring_strands_lie_side_by_side() {
        for (blueprint, scaffold) in scaffolds() {
            for pair in &scaffold.pairs {
                assert!(
                    (4.5..14.0).contains(&pair.distance),
                    "{}: {pair:?}",
                    blueprint.fold
                );
            }
        }
    }
}

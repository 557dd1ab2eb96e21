//! How protein-like the embedded sample is: its distributions against those of real chains.
//!
//! The real side are 338 chains of 40 to 256 residues from wwPDB entries. Their summary numbers are committed below, so that the sample
//! is always compared; where the chains themselves are at hand, the numbers are measured anew. Distances of histograms are overlaps, `Σ min(p, q)`: 1 for
//! equal ones, and 1 minus the total variation.

use equivbench_backbone_generator::{
    FAMILIES, LENGTHS,
    geometry::{angle_deg, distance, radius_of_gyration, torsion_deg},
};
use equivbench_pdb::{Chain, embedded};
use std::collections::BTreeMap;

/// Shares of virtual bonds in steps of 0.02 Å from 3.6 Å.
const REAL_BONDS: [f64; 20] = [
    0.0002, 0.0003, 0.0006, 0.0013, 0.0022, 0.0048, 0.0107, 0.0316, 0.0965, 0.2597, 0.3371, 0.1668,
    0.0580, 0.0198, 0.0073, 0.0021, 0.0005, 0.0003, 0.0001, 0.0000,
];
/// Shares of pseudo-bond angles in steps of 5° from 70°.
const REAL_ANGLES: [f64; 18] = [
    0.0003, 0.0010, 0.0108, 0.1151, 0.2255, 0.0937, 0.0536, 0.0566, 0.0736, 0.0844, 0.0785, 0.0653,
    0.0545, 0.0451, 0.0274, 0.0116, 0.0026, 0.0002,
];
/// Shares of pseudo-torsions in steps of 15° from -180°.
const REAL_TORSIONS: [f64; 24] = [
    0.0840, 0.0876, 0.0644, 0.0587, 0.0522, 0.0372, 0.0204, 0.0112, 0.0089, 0.0072, 0.0088, 0.0115,
    0.0149, 0.0249, 0.0670, 0.2206, 0.0481, 0.0208, 0.0203, 0.0223, 0.0197, 0.0177, 0.0250, 0.0469,
];
/// Shares of (angle, torsion): rows in steps of 10° from 75°, columns in steps of 30° from -180°.
const REAL_JOINT: [f64; 84] = [
    0.0004, 0.0002, 0.0003, 0.0002, 0.0000, 0.0001, 0.0004, 0.0050, 0.0036, 0.0008, 0.0006, 0.0003,
    0.0034, 0.0047, 0.0069, 0.0017, 0.0035, 0.0024, 0.0101, 0.2270, 0.0455, 0.0177, 0.0131, 0.0063,
    0.0119, 0.0073, 0.0043, 0.0015, 0.0025, 0.0049, 0.0131, 0.0456, 0.0142, 0.0176, 0.0136, 0.0102,
    0.0414, 0.0238, 0.0101, 0.0022, 0.0017, 0.0047, 0.0090, 0.0054, 0.0032, 0.0034, 0.0045, 0.0203,
    0.0585, 0.0357, 0.0251, 0.0073, 0.0020, 0.0040, 0.0038, 0.0019, 0.0010, 0.0011, 0.0029, 0.0190,
    0.0374, 0.0297, 0.0225, 0.0079, 0.0022, 0.0024, 0.0019, 0.0013, 0.0008, 0.0008, 0.0017, 0.0112,
    0.0162, 0.0179, 0.0168, 0.0083, 0.0029, 0.0013, 0.0012, 0.0011, 0.0006, 0.0010, 0.0009, 0.0041,
];
/// Shares of the helix and strand basins (see [`basin`]) among runs of four residues.
const REAL_BASINS: [f64; 2] = [0.3036, 0.2830];
/// Of the 85 chains of up to 110 residues that are compact (ratio below 1.2): mean of Rg / (2.2 N^0.38 Å) and of contacts for each
/// residue (other residues three or more apart within 8 Å), then their standard deviations.
const REAL_COMPACT: [f64; 4] = [1.022, 5.083, 0.062, 0.561];
/// Numbers above are rounded to four decimals (the last four to three); f32 coordinates move few values over an edge.
const COMMITTED_TO: f64 = 2e-4;

/// A virtual bond that is no break, in Å.
fn is_bond(d: f64) -> bool {
    (3.6..4.0).contains(&d)
}

/// Everything that is compared, from one set of traces.
#[derive(Default)]
struct Measured {
    bonds: Vec<f64>,
    angles: Vec<f64>,
    /// Angle, torsion, next angle.
    fours: Vec<[f64; 3]>,
    /// Residues, Rg / (2.2 N^0.38 Å), contacts for each residue.
    sizes: Vec<[f64; 3]>,
}

impl Measured {
    fn of<'a>(traces: impl IntoIterator<Item = &'a [[f64; 3]]>) -> Self {
        let mut all = Self::default();
        traces.into_iter().for_each(|r| all.add(r));
        all
    }

    fn add(&mut self, r: &[[f64; 3]]) {
        let bonded: Vec<bool> = r
            .windows(2)
            .map(|p| is_bond(distance(p[0], p[1])))
            .collect();
        self.bonds.extend(
            r.windows(2)
                .map(|p| distance(p[0], p[1]))
                .filter(|&d| is_bond(d)),
        );
        let threes = r
            .windows(3)
            .zip(bonded.windows(2))
            .filter(|(_, b)| b.iter().all(|&b| b));
        self.angles
            .extend(threes.map(|(p, _)| angle_deg(p[0], p[1], p[2])));
        let fours = r
            .windows(4)
            .zip(bonded.windows(3))
            .filter(|(_, b)| b.iter().all(|&b| b));
        let measure = |p: &[[f64; 3]]| {
            [
                angle_deg(p[0], p[1], p[2]),
                torsion_deg(p[0], p[1], p[2], p[3]),
                angle_deg(p[1], p[2], p[3]),
            ]
        };
        self.fours.extend(fours.map(|(p, _)| measure(p)));
        let n = r.len() as f64;
        let pairs = (0..r.len()).flat_map(|i| (i + 3..r.len()).map(move |j| (i, j)));
        let contacts = 2.0 * pairs.filter(|&(i, j)| distance(r[i], r[j]) < 8.0).count() as f64 / n;
        self.sizes
            .push([n, radius_of_gyration(r) / (2.2 * n.powf(0.38)), contacts]);
    }

    fn bond_shares(&self) -> Vec<f64> {
        shares(self.bonds.iter().map(|d| bin(*d, 3.6, 0.02)), 20)
    }

    fn angle_shares(&self) -> Vec<f64> {
        shares(self.angles.iter().map(|a| bin(*a, 70.0, 5.0)), 18)
    }

    fn torsion_shares(&self) -> Vec<f64> {
        shares(self.fours.iter().map(|f| bin(f[1], -180.0, 15.0)), 24)
    }

    fn joint_shares(&self) -> Vec<f64> {
        let cell = |f: &[f64; 3]| {
            bin(f[0], 75.0, 10.0)
                .filter(|&row| row < 7)
                .zip(bin(f[1], -180.0, 30.0))
                .map(|(row, column)| 12 * row + column)
        };
        shares(self.fours.iter().map(cell), 84)
    }

    fn basin_shares(&self) -> [f64; 2] {
        [0, 1].map(|which| {
            self.fours
                .iter()
                .filter(|f| basin(f) == Some(which))
                .count() as f64
                / self.fours.len() as f64
        })
    }

    /// Means of size ratio and contacts, and their standard deviations, over compact chains of up to 110 residues.
    fn compact(&self) -> [f64; 4] {
        let chosen: Vec<&[f64; 3]> = self
            .sizes
            .iter()
            .filter(|s| s[0] <= 110.0 && s[1] < 1.2)
            .collect();
        let n = chosen.len() as f64;
        let mean = |k: usize| chosen.iter().map(|s| s[k]).sum::<f64>() / n;
        let sd =
            |k: usize| (chosen.iter().map(|s| (s[k] - mean(k)).powi(2)).sum::<f64>() / n).sqrt();
        [mean(1), mean(2), sd(1), sd(2)]
    }
}

/// 0: right-handed helix, 1: strand, by angle, torsion and next angle.
fn basin([angle, torsion, next]: &[f64; 3]) -> Option<usize> {
    let helix =
        (torsion - 51.0).abs() < 25.0 && (angle - 91.5).abs() < 14.0 && (next - 91.5).abs() < 14.0;
    let strand =
        (torsion.rem_euclid(360.0) - 195.0).abs() < 50.0 && *angle > 103.0 && *next > 103.0;
    if helix { Some(0) } else { strand.then_some(1) }
}

fn bin(x: f64, start: f64, step: f64) -> Option<usize> {
    let place = ((x - start) / step).floor();
    (place >= 0.0).then_some(place as usize)
}

/// Share of each bin; what lies outside of all still counts in the total.
fn shares(bins: impl Iterator<Item = Option<usize>>, count: usize) -> Vec<f64> {
    let (mut hits, mut total) = (vec![0.0; count], 0.0);
    for place in bins {
        total += 1.0;
        if let Some(hit) = place.and_then(|place| hits.get_mut(place)) {
            *hit += 1.0;
        }
    }
    hits.iter().map(|h| h / total).collect()
}

fn overlap(p: &[f64], q: &[f64]) -> f64 {
    assert_eq!(p.len(), q.len());
    p.iter().zip(q).map(|(p, q)| p.min(*q)).sum()
}

fn sample() -> embedded::Sample {
    embedded::sample().unwrap()
}

fn measured(chains: &[Chain]) -> Measured {
    Measured::of(chains.iter().map(|c| c.positions.as_slice()))
}

/// The traces of real chains of 40 to 256 residues, or `None` with a line that says so.
fn real_traces() -> Option<Vec<Vec<[f64; 3]>>> {
    let [path] = equivbench_testkit::shared_data(["real/proteins_ca_reference.npz"])?;
    let mut file = ndarray_npy::NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let atoms: ndarray::Array2<f32> = file.by_name("ca_angstrom").unwrap();
    let starts: ndarray::Array1<i64> = file.by_name("ptr").unwrap();
    let atoms: Vec<[f64; 3]> = atoms
        .rows()
        .into_iter()
        .map(|r| [r[0], r[1], r[2]].map(f64::from))
        .collect();
    let bounds = starts.to_vec();
    let chains = bounds
        .windows(2)
        .map(|b| atoms[b[0] as usize..b[1] as usize].to_vec());
    Some(chains.filter(|c| (40..=256).contains(&c.len())).collect())
}

#[test]
fn real_chains_have_the_committed_distributions() {
    let Some(traces) = real_traces() else { return };
    assert_eq!(traces.len(), 338);
    let real = Measured::of(traces.iter().map(Vec::as_slice));
    let pairs: [(&str, Vec<f64>, &[f64]); 4] = [
        ("bonds", real.bond_shares(), &REAL_BONDS),
        ("angles", real.angle_shares(), &REAL_ANGLES),
        ("torsions", real.torsion_shares(), &REAL_TORSIONS),
        ("joint", real.joint_shares(), &REAL_JOINT),
    ];
    for (name, found, committed) in pairs {
        for (i, (found, committed)) in found.iter().zip(committed).enumerate() {
            assert!(
                (found - committed).abs() < COMMITTED_TO,
                "{name} {i}: {found} is committed as {committed}"
            );
        }
    }
    for (found, committed) in real.basin_shares().iter().zip(REAL_BASINS) {
        assert!(
            (found - committed).abs() < COMMITTED_TO,
            "{found} is committed as {committed}"
        );
    }
    for (found, committed) in real.compact().iter().zip(REAL_COMPACT) {
        assert!(
            (found - committed).abs() < 1e-3,
            "{found} is committed as {committed}"
        );
    }
}

/// Limits: two random halves of the real chains overlap by 0.97 to 0.98 (0.94 at least in 50 trials), real torsions and their mirror
/// images by 0.44, real values and uniform ones by 0.33 (bonds) and 0.65 (angles, torsions). 0.80 was the aim; the sample does
/// better, and the limits lie 0.03 below what it reaches (0.98, 0.98, 0.90, 0.87).
/// The generator was fitted and tuned to these same chains, so this shows that it reaches them, not that it would reach others.
#[test]
fn bonds_angles_and_torsions_are_distributed_as_in_real_chains() {
    let made = measured(&sample().chains);
    let rows: [(&str, Vec<f64>, &[f64], f64); 4] = [
        ("virtual bond", made.bond_shares(), &REAL_BONDS, 0.95),
        ("pseudo-bond angle", made.angle_shares(), &REAL_ANGLES, 0.95),
        (
            "pseudo-torsion",
            made.torsion_shares(),
            &REAL_TORSIONS,
            0.87,
        ),
        ("angle and torsion", made.joint_shares(), &REAL_JOINT, 0.84),
    ];
    for (name, made, real, least) in rows {
        let found = overlap(&made, real);
        println!("{name}: overlap with real chains {found:.3}");
        assert!(found > least, "{name}: {found}");
    }
}

/// The control of the test above: the same sample in a mirror has left-handed helices and must not pass.
#[test]
fn a_mirror_image_of_the_sample_is_told_apart() {
    let mut chains = sample().chains;
    chains
        .iter_mut()
        .flat_map(|c| &mut c.positions)
        .for_each(|p| p[0] = -p[0]);
    let found = overlap(&measured(&chains).torsion_shares(), &REAL_TORSIONS);
    println!("pseudo-torsion of the mirror image: overlap with real chains {found:.3}");
    assert!(
        found < 0.55,
        "{found}: real chains and their own mirror images overlap by 0.44"
    );
}

/// Shares differ from one real chain to the next by 0.22 and 0.14 (standard deviations), so by 0.023 and 0.015 for the mean of 92
/// families; a tenth of the shares (0.03) is asked for.
#[test]
fn helices_and_strands_are_as_frequent_as_in_real_chains() {
    let found = measured(&sample().chains).basin_shares();
    println!(
        "helix basin {:.3} (real {:.3}), strand basin {:.3} (real {:.3})",
        found[0], REAL_BASINS[0], found[1], REAL_BASINS[1]
    );
    for (found, real) in found.iter().zip(REAL_BASINS) {
        assert!((found / real - 1.0).abs() < 0.1, "{found} {real}");
    }
}

#[test]
fn chains_are_as_compact_as_real_ones() {
    let made = measured(&sample().chains);
    let [ratio, contacts, ratio_sd, contacts_sd] = made.compact();
    println!(
        "Rg / (2.2 N^0.38 Å): {ratio:.3} ± {ratio_sd:.3}, real {:.3} ± {:.3}",
        REAL_COMPACT[0], REAL_COMPACT[2]
    );
    println!(
        "contacts for each residue: {contacts:.2} ± {contacts_sd:.2}, real {:.2} ± {:.2}",
        REAL_COMPACT[1], REAL_COMPACT[3]
    );
    assert_eq!(
        made.sizes.iter().filter(|s| s[1] < 1.2).count(),
        made.sizes.len(),
        "no chain is stretched out"
    );
    // Half a standard deviation of single real chains; the real ones are a third longer on average, which adds 0.2 contacts.
    assert!(
        (ratio - REAL_COMPACT[0]).abs() < 0.5 * REAL_COMPACT[2],
        "{ratio}"
    );
    assert!(
        (contacts - REAL_COMPACT[1]).abs() < REAL_COMPACT[3],
        "{contacts}"
    );
    assert!(
        ratio_sd > 0.5 * REAL_COMPACT[2] && contacts_sd > 0.5 * REAL_COMPACT[3],
        "half of the real spread at least"
    );
}

#[test]
fn no_two_residues_overlap_and_every_break_is_a_jump_of_the_numbers() {
    let chains = sample().chains;
    let (mut nearest, mut breaks) = (f64::MAX, 0);
    for chain in &chains {
        let r = &chain.positions;
        assert!(
            LENGTHS.contains(&r.len())
                && chain.sequence.len() == r.len()
                && chain.residue_numbers.len() == r.len(),
            "{}",
            chain.id
        );
        let pairs = (0..r.len()).flat_map(|i| (i + 3..r.len()).map(move |j| (i, j)));
        nearest = pairs
            .map(|(i, j)| distance(r[i], r[j]))
            .fold(nearest, f64::min);
        for (k, step) in chain.steps().enumerate() {
            let jump = chain.residue_numbers[k + 1] - chain.residue_numbers[k];
            assert!(
                if jump == 1 {
                    is_bond(step)
                } else {
                    jump > 1 && step > 4.0
                },
                "{} {k}: {jump} {step}",
                chain.id
            );
            breaks += i64::from(jump > 1);
        }
        assert_eq!(
            chain.breaks().iter().sum::<i64>(),
            i64::from(chain.residue_numbers.windows(2).any(|n| n[1] - n[0] > 1))
        );
    }
    println!(
        "{} chains, {breaks} of them broken; nearest pair three or more apart {nearest:.2} Å",
        chains.len()
    );
    assert!(
        nearest > 3.9,
        "{nearest}: of the pairs of real chains within 8 Å, 0.3 % lie below 4.0 Å"
    );
    let fifteenth = chains.len() as i64 / 15;
    assert!(
        (fifteenth * 2 / 3..fifteenth * 4 / 3).contains(&breaks),
        "{breaks}: one chain in fifteen"
    );
}

/// Identical letters at residue numbers that both chains have, over the number of these.
fn identity_by_number(a: &Chain, b: &Chain) -> f64 {
    let letters: BTreeMap<i64, u8> = a
        .residue_numbers
        .iter()
        .copied()
        .zip(a.sequence.bytes())
        .collect();
    let both: Vec<bool> = b
        .residue_numbers
        .iter()
        .zip(b.sequence.bytes())
        .filter_map(|(n, c)| letters.get(n).map(|&l| l == c))
        .collect();
    both.iter().filter(|&&same| same).count() as f64 / both.len() as f64
}

/// The largest identity of any shift without gaps, over the shorter length.
fn identity_by_shift(a: &[u8], b: &[u8]) -> f64 {
    let shift = |s: usize, a: &[u8], b: &[u8]| a[s..].iter().zip(b).filter(|(x, y)| x == y).count();
    let best = (0..a.len())
        .map(|s| shift(s, a, b))
        .chain((0..b.len()).map(|s| shift(s, b, a)))
        .max()
        .unwrap_or(0);
    best as f64 / a.len().min(b.len()) as f64
}

#[test]
fn families_are_clusters_at_half_identity() {
    let sample = sample();
    let (mut within, mut between) = (1.0f64, 0.0f64);
    for (i, a) in sample.chains.iter().enumerate() {
        for (j, b) in sample.chains.iter().enumerate().skip(i + 1) {
            if sample.families[i] == sample.families[j] {
                within = within.min(identity_by_number(a, b));
            } else {
                between = between.max(identity_by_shift(
                    a.sequence.as_bytes(),
                    b.sequence.as_bytes(),
                ));
            }
        }
    }
    let families = sample.families.iter().max().map_or(0, |f| f + 1);
    println!(
        "{families} families: identity at least {within:.2} within, at most {between:.2} between"
    );
    assert_eq!(families, FAMILIES);
    assert!(within > 0.5 && between < 0.4, "{within} {between}");
}

/// Root mean square difference of the distances between residues with the same numbers.
fn distance_rms(a: &Chain, b: &Chain) -> f64 {
    let places: BTreeMap<i64, [f64; 3]> = a
        .residue_numbers
        .iter()
        .copied()
        .zip(a.positions.iter().copied())
        .collect();
    let both: Vec<[[f64; 3]; 2]> = b
        .residue_numbers
        .iter()
        .zip(&b.positions)
        .filter_map(|(n, &q)| places.get(n).map(|&p| [p, q]))
        .collect();
    let pairs = both.iter().enumerate().flat_map(|(i, x)| {
        both[..i]
            .iter()
            .map(move |y| distance(x[0], y[0]) - distance(x[1], y[1]))
    });
    let (sum, count) = pairs.fold((0.0, 0.0), |(sum, count), d| (sum + d * d, count + 1.0));
    f64::sqrt(sum / count)
}

#[test]
fn members_of_a_family_are_alike_but_not_copies() {
    let sample = sample();
    let neighbours =
        (1..sample.chains.len()).filter(|&i| sample.families[i] == sample.families[i - 1]);
    let mut rms: Vec<f64> = neighbours
        .map(|i| distance_rms(&sample.chains[i - 1], &sample.chains[i]))
        .collect();
    rms.sort_by(f64::total_cmp);
    println!(
        "distances within families differ by {:.2} to {:.2} Å, half of them by less than {:.2} Å",
        rms[0],
        rms[rms.len() - 1],
        rms[rms.len() / 2]
    );
    // Independent annealing moves loops and packing by ångströms; half of the pairs of different families differ by 5.9 to 7.2 Å.
    assert!(rms[0] > 0.3 && rms[rms.len() / 2] < 4.0);
}

/// Ends point anywhere: components of the unit vector from first to last residue have mean 0 and variance 1/3, and so does each
/// coordinate axis against every other.
#[test]
fn chains_lie_anywhere_and_point_anywhere() {
    let chains = sample().chains;
    let n = chains.len() as f64;
    let (mut mean, mut second, mut off_centre) = ([0.0; 3], [0.0; 3], 0);
    for chain in &chains {
        let (first, last) = (
            chain.positions[0],
            chain.positions[chain.positions.len() - 1],
        );
        let length = distance(first, last);
        for k in 0..3 {
            let u = (last[k] - first[k]) / length;
            mean[k] += u / n;
            second[k] += u * u / n;
        }
        let centre = [0, 1, 2].map(|k| {
            chain.positions.iter().map(|p| p[k]).sum::<f64>() / chain.positions.len() as f64
        });
        off_centre += usize::from(distance(centre, [0.0; 3]) > 1.0);
    }
    println!(
        "end to end: mean {mean:.2?}, mean square {second:.2?}; {off_centre} of {n} chains more than 1 Å off the origin"
    );
    // Four standard errors: u has variance 1/3, u² has 1/5 - 1/9.
    assert!(
        mean.iter().all(|m| m.abs() < 4.0 * (1.0 / 3.0 / n).sqrt()),
        "{mean:?}"
    );
    assert!(
        second
            .iter()
            .all(|s| (s - 1.0 / 3.0).abs() < 4.0 * ((1.0 / 5.0 - 1.0 / 9.0) / n).sqrt()),
        "{second:?}"
    );
    // A shift with 20 Å along each axis is shorter than 1 Å once in 30,000.
    assert!(off_centre as f64 > 0.99 * n, "{off_centre}");
}

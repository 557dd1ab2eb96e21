//! What does not fit into the voxel grid of the task: a report only, nothing that is served depends on it.

use crate::{checks::check, store::Store};
use equivbench_plugin::DataCheck;
use serde::Deserialize;

/// Å between two voxels, as the task has it.
const SPACING: f64 = 0.25;
/// Centre of voxel i in voxels: i - voxels / 2 + OFFSET. The grid of VoxMol is not centred on the molecule.
const OFFSET: f64 = 1.125;

/// A cubic grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    /// Voxels along an edge.
    voxels: f64,
    /// Å, the furthest that the task shifts a molecule along an axis after it turned it.
    shift: f64,
}

/// Sizes that VoxMol uses (QM9 and GEOM-drugs), with its shift: what is reported when no task is known.
const USUAL: [Grid; 2] = [
    Grid {
        voxels: 32.0,
        shift: 0.5,
    },
    Grid {
        voxels: 64.0,
        shift: 0.5,
    },
];
const TASK: &str = "voxel-denoising";
/// Augmentations that shift.
const SHIFTING: [&str; 2] = ["continuous", "continuous-euler"];

/// Settings of a task that matter here.
#[derive(Deserialize)]
struct TaskSettings {
    #[serde(default)]
    name: String,
    grid: Option<f64>,
    #[serde(default)]
    augmentation: String,
    #[serde(default)]
    shift_angstrom: f64,
}

/// The grids of a task's settings (JSON), or the usual ones if it has none.
pub(crate) fn grids(task: &str) -> Vec<Grid> {
    let settings = serde_json::from_str::<TaskSettings>(task)
        .ok()
        .filter(|s| s.name == TASK);
    let grid = settings.and_then(|s| {
        let shift = if SHIFTING.contains(&s.augmentation.as_str()) {
            s.shift_angstrom
        } else {
            0.0
        };
        Some(Grid {
            voxels: s.grid?,
            shift,
        })
    });
    match grid {
        Some(grid) if grid.voxels.is_finite() && grid.voxels > 0.0 && grid.shift.is_finite() => {
            vec![grid]
        }
        _ => USUAL.to_vec(),
    }
}

impl Grid {
    /// Å, the centres of the first and the last voxel of an axis, seen from the mean of the atoms.
    fn edges(self) -> [f64; 2] {
        [0.0, self.voxels - 1.0].map(|i| (i - self.voxels / 2.0 + OFFSET) * SPACING)
    }

    /// Å, how far from the mean an atom stays inside however the molecule is turned and shifted: the first edge is the nearer one.
    fn safe(self) -> f64 {
        -self.edges()[0] - self.shift
    }
}

/// Counts over all conformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// With an atom outside as they stand.
    pub(crate) conformers: u64,
    /// Outside as they stand.
    pub(crate) atoms: u64,
    /// With an atom that some rotation, and a shift if the task has one, takes outside.
    pub(crate) under_rotation: u64,
}

impl Outside {
    /// Centres positions `[atoms, 3]` (Å) on their mean and compares them with a grid.
    fn add(&mut self, positions: &[[f32; 3]], grid: Grid) {
        let n = positions.len().max(1) as f64;
        let mean: [f64; 3] =
            std::array::from_fn(|k| positions.iter().map(|x| f64::from(x[k])).sum::<f64>() / n);
        let [first, last] = grid.edges();
        let (mut atoms, mut is_far) = (0, false);
        for x in positions {
            let d: [f64; 3] = std::array::from_fn(|k| f64::from(x[k]) - mean[k]);
            atoms += u64::from(d.iter().any(|d| !(first..=last).contains(d)));
            is_far |= d.iter().map(|d| d * d).sum::<f64>().sqrt() > grid.safe();
        }
        self.atoms += atoms;
        self.conformers += u64::from(atoms > 0);
        self.under_rotation += u64::from(is_far);
    }
}

/// One line for conformers, one for atoms, one for conformers under rotation, for each grid.
pub(crate) fn checks(store: &Store, task: &str) -> Vec<DataCheck> {
    grids(task)
        .into_iter()
        .flat_map(|grid| lines(store, grid))
        .collect()
}

fn lines(store: &Store, grid: Grid) -> Vec<DataCheck> {
    let mut outside = Outside::default();
    (0..store.len() as u32).for_each(|c| outside.add(store.positions(c), grid));
    let percent = |part: u64, all: u64| format!("{:.2} %", 100.0 * part as f64 / all.max(1) as f64);
    let (conformers, atoms) = (store.len() as u64, store.atoms());
    let size = format!("{} voxels of {SPACING} angstrom", grid.voxels);
    let line = |what: &str, count: u64, all: u64, about: &str| {
        check(
            &format!("{what} outside of {size}"),
            count as f64,
            "",
            true,
            format!("{} of {all}; {about}", percent(count, all)),
        )
    };
    let [first, last] = grid.edges();
    let as_they_stand = format!(
        "as they stand in the file, centred on the mean of their atoms; voxel centres lie at {first} to {last} angstrom"
    );
    let far = format!(
        "an atom is more than {} angstrom from the mean: the nearer edge less a shift of {}",
        grid.safe(),
        grid.shift
    );
    vec![
        line(
            "conformers with atoms",
            outside.conformers,
            conformers,
            &format!("{as_they_stand}; atoms outside are cut off"),
        ),
        line(
            "atoms",
            outside.atoms,
            atoms,
            "as they stand in the file; further out, less of an atom's density is lost",
        ),
        line(
            "conformers that a rotation takes",
            outside.under_rotation,
            conformers,
            &far,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRUGS: Grid = Grid {
        voxels: 64.0,
        shift: 0.5,
    };

    /// Figures of the published voxelisation: the grid of 64 reaches from -7.71875 to 8.03125 Å.
    #[test]
    fn the_edges_are_those_of_the_published_grid() {
        assert_eq!(
            (DRUGS.edges(), DRUGS.safe()),
            ([-7.718_75, 8.031_25], 7.218_75)
        );
        let edges = Grid {
            voxels: 32.0,
            shift: 0.0,
        }
        .edges();
        assert_eq!(
            (edges, edges[1] - edges[0]),
            ([-3.718_75, 4.031_25], 31.0 * 0.25)
        );
    }

    fn outside(positions: &[[f32; 3]], grid: Grid) -> [u64; 3] {
        let mut outside = Outside::default();
        outside.add(positions, grid);
        [outside.conformers, outside.atoms, outside.under_rotation]
    }

    #[test]
    fn atoms_are_counted_from_the_mean_with_edges_that_differ() {
        // Pairs whose mean is (10, 0, 0).
        let pair = |d: [f32; 3]| [[10.0 - d[0], -d[1], -d[2]], [10.0 + d[0], d[1], d[2]]];
        let still = Grid {
            shift: 0.0,
            ..DRUGS
        };
        assert_eq!(outside(&pair([7.7, 0.0, 0.0]), still), [0, 0, 0]);
        // Between the two edges: inside on one side, outside on the other.
        assert_eq!(outside(&pair([0.0, 7.9, 0.0]), still), [1, 1, 1]);
        assert_eq!(outside(&pair([0.0, 0.0, 8.1]), still), [1, 2, 1]);
        // A diagonal reaches into the corners.
        assert_eq!(outside(&pair([5.0, 5.0, 5.0]), still), [0, 0, 1]);
    }

    #[test]
    fn a_shift_narrows_what_stays_inside_under_rotation() {
        for (x, expected) in [(7.2, 0), (7.25, 1)] {
            assert_eq!(
                outside(&[[x, 0.0, 0.0], [-x, 0.0, 0.0]], DRUGS),
                [0, 0, expected],
                "{x}"
            );
            assert_eq!(
                outside(
                    &[[x, 0.0, 0.0], [-x, 0.0, 0.0]],
                    Grid {
                        shift: 0.0,
                        ..DRUGS
                    }
                ),
                [0; 3],
                "{x}"
            );
        }
    }

    /// Settings as the task sends them.
    fn task(grid: u32, augmentation: &str, shift: f64) -> String {
        let elements = ["C", "H"];
        let settings = serde_json::json!({
            "name": "voxel-denoising", "grid": grid, "elements": elements, "sigma": 0.9, "augmentation": augmentation, "shift_angstrom": shift
        });
        settings.to_string()
    }

    #[test]
    fn the_task_says_which_grid() {
        for (augmentation, shift) in [
            ("continuous", 0.25),
            ("continuous-euler", 0.25),
            ("cube", 0.0),
            ("none", 0.0),
        ] {
            assert_eq!(
                grids(&task(16, augmentation, 0.25)),
                [Grid {
                    voxels: 16.0,
                    shift
                }],
                "{augmentation}"
            );
        }
        for other in [
            "",
            "{}",
            r#"{"name":"force-field","grid":16}"#,
            &task(0, "none", 0.0),
        ] {
            assert_eq!(grids(other), USUAL, "{other}");
        }
        let mut store = Store::default();
        store
            .push(0, &[6, 6], &[[-5.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
            .unwrap();
        let values = |task: &str| {
            checks(&store, task)
                .iter()
                .map(|c| c.value)
                .collect::<Vec<_>>()
        };
        assert_eq!(values(""), [1.0, 2.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(&task(48, "none", 0.5)), [0.0; 3]);
        assert_eq!(values(&task(48, "continuous", 0.9)), [0.0, 0.0, 1.0]);
    }
}

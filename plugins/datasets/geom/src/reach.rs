//! What does not fit into the voxel grid of the task: a report only, nothing that is served depends on it.

use crate::{checks::check, store::Store};
use equivbench_plugin::DataCheck;
use serde::Deserialize;

/// A cubic grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    /// Voxels along an edge.
    voxels: f64,
    /// Å.
    resolution: f64,
}

/// Sizes that VoxMol uses (QM9 and GEOM-drugs): what is reported when no task is known.
const USUAL: [Grid; 2] = [Grid { voxels: 32.0, resolution: 0.25 }, Grid { voxels: 64.0, resolution: 0.25 }];
const TASK: &str = "voxel-denoising";

/// Settings of a task that matter here.
#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    name: String,
    grid: Option<f64>,
    resolution: Option<f64>,
}

/// The grids of a task's settings (JSON), or the usual ones if it has none.
pub(crate) fn grids(task: &str) -> Vec<Grid> {
    let settings = serde_json::from_str::<Settings>(task).ok().filter(|s| s.name == TASK);
    let grid = settings.and_then(|s| Some(Grid { voxels: s.grid?, resolution: s.resolution.unwrap_or(USUAL[0].resolution) }));
    match grid {
        Some(grid) if grid.half_edge().is_finite() && grid.half_edge() > 0.0 => vec![grid],
        _ => USUAL.to_vec(),
    }
}

impl Grid {
    /// Å.
    fn half_edge(self) -> f64 {
        self.voxels * self.resolution / 2.0
    }
}

/// Counts over all conformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// With an atom outside as they stand.
    pub(crate) conformers: u64,
    /// Outside as they stand.
    pub(crate) atoms: u64,
    /// With an atom that some rotation takes outside.
    pub(crate) under_rotation: u64,
}

impl Outside {
    /// Centres positions `[atoms, 3]` (Å) on their mean and compares them with a box of this half edge.
    fn add(&mut self, positions: &[[f32; 3]], half: f64) {
        let n = positions.len().max(1) as f64;
        let mean: [f64; 3] = std::array::from_fn(|k| positions.iter().map(|x| f64::from(x[k])).sum::<f64>() / n);
        let (mut atoms, mut is_far) = (0, false);
        for x in positions {
            let d: [f64; 3] = std::array::from_fn(|k| f64::from(x[k]) - mean[k]);
            atoms += u64::from(d.iter().any(|d| d.abs() > half));
            is_far |= d.iter().map(|d| d * d).sum::<f64>() > half * half;
        }
        self.atoms += atoms;
        self.conformers += u64::from(atoms > 0);
        self.under_rotation += u64::from(is_far);
    }
}

/// One line for conformers, one for atoms, one for conformers under rotation, for each grid.
pub(crate) fn checks(store: &Store, task: &str) -> Vec<DataCheck> {
    grids(task).into_iter().flat_map(|grid| lines(store, grid)).collect()
}

fn lines(store: &Store, grid: Grid) -> Vec<DataCheck> {
    let mut outside = Outside::default();
    (0..store.len() as u32).for_each(|c| outside.add(store.positions(c), grid.half_edge()));
    let percent = |part: u64, all: u64| format!("{:.2} %", 100.0 * part as f64 / all.max(1) as f64);
    let (conformers, atoms) = (store.len() as u64, store.atoms());
    let size = format!("{} voxels of {} angstrom", grid.voxels, grid.resolution);
    let line = |what: &str, count: u64, all: u64, about: &str| {
        check(&format!("{what} outside of {size}"), count as f64, "", true, format!("{} of {all}; {about}", percent(count, all)))
    };
    vec![
        line(
            "conformers with atoms",
            outside.conformers,
            conformers,
            "as they stand in the file, centred on the mean of their atoms; atoms outside are cut off",
        ),
        line("atoms", outside.atoms, atoms, "as they stand in the file; further out, less of an atom's density is lost"),
        line("conformers that a rotation takes", outside.under_rotation, conformers, "an atom is further from the mean than half an edge"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_are_counted_from_the_mean_and_corners_of_the_box_only_under_rotation() {
        let mut outside = Outside::default();
        // The mean is (10, 0, 0).
        outside.add(&[[6.5, 0.0, 0.0], [13.5, 0.0, 0.0]], 4.0);
        assert_eq!(outside, Outside::default());
        outside.add(&[[7.0, -3.0, 0.0], [13.0, 3.0, 0.0]], 4.0);
        assert_eq!(outside, Outside { conformers: 0, atoms: 0, under_rotation: 1 });
        outside.add(&[[5.5, 0.0, 0.0], [14.5, 0.0, 0.0], [10.0, 0.0, 0.0]], 4.0);
        assert_eq!(outside, Outside { conformers: 1, atoms: 2, under_rotation: 2 });
    }

    #[test]
    fn the_task_says_which_grid() {
        assert_eq!(grids(r#"{"name":"voxel-denoising","grid":16,"resolution":0.5,"noise":0.9}"#), [Grid { voxels: 16.0, resolution: 0.5 }]);
        for other in ["", "{}", r#"{"name":"force-field","grid":16}"#, r#"{"name":"voxel-denoising","grid":0,"resolution":0.5}"#] {
            assert_eq!(grids(other), USUAL, "{other}");
        }
        let mut store = Store::default();
        store.push(0, &[6, 6], &[[-5.0, 0.0, 0.0], [5.0, 0.0, 0.0]]).unwrap();
        let values = |task| checks(&store, task).iter().map(|c| c.value).collect::<Vec<_>>();
        assert_eq!(values(""), [1.0, 2.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(r#"{"name":"voxel-denoising","grid":20,"resolution":0.6}"#), [0.0, 0.0, 0.0]);
    }
}

//! mmCIF files as the archive has them: all atoms of a chain, in the usual 21 columns.

use crate::{coordinate, folder};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A folder of mmCIF files of one chain each, and a file that makes every chain a cluster of its own.
pub struct Structures {
    folder: TempDir,
    /// Number of files.
    pub files: usize,
    /// Residues of each chain.
    pub residues: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

const COLUMNS: [&str; 21] = [
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "label_asym_id",
    "label_entity_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "occupancy",
    "B_iso_or_equiv",
    "pdbx_formal_charge",
    "auth_seq_id",
    "auth_comp_id",
    "auth_asym_id",
    "auth_atom_id",
    "pdbx_PDB_model_num",
];
const RESIDUES: [&str; 8] = ["LEU", "ILE", "LYS", "GLU", "ARG", "MET", "GLN", "PHE"];
/// As many atoms as a residue has on average.
const ATOMS: [&str; 8] = ["N", "CA", "C", "O", "CB", "CG", "CD", "CE"];

impl Structures {
    /// Writes them.
    ///
    /// # Errors
    /// The temporary folder of the machine cannot be written.
    pub fn new(files: usize, residues: usize) -> Result<Self, String> {
        let mut made = Self {
            folder: folder()?,
            files,
            residues,
            bytes: 0,
        };
        std::fs::create_dir(made.path()).map_err(|e| format!("{}: {e}", made.path().display()))?;
        for (file, path) in made.paths().into_iter().enumerate() {
            let text = mmcif(file, residues);
            made.bytes += text.len() as u64;
            std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let clusters: String = (0..files)
            .map(|file| format!("made{file}_A\tmade{file}_A\n"))
            .collect();
        std::fs::write(made.clusters(), clusters)
            .map_err(|e| format!("{}: {e}", made.clusters().display()))?;
        Ok(made)
    }

    /// The folder of the files.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::join(self.folder.path(), "structures")
    }

    /// The files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        (0..self.files)
            .map(|file| self.path().join(format!("made{file}.cif")))
            .collect()
    }

    /// The file of clusters.
    #[must_use]
    pub fn clusters(&self) -> PathBuf {
        Path::join(self.folder.path(), "clusters.tsv")
    }
}

fn mmcif(file: usize, residues: usize) -> String {
    let mut text = format!(
        "data_MADE{file}\n#\n_exptl.entry_id MADE\n_exptl.method 'X-RAY DIFFRACTION'\n#\n_refine.ls_d_res_high 1.80\n#\n"
    );
    text.push_str("loop_\n");
    COLUMNS
        .iter()
        .for_each(|column| text.push_str(&format!("_atom_site.{column}\n")));
    for atom in 0..residues * ATOMS.len() {
        row(file, atom, &mut text);
    }
    text.push_str("#\n");
    text
}

fn row(file: usize, atom: usize, text: &mut String) {
    let (name, residue) = (ATOMS[atom % ATOMS.len()], atom / ATOMS.len());
    // The sequence of a file differs from those of the others.
    let residue_name = RESIDUES[(residue * (2 * file + 3) + residue / 7 * file) % RESIDUES.len()];
    let [x, y, z] = [0, 1, 2].map(|axis| coordinate(3 * atom + axis + file) + 1.5 * residue as f64);
    let (serial, number, element) = (atom + 1, residue + 1, &name[..1]);
    let _ = writeln!(
        text,
        "ATOM   {serial:<5} {element} {name:<3} . {residue_name} A 1 {number:<4} ? {x:<8.3} {y:<8.3} {z:<8.3} 1.00 25.00 ? {number:<4} \
         {residue_name} A {name:<3} 1"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;
    use equivbench_abi::descriptor::DatasetRequest;
    use equivbench_core::Dataset;

    #[test]
    fn the_reader_finds_what_was_written() {
        let made = Structures::new(3, 60).unwrap();
        assert_eq!(
            made.paths()
                .iter()
                .map(|p| std::fs::metadata(p).unwrap().len())
                .sum::<u64>(),
            made.bytes
        );
        let options = serde_json::json!({
            "path": made.path(), "clusters": made.clusters(), "cache": "none", "valid_fraction": 0.0, "test_fraction": 0.0,
        });
        let request = DatasetRequest {
            dataset: "pdb".into(),
            options: options.to_string(),
            ..DatasetRequest::default()
        };
        let mut data = library("pdb").unwrap().open_dataset(&request).unwrap();
        assert_eq!(
            data.descriptor()
                .splits
                .iter()
                .map(|s| (s.samples, s.groups))
                .collect::<Vec<_>>(),
            [(3, 3)]
        );
        let batch = data.load("train", &[0, 1, 2]).unwrap();
        assert_eq!(batch.offsets, [0, 60, 120, 180]);
        // The C-alpha is the second atom of a residue; in nanometres, with three decimals in angstrom.
        let x = batch.field("positions").unwrap().reals().unwrap();
        let mut first: Vec<f64> = (0..3).map(|chain| 10.0 * x[180 * chain]).collect();
        first.sort_by(f64::total_cmp);
        let mut expected: Vec<f64> = (0..3).map(|file| coordinate(3 + file)).collect();
        expected.sort_by(f64::total_cmp);
        assert!(
            first
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() <= 5e-4 + 1e-12),
            "{first:?} {expected:?}"
        );
    }
}

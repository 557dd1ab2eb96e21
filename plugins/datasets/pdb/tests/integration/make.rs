//! Small structure files for the tests, written in the formats by their definitions.

use std::path::{Path, PathBuf};

/// One atom of a made file.
#[derive(Clone, Debug)]
pub(crate) struct Atom {
    pub(crate) record: &'static str,
    pub(crate) name: &'static str,
    pub(crate) element: &'static str,
    pub(crate) alternate: &'static str,
    pub(crate) residue: &'static str,
    pub(crate) chain: &'static str,
    pub(crate) number: i32,
    pub(crate) insertion: &'static str,
    pub(crate) position: [f64; 3],
    pub(crate) model: u32,
}

/// The C-alpha of an alanine of chain A.
pub(crate) const ALPHA: Atom = Atom {
    record: "ATOM",
    name: "CA",
    element: "C",
    alternate: "",
    residue: "ALA",
    chain: "A",
    number: 1,
    insertion: "",
    position: [0.0; 3],
    model: 1,
};

/// Three-letter names in an order that no test depends on.
const NAMES: [&str; 20] = [
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET",
    "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL",
];

/// A chain of C-alphas 3.8 Å apart on a screw, with a sequence drawn from a seed. Coordinates have three decimals.
pub(crate) fn chain(name: &'static str, seed: u64, residues: usize) -> Vec<Atom> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let round = |x: f64| (1000.0 * x).round() / 1000.0;
    (0..residues)
        .map(|i| {
            // Rise of 1.5 Å and radius of 2.3 Å at 100° make steps of 3.83 Å.
            let angle = (100.0 * i as f64).to_radians();
            let position = [
                round(2.3 * angle.cos() + seed as f64),
                round(2.3 * angle.sin()),
                round(1.5 * i as f64),
            ];
            Atom {
                chain: name,
                residue: NAMES[draw() % 20],
                number: i as i32 + 1,
                position,
                ..ALPHA
            }
        })
        .collect()
}

pub(crate) fn pdb(atoms: &[Atom]) -> String {
    let mut text = String::from("HEADER    MADE FOR A TEST\n");
    let mut model = 1;
    for (serial, a) in atoms.iter().enumerate() {
        if a.model != model {
            model = a.model;
            text += &format!("ENDMDL\nMODEL     {model:>4}\n");
        }
        let name = if a.element.len() == 1 {
            format!(" {:<3}", a.name)
        } else {
            format!("{:<4}", a.name)
        };
        let [x, y, z] = a.position;
        text += &format!(
            "{:<6}{:>5} {name}{:1}{:>3} {:1}{:>4}{:1}   {x:>8.3}{y:>8.3}{z:>8.3}{:>6.2}{:>6.2}          {:>2}\n",
            a.record,
            serial + 1,
            a.alternate,
            a.residue,
            a.chain,
            a.number,
            a.insertion,
            1.0,
            0.0,
            a.element
        );
    }
    text + "END\n"
}

/// Items of the atoms of a made mmCIF or BinaryCIF file.
pub(crate) const ITEMS: [&str; 13] = [
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "auth_asym_id",
    "auth_seq_id",
    "pdbx_PDB_ins_code",
    "pdbx_PDB_model_num",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
];

/// Values of one atom in the order of [`ITEMS`]; an empty text stands for none.
pub(crate) fn values(serial: usize, a: &Atom) -> [String; 13] {
    let [x, y, z] = a.position.map(|v| format!("{v:.3}"));
    let text = ToOwned::to_owned;
    [
        text(a.record),
        (serial + 1).to_string(),
        text(a.element),
        text(a.name),
        text(a.alternate),
        text(a.residue),
        text(a.chain),
        a.number.to_string(),
        text(a.insertion),
        a.model.to_string(),
        x,
        y,
        z,
    ]
}

pub(crate) fn cif(atoms: &[Atom]) -> String {
    let head: String = ITEMS
        .iter()
        .map(|item| format!("_atom_site.{item}\n"))
        .collect();
    let word = |v: &String| {
        if v.is_empty() {
            "?".to_owned()
        } else {
            v.clone()
        }
    };
    let rows: String = atoms
        .iter()
        .enumerate()
        .map(|(i, a)| values(i, a).iter().map(word).collect::<Vec<_>>().join(" ") + "\n")
        .collect();
    format!("data_MADE\n#\nloop_\n{head}{rows}#\n")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::default())
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        write(folder.path(), name, bytes);
    }
    folder
}

/// A file below a folder, whose own folders are made.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

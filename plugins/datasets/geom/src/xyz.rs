//! Extended and plain XYZ: species, positions and, if it is there, the SMILES or name of the molecule. Cells are not looked at.

use crate::conformer::{Conformer, HEAVY_HYDROGEN, Sink, UNKNOWN};
use equivbench_dataset_tools::{
    DAMAGED, bad_data,
    xyz::{Frames, RawFrame},
};
use equivbench_plugin::PluginResult;
use std::io::BufRead;

/// Names under which a frame may say which molecule it is, the best first.
const MOLECULE_KEYS: [&str; 6] = ["smiles", "SMILES", "smi", "molecule", "name", "title"];

/// Reads all frames of a stream; the name is for messages. Frames without a known name leave it empty.
///
/// # Errors
/// The stream cannot be read, or a frame is not as its header says.
pub(crate) fn read(input: impl BufRead, source: &str, sink: &mut Sink<'_>) -> PluginResult<()> {
    let mut frames = Frames::new(input, source);
    let mut is_empty = true;
    while let Some((place, text)) = frames.next()? {
        sink(conformer(&RawFrame::parse(source, place, &text)?)?)?;
        is_empty = false;
    }
    if is_empty {
        Err(bad_data(source, "", "it holds no frame", DAMAGED))
    } else {
        Ok(())
    }
}

fn conformer(frame: &RawFrame<'_>) -> PluginResult<Conformer> {
    let molecule = MOLECULE_KEYS
        .iter()
        .filter(|_| frame.is_extended)
        .find_map(|key| frame.info(key));
    let numbers = frame.species_with(|_, word| {
        Ok(if matches!(word, "D" | "T") {
            HEAVY_HYDROGEN
        } else {
            UNKNOWN
        })
    })?;
    let positions = frame.positions()?.as_chunks::<3>().0.to_vec();
    Ok(Conformer {
        molecule: molecule.unwrap_or_default().to_owned(),
        numbers,
        positions,
        bonds: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_and_plain_frames_are_read() {
        let text = "2\nProperties=pos:R:3:species:S:1 smiles=\"[HH]\" Lattice=\"9 0 0 0 9 0 0 0 9\"\n0 0 0 H\n0 0 0.74 D\n\
                    3\nwater, name=x\nO 0 0 0\nH 1 0 nan\nQq 0 1 0\n";
        let mut found = Vec::new();
        read(text.as_bytes(), "x.xyz", &mut |c| {
            found.push(c);
            Ok(())
        })
        .unwrap();
        assert_eq!(
            (found[0].molecule.as_str(), &found[0].numbers[..]),
            ("[HH]", &[1, HEAVY_HYDROGEN][..])
        );
        assert_eq!(found[0].positions, [[0.0; 3], [0.0, 0.0, 0.74]]);
        assert_eq!(
            (found[1].molecule.as_str(), &found[1].numbers[..]),
            ("", &[8, 1, UNKNOWN][..])
        );
        assert!(found[1].positions[1][2].is_nan());
    }

    #[test]
    fn an_empty_file_is_refused() {
        let error = read("\n\n".as_bytes(), "x.xyz", &mut |_| Ok(()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("x.xyz: it holds no frame"), "{error}");
    }
}

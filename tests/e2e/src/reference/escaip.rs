//! Fixtures of EScAIP.

use super::Reference;
use equivbench_core::{Batch, Field, FieldKind, Rows, Supervised, Values};
use serde_json::{Value, json};

/// Atoms of all molecules with their forces.
pub(super) fn samples(of: &Reference) -> Supervised {
    let mut offsets = vec![0];
    for atoms in of.array("in.natoms").ints() {
        offsets.push(offsets[offsets.len() - 1] + atoms as usize);
    }
    let points = offsets[offsets.len() - 1];
    let cloud = |name: &str, from: &str| {
        let values = of.array(from).values.clone();
        Field::real(
            name,
            FieldKind::Vector,
            Rows::Point,
            vec![points, 3],
            values,
        )
    };
    let species = Field {
        name: "species".into(),
        kind: FieldKind::Invariant,
        rows: Rows::Point,
        shape: vec![points],
        values: Values::Index(of.array("in.atomic_numbers").ints()),
    };
    Supervised {
        target: Some(cloud("target", "in.target")),
        inputs: Batch {
            offsets,
            fields: vec![cloud("positions", "in.positions"), species],
        },
        labels: Vec::new(),
    }
}

/// Matrices of affine maps are `[out, in]` in the reference; tables of embeddings lie as ours.
pub(super) fn is_transposed(name: &str) -> bool {
    !name.contains("atomic_embedding")
}

/// The keys of the reference's configuration in the words of the plugin; `None` for what is no fixture of a model.
pub(super) fn config(reference: &Value) -> Option<String> {
    let theirs = &reference["config"];
    theirs["atten_num_heads"].as_u64()?;
    let keys = [
        ("hidden", "hidden_size"),
        ("heads", "atten_num_heads"),
        ("layers", "num_layers"),
        ("atom_embedding", "atom_embedding_size"),
        ("elements", "max_num_elements"),
        ("radial_functions", "edge_distance_expansion_size"),
        ("radial_embedding", "edge_distance_embedding_size"),
        ("boo_orders", "node_direction_expansion_size"),
        ("boo_embedding", "node_direction_embedding_size"),
        ("cutoff", "max_radius"),
        ("neighbours", "max_neighbors"),
        ("block_multiplier", "ffn_hidden_layer_multiplier"),
        ("readout_multiplier", "readout_hidden_layer_multiplier"),
        ("output_multiplier", "output_hidden_layer_multiplier"),
        ("attention_dropout", "atten_dropout"),
        ("mlp_dropout", "mlp_dropout"),
        ("stochastic_depth", "stochastic_depth_prob"),
    ];
    let ours = keys.map(|(ours, theirs_name)| (ours.to_owned(), theirs[theirs_name].clone()));
    Some(json!(ours.into_iter().collect::<serde_json::Map<_, _>>()).to_string())
}

//! Fixtures of VoxMol.

use super::Reference;
use equivbench_core::{Batch, Field, FieldKind, Rows, Supervised};
use serde_json::Value;

pub(super) fn samples(of: &Reference) -> Supervised {
    let field = |name: &str, from: &str| {
        let array = of.array(from);
        Field::real(
            name,
            FieldKind::VoxelGrid,
            Rows::Sample,
            array.shape.clone(),
            array.values.clone(),
        )
    };
    let inputs = Batch {
        offsets: vec![0; of.array("in.noisy").shape[0] + 1],
        fields: vec![field("density", "in.noisy")],
    };
    Supervised {
        inputs,
        target: Some(field("target", "in.target")),
        labels: Vec::new(),
    }
}

/// The keys of the reference's configuration in the words of the plugin; `None` for what is no fixture of a model.
pub(super) fn config(reference: &Value) -> Option<String> {
    reference["ch_mults"]
        .is_array()
        .then(|| our_config(reference))
}

/// The keys of the reference's configuration in the words of the plugin.
fn our_config(reference: &Value) -> String {
    serde_json::json!({
        "elements": reference["n_elements"],
        "width": reference["n_channels"],
        "multipliers": reference["ch_mults"],
        "attention": reference["is_attn"],
        "blocks": reference["n_blocks"],
        "groups": reference["n_groups"],
        "grid": reference["grid_dim"],
        "dropout": reference["dropout"],
    })
    .to_string()
}

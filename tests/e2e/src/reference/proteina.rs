//! Fixtures of Proteina.

use super::Reference;
use equivbench_core::{Batch, Field, FieldKind, Rows, Supervised, Values};
use serde_json::Value;

/// The rows of valid residues of a padded array `[proteins, residues, width]`.
fn valid(of: &Reference, name: &str) -> Vec<f64> {
    let (array, mask) = (of.array(name), &of.array("in.mask").values);
    let width = array.values.len() / mask.len();
    let rows = array.values.chunks(width).zip(mask);
    rows.filter(|(_, m)| **m > 0.0)
        .flat_map(|(row, _)| row.iter().copied())
        .collect()
}

pub(super) fn samples(of: &Reference) -> Supervised {
    let shape = &of.array("in.mask").shape;
    let sizes = of
        .array("in.mask")
        .values
        .chunks(shape[1])
        .map(|m| m.iter().filter(|v| **v > 0.0).count());
    let offsets: Vec<usize> = std::iter::once(0)
        .chain(sizes.scan(0, |end, n| {
            *end += n;
            Some(*end)
        }))
        .collect();
    let points = offsets[shape[0]];
    let cloud = |name: &str, from: &str| {
        Field::real(
            name,
            FieldKind::Vector,
            Rows::Point,
            vec![points, 3],
            valid(of, from),
        )
    };
    let labels = |name: &str, from: &str| Field {
        name: name.into(),
        kind: FieldKind::Invariant,
        rows: Rows::Point,
        shape: vec![points],
        values: Values::Index(valid(of, from).iter().map(|&v| v as i64).collect()),
    };
    let fields = vec![
        cloud("positions", "in.x_t"),
        labels("residue_index", "in.residue_pdb_idx"),
        labels("chain_break", "in.chain_breaks_per_residue"),
        Field::real(
            "flow_time",
            FieldKind::Invariant,
            Rows::Sample,
            vec![shape[0]],
            of.array("in.t").values.clone(),
        ),
    ];
    Supervised {
        inputs: Batch { offsets, fields },
        target: Some(cloud("target", "in.target")),
        labels: Vec::new(),
    }
}

/// The keys of the reference's configuration in the words of the plugin; `None` for what is no fixture of a model.
pub(super) fn config(reference: &Value) -> Option<String> {
    let nn = &reference["nn"];
    nn["token_dim"].is_u64().then(|| our_config(nn))
}

/// The keys of the reference's configuration in the words of the plugin.
fn our_config(nn: &Value) -> String {
    let update = if nn["update_pair_repr"] == true {
        nn["update_pair_repr_every_n"].clone()
    } else {
        0.into()
    };
    serde_json::json!({
        "token_width": nn["token_dim"],
        "heads": nn["nheads"],
        "layers": nn["nlayers"],
        "conditioning_width": nn["dim_cond"],
        "pair_width": nn["pair_repr_dim"],
        "triangle_width": nn["tri_mult_c"].as_u64().unwrap_or(1),
        "time_width": nn["t_emb_dim"],
        "index_width": nn["idx_emb_dim"],
        "fold_width": nn["fold_emb_dim"],
        "position_bins": nn["xt_pair_dist_dim"],
        "position_from_nm": nn["xt_pair_dist_min"],
        "position_to_nm": nn["xt_pair_dist_max"],
        "self_conditioning_bins": nn["x_sc_pair_dist_dim"],
        "self_conditioning_from_nm": nn["x_sc_pair_dist_min"],
        "self_conditioning_to_nm": nn["x_sc_pair_dist_max"],
        "sequence_separation_bins": nn["seq_sep_dim"],
        "registers": nn["num_registers"],
        "distogram_bins": nn["num_buckets_predict_pair"],
        "update_every": update,
        "chain_break_first": nn["feats_init_seq"][1] == "chain_break_per_res",
    })
    .to_string()
}

//! Cosines of pooled latents against the fixtures of the VoxMol reference.

use equivbench_core::cosine;
use equivbench_testkit::read_arrays;

#[test]
fn cosines_of_pooled_latents_equal_the_reference() {
    let fixtures = equivbench_testkit::fixtures("voxmol", |config| {
        let name = config
            .file_name()?
            .to_str()?
            .trim_end_matches(".config.json");
        let arrays = read_arrays(&config.with_file_name(format!("{name}.safetensors")));
        arrays.contains_key("out.cos_pool_enc").then_some(arrays)
    });
    for fixture in fixtures {
        for name in ["enc", "mid"] {
            let pooled = &fixture[&format!("out.latent_pool_{name}")];
            let of_rotated = &fixture[&format!("out.latent_pool_{name}_rot")];
            let theirs = &fixture[&format!("out.cos_pool_{name}")];
            let width = pooled.shape[1];
            let straight = pooled.values.chunks_exact(width).cycle();
            let pairs = of_rotated.values.chunks_exact(width).zip(straight);
            let ours: Vec<f64> = pairs.map(|(a, b)| cosine(a, b).unwrap()).collect();
            assert_eq!(ours.len(), theirs.values.len());
            for (a, b) in ours.iter().zip(&theirs.values) {
                // Sums of at most 64 products, added in another order.
                assert!((a - b).abs() < 1e-14, "{name}: {a} instead of {b}");
            }
        }
    }
}

//! What the author crate makes of the key `kernels` of a request. These lines choose for their process, so they stand in one test.

use equivbench_abi::descriptor::ModelRequest;
use equivbench_plugin::Trainer;
use equivbench_point_mlp::PointMlp;

#[test]
fn an_instance_takes_the_kernels_that_were_asked_for_and_says_so() {
    let open = |kernels: &str| {
        Trainer::<PointMlp>::open(&ModelRequest {
            kernels: kernels.into(),
            ..ModelRequest::default()
        })
    };
    let refused = |kernels: &str| match open(kernels) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{kernels}"),
    };
    assert!(refused("sse9").contains("there are: auto, plain, avx2, avx512"));
    for kernels in ["plain", "auto", ""] {
        let instance = open(kernels).unwrap().instance().unwrap();
        let taken = [&*instance.kernels, &*instance.matrix_products];
        assert_eq!(taken, ["plain", "plain"], "asked for \"{kernels}\"");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            instance.processor_flags.iter().any(|flag| flag == "avx2"),
            std::arch::is_x86_feature_detected!("avx2")
        );
    }
    // Whether the processor lacks it or the process has chosen: another set is not to be had any more.
    assert!(refused("avx512").contains("kernels \"avx512\""));
}

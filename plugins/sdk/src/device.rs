//! Device names: `cpu`, `cuda:0`. The names that the host uses are turned into Burn devices here and nowhere else.

use crate::{PluginError, PluginResult};
use burn::tensor::Device;

/// Device families of this build: `cpu`, and `cuda` when it was compiled in.
#[must_use]
pub fn available_devices() -> Vec<String> {
    let mut devices = vec!["cpu".to_owned()];
    if cfg!(feature = "cuda") {
        devices.push("cuda".to_owned());
    }
    devices
}

/// Turns a device name into a Burn device without autodiff.
///
/// # Errors
/// An unknown name, a build without CUDA, or a GPU that is not there.
pub fn parse_device(name: &str) -> PluginResult<Device> {
    match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu" | "", _) => Ok(Device::flex()),
        ("cuda", index) => cuda(name, index),
        _ => Err(PluginError::Device(format!(
            "device \"{name}\" is not known; use cpu or cuda:N"
        ))),
    }
}

/// Whether f32 matrix products on CUDA are rounded to TF32: in every build but that of `cargo xtask cuda`, which takes the type away, and
/// there too if the user asks for it with `EQUIVBENCH_CUDA_ALLOW=tf32`.
pub(crate) fn rounds_to_tf32() -> bool {
    let is_exact = option_env!("EQUIVBENCH_EXACT_F32").is_some();
    let allowed = std::env::var("EQUIVBENCH_CUDA_ALLOW");
    !is_exact || allowed.is_ok_and(|names| names.split(',').any(|name| name.trim() == "tf32"))
}

#[cfg(feature = "cuda")]
fn cuda(name: &str, index: &str) -> PluginResult<Device> {
    use burn::tensor::DeviceType;
    let index: usize = index.parse().map_err(|_| {
        PluginError::Device(format!("device \"{name}\": the index is not a number"))
    })?;
    // Enumerating asks the driver and never panics; opening a device that is not there would.
    let found = Device::enumerate(DeviceType::Cuda).len();
    if index >= found {
        return Err(PluginError::Device(format!(
            "device \"{name}\" is not there: the CUDA driver shows {found} GPU(s); use --device cpu, or check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )));
    }
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(name: &str, _index: &str) -> PluginResult<Device> {
    Err(PluginError::Device(format!(
        "device \"{name}\": this plugin was built without CUDA; build it with `--features cuda`, or use --device cpu"
    )))
}

//! From a suite and plugins to runs: every combination resolved, checked as far as possible before anything starts.

use crate::{RunnerError, config::RunConfig, identity::Identity, run_dir::RunSpec, suite::Suite};
use equivbench_core::{
    Axis, Estimator, PointLoss, Task, TaskRequest, all_axes, configure_task, parse_axis,
};
use equivbench_host::HostError;
use equivbench_protocols::{PROTOCOL_VERSION, PROTOCOLS, protocol_by_name};
use equivbench_report::PluginFacts;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Descriptors of the boundary, as the host passes them on.
use equivbench_host::descriptor::{DatasetSummary, ModelDescriptor, PluginDescriptor};

/// A plugin file that was found and described.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginFile {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What it holds.
    pub descriptor: PluginDescriptor,
}

impl PluginFile {
    fn facts(&self) -> PluginFacts {
        PluginFacts {
            name: self.descriptor.name.clone(),
            version: self.descriptor.version.clone(),
            sha256: self.sha256.clone(),
        }
    }
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// Model plugins, in the order of `--plugins`.
    pub models: Vec<PluginFile>,
    /// Every plugin that was found, for datasets.
    pub available: Vec<PluginFile>,
    /// `--set`.
    pub overrides: Vec<(String, toml::Value)>,
    /// `--protocols`; empty for the suite's.
    pub protocols: Vec<String>,
}

/// Resolves the request into runs, in the order of their rows.
///
/// # Errors
/// Unknown protocols, sizes or datasets, a device that is not there, a combination that leaves no run.
pub fn plan(request: &Request<'_>) -> Result<Vec<RunSpec>, RunnerError> {
    let protocols = protocols(request)?;
    refuse_settings_of_others(&request.overrides, &protocols)?;
    let mut identity = Identity::of_this_program()?;
    let mut specs: Vec<RunSpec> = Vec::new();
    let mut tasks = Vec::new();
    for plugin in &request.models {
        if plugin.descriptor.models.is_empty() {
            return Err(RunnerError::Config(format!(
                "plugin \"{}\" ({}) holds no model; name it as a dataset with --set dataset.name={}",
                plugin.descriptor.name,
                plugin.path.display(),
                plugin.descriptor.name
            )));
        }
        for model in &plugin.descriptor.models {
            for config in request
                .suite
                .configurations(&model.name, &request.overrides)?
            {
                let (spec, task) = resolve(request, plugin, model, config, &protocols)?;
                tasks.push(task);
                let spec = identity.pin(spec);
                if specs.iter().all(|s| s.id != spec.id) {
                    specs.push(spec);
                }
            }
        }
    }
    if specs.is_empty() {
        return Err(RunnerError::Config(
            "there is nothing to run: name at least one plugin with --plugins".into(),
        ));
    }
    for idle in idle_conditions(&request.overrides, &tasks) {
        tracing::warn!("{idle}");
    }
    Ok(specs)
}

/// Conditions on the command line that no task of the runs has. Where one has it, the others are right to pass it over: a list serves
/// several models.
fn idle_conditions(overrides: &[(String, toml::Value)], tasks: &[Arc<dyn Task>]) -> Vec<String> {
    let is_set = |axis: &&Axis| {
        overrides
            .iter()
            .any(|(key, _)| key.strip_prefix("measure.") == Some(axis.setting))
    };
    let has = |axis: &Axis, task: &Arc<dyn Task>| task.axes().iter().any(|a| a.name == axis.name);
    let idle = |axis: &&Axis| !tasks.iter().any(|task| has(axis, task));
    let names: BTreeSet<&str> = tasks.iter().map(|task| task.name()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let axes = all_axes().into_iter().filter(is_set).filter(idle);
    axes.map(|axis| {
        format!(
            "--set measure.{} changes nothing: no task of these runs has this condition ({})",
            axis.setting,
            names.join(", ")
        )
    })
    .collect()
}

/// Settings of a protocol that is not asked can only be a mistake.
pub(crate) fn refuse_settings_of_others(
    overrides: &[(String, toml::Value)],
    protocols: &[String],
) -> Result<(), RunnerError> {
    for (key, _) in overrides {
        let named = key
            .strip_prefix("protocols.")
            .and_then(|rest| rest.split('.').next());
        if let Some(name) = named.filter(|name| protocols.iter().all(|p| p != name)) {
            return Err(RunnerError::Config(format!(
                "--set {key}: protocol {name} is not asked; name it with --protocols"
            )));
        }
    }
    Ok(())
}

fn protocols(request: &Request<'_>) -> Result<Vec<String>, RunnerError> {
    let asked = if request.protocols.is_empty() {
        &request.suite.protocols
    } else {
        &request.protocols
    };
    resolve_protocols(asked)
}

/// Protocols by name, in the order of the list; `all` for every one.
///
/// # Errors
/// An unknown name, with the nearest known one.
pub(crate) fn resolve_protocols(asked: &[String]) -> Result<Vec<String>, RunnerError> {
    if asked.is_empty() {
        return Err(RunnerError::Config(
            "the list of protocols is empty: a run would train and write nothing".into(),
        ));
    }
    if asked.iter().any(|p| p == "all") {
        return Ok(PROTOCOLS.iter().map(|p| p.name.into()).collect());
    }
    let known = || PROTOCOLS.iter().map(|p| p.name).collect::<Vec<_>>();
    if let Some(unknown) = asked.iter().find(|name| protocol_by_name(name).is_none()) {
        let nearest = known()
            .into_iter()
            .min_by_key(|k| strsim::damerau_levenshtein(k, unknown))
            .unwrap_or_default();
        return Err(RunnerError::Config(format!(
            "protocol \"{unknown}\" is not known; did you mean \"{nearest}\"? There are: {}, all",
            known().join(", ")
        )));
    }
    // Asked in the order of the list, whatever the order on the command line.
    Ok(known()
        .into_iter()
        .filter(|name| asked.iter().any(|a| a == name))
        .map(Into::into)
        .collect())
}

/// The run of a model, not yet pinned, with its task.
fn resolve(
    request: &Request<'_>,
    plugin: &PluginFile,
    model: &ModelDescriptor,
    mut config: RunConfig,
    protocols: &[String],
) -> Result<(RunSpec, Arc<dyn Task>), RunnerError> {
    check(&config).map_err(RunnerError::Config)?;
    config
        .protocols
        .retain(|name, _| protocols.iter().any(|p| p == name));
    config.model.size = resolve_size(model, &config.model.size)?;
    let (dataset_file, dataset) = resolve_dataset(request, model, &config.dataset.name)?;
    config.dataset.name = dataset.name.clone();
    let Some(task) = model.tasks.iter().find(|t| dataset.tasks.contains(t)) else {
        return Err(RunnerError::Config(format!(
            "model {} is trained on {}, dataset {} serves {}: they share no task",
            model.name,
            model.tasks.join(", "),
            dataset.name,
            dataset.tasks.join(", ")
        )));
    };
    let task = configure(task, &config.task, &|_| None).map_err(RunnerError::Config)?;
    config.measure.keep_axes_of(&*task);
    let bad = RunnerError::Config;
    config.measure.resolve_scheme(&*task).map_err(bad)?;
    let scheme = config.measure.scheme_of(&*task).map_err(bad)?;
    task.check_scheme(&scheme)
        .map_err(|e| RunnerError::Config(format!("measure.scheme: {e}")))?;
    config.run.device = resolve_device(&config.run.device, &plugin.descriptor)?;
    let spec = RunSpec {
        id: String::new(),
        settings: String::new(),
        protocols: protocols.to_vec(),
        protocol_version: PROTOCOL_VERSION,
        program_sha256: String::new(),
        model_library: plugin.path.clone(),
        model_plugin: plugin.facts(),
        dataset_library: dataset_file.path.clone(),
        dataset_plugin: dataset_file.facts(),
        data_files: BTreeMap::new(),
        config,
    };
    Ok((spec, task))
}

/// The task of a name with the settings of a suite, fitted to what a model reads.
pub(crate) fn configure(
    name: &str,
    settings: &toml::Table,
    input_width: &dyn Fn(&str) -> Option<Vec<usize>>,
) -> Result<Arc<dyn Task>, String> {
    let settings = match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(settings)) => settings,
        _ => return Err("the settings of the task cannot be written as JSON".into()),
    };
    configure_task(
        name,
        &TaskRequest {
            settings: &settings,
            input_width,
        },
    )
    .map_err(|e| e.to_string())
}

/// What can be known to be wrong before anything is opened.
pub(crate) fn check(config: &RunConfig) -> Result<(), String> {
    let measure = &config.measure;
    let known = |what: &str, value: &str, all: &[&str]| match all.contains(&value) {
        true => Ok(()),
        false => Err(format!(
            "{what} = \"{value}\" is not known; there are: {}",
            all.join(", ")
        )),
    };
    Estimator::parse(&measure.estimator).map_err(|e| format!("measure.estimator: {e}"))?;
    PointLoss::parse(&measure.loss).map_err(|e| format!("measure.loss: {e}"))?;
    measure
        .weights
        .iter()
        .try_for_each(|w| known("measure.weights", w, &["raw", "ema"]))?;
    for axis in all_axes() {
        let list = measure.axis(axis.setting);
        parse_axis(axis, list.as_ref()).map_err(|e| e.to_string())?;
    }
    let total = if config.train.steps > 0 {
        config.train.steps
    } else {
        u64::MAX
    };
    for kept in &config.run.keep_checkpoints {
        kept.of(total)?;
    }
    for (name, settings) in &config.protocols {
        check_settings(name, settings)?;
    }
    known(
        "run.kernels",
        &config.run.kernels,
        &["auto", "plain", "avx2", "avx512"],
    )?;
    known("run.clock", &config.run.clock, &["system", "steps"])?;
    known(
        "run.precision",
        &config.run.precision,
        &["f32", "f64", "bf16", "f32+f64", "bf16+f64"],
    )?;
    if measure.samples == 0 || measure.batch_size == 0 || measure.weights.is_empty() {
        return Err(
            "measure.samples, measure.batch_size and measure.weights must not be empty or 0".into(),
        );
    }
    if !(1..=1000).contains(&measure.points_per_decade) {
        return Err(format!(
            "measure.points_per_decade = {} lies outside of 1 to 1000",
            measure.points_per_decade
        ));
    }
    Ok(())
}

/// Whether a protocol can be started with these settings.
fn check_settings(name: &str, settings: &toml::Value) -> Result<(), String> {
    let Some(protocol) = protocol_by_name(name) else {
        return Ok(());
    };
    match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(settings)) => {
            let started = (protocol.start)(settings, Arc::default());
            started.map(drop).map_err(|e| e.to_string())
        }
        _ => Err(format!("protocols.{name} must be a table of settings")),
    }
}

fn resolve_size(model: &ModelDescriptor, asked: &str) -> Result<String, RunnerError> {
    let names = || {
        model
            .sizes
            .iter()
            .map(|s| s.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match model
        .sizes
        .iter()
        .find(|s| asked.is_empty() || s.name == asked)
    {
        Some(size) => Ok(size.name.clone()),
        None => Err(RunnerError::Config(format!(
            "model {}: size \"{asked}\" is not known; there are: {}",
            model.name,
            names()
        ))),
    }
}

fn resolve_dataset<'a>(
    request: &'a Request<'_>,
    model: &ModelDescriptor,
    asked: &str,
) -> Result<(&'a PluginFile, &'a DatasetSummary), RunnerError> {
    let all = || {
        request
            .available
            .iter()
            .flat_map(|p| p.descriptor.datasets.iter().map(move |d| (p, d)))
    };
    let wanted: Vec<&str> = if asked.is_empty() {
        model.default_datasets.iter().map(String::as_str).collect()
    } else {
        vec![asked]
    };
    if let Some(found) = wanted
        .iter()
        .find_map(|name| all().find(|(_, d)| d.name == *name))
    {
        return Ok(found);
    }
    let known: Vec<&str> = all().map(|(_, d)| d.name.as_str()).collect();
    Err(RunnerError::Host(HostError::NotFound {
        name: format!(
            "{} (a dataset for model {})",
            wanted.join(" or "),
            model.name
        ),
        tried: Vec::new(),
        nearest: known.first().map(|s| (*s).to_owned()),
    }))
}

/// `auto` takes the first GPU where the plugin can use one.
pub(crate) fn resolve_device(
    asked: &str,
    plugin: &PluginDescriptor,
) -> Result<String, RunnerError> {
    let offers_cuda = plugin.devices.iter().any(|d| d == "cuda");
    let gpus = gpu_count();
    let name = &plugin.name;
    let refused = |message: String| {
        Err(RunnerError::Host(HostError::Device {
            plugin: name.clone(),
            message,
        }))
    };
    match asked.split_once(':').unwrap_or((asked, "0")) {
        ("auto" | "", _) => Ok(if offers_cuda && gpus > 0 {
            "cuda:0".into()
        } else {
            "cpu".into()
        }),
        ("cpu", _) => Ok("cpu".into()),
        ("cuda", _) if !offers_cuda => refused(format!(
            "device \"{asked}\": this plugin was built without CUDA; build it with --features cuda, or use --device cpu"
        )),
        ("cuda", index) => match index.parse::<usize>() {
            Ok(index) if index < gpus => Ok(format!("cuda:{index}")),
            Ok(_) => refused(format!(
                "device \"{asked}\" is not there: this machine shows {gpus} NVIDIA GPU(s); use --device cpu, or check nvidia-smi"
            )),
            Err(_) => refused(format!("device \"{asked}\": write cuda:N with a number N")),
        },
        _ => refused(format!(
            "device \"{asked}\" is not known; use cpu, cuda:N or auto"
        )),
    }
}

/// NVIDIA devices that the kernel shows.
#[must_use]
pub fn gpu_count() -> usize {
    (0..64)
        .take_while(|n| Path::new(&format!("/dev/nvidia{n}")).exists())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::parse_override;

    fn task(name: &str) -> Arc<dyn Task> {
        configure(name, &toml::Table::new(), &|_| None).unwrap()
    }

    #[test]
    fn a_condition_is_passed_over_where_a_task_lacks_it_and_named_where_all_do() {
        let set = [parse_override("measure.flow_times=[0.5]").unwrap()];
        let (forces, flow) = (task("force-field"), task("flow-matching"));
        assert!(idle_conditions(&set, &[Arc::clone(&forces), flow.clone()]).is_empty());
        assert_eq!(
            idle_conditions(&set, &[forces.clone(), Arc::clone(&forces)]),
            [
                "--set measure.flow_times changes nothing: no task of these runs has this condition (force-field)"
            ]
        );
        let mut config = RunConfig::default();
        config
            .measure
            .axes
            .insert("flow_times".into(), set[0].1.clone());
        let asked = config.measure.clone();
        config.measure.keep_axes_of(&*flow);
        assert_eq!(config.measure, asked);
        config.measure.keep_axes_of(&*forces);
        assert_eq!(config.measure, RunConfig::default().measure);
    }
}

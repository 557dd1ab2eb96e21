//! What is asked of a kept checkpoint, checked against the run that it is of.

use crate::{
    RunnerError,
    config::{KeptStep, RunConfig},
    plan::{check, configure, refuse_settings_of_others, resolve_device, resolve_protocols},
    run_dir::RunSpec,
    suite::override_config,
};
use equivbench_core::{Task, all_axes};
use equivbench_host::{HostError, descriptor::PluginDescriptor};
use equivbench_protocols::{Schedule, evaluation_steps, protocol_by_name};
use std::sync::Arc;
use toml::{Table, Value};

/// What is asked of a checkpoint.
#[derive(Clone, Debug)]
pub struct MeasureRequest {
    /// Which checkpoint.
    pub at: KeptStep,
    /// Protocols by name, or `all`; empty for those of the run.
    pub protocols: Vec<String>,
    /// Settings that differ from the run's: keys of `measure` and `protocols`, `run.precision = f64`, `run.device`, `run.threads`.
    pub overrides: Vec<(String, Value)>,
}

/// The run that a checkpoint is of.
pub(crate) struct Trained<'a> {
    /// What pins it.
    pub(crate) spec: &'a RunSpec,
    /// Its optimiser steps.
    pub(crate) total_steps: u64,
    /// What its model plugin holds.
    pub(crate) model: &'a PluginDescriptor,
    /// What its dataset plugin holds.
    pub(crate) dataset: &'a PluginDescriptor,
}

impl Trained<'_> {
    /// The specification of the run with what is to be measured differently.
    ///
    /// # Errors
    /// A setting of the training, one that this task or these protocols do not have, or one that leaves nothing to measure.
    pub(crate) fn measured(&self, request: &MeasureRequest) -> Result<RunSpec, RunnerError> {
        check_keys(&request.overrides)?;
        let protocols = self.protocols(&request.protocols)?;
        refuse_settings_of_others(&request.overrides, &protocols)?;
        let mut config = override_config(&self.spec.config, &request.overrides)?;
        check(&config).map_err(RunnerError::Config)?;
        let task = self.task()?;
        refuse_other_axes(&request.overrides, &*task)?;
        let bad = RunnerError::Config;
        config.measure.resolve_scheme(&*task).map_err(bad)?;
        config.run.device = self.device(&config.run.device)?;
        let protocols = self.with_rows(protocols, &config)?;
        config
            .protocols
            .retain(|name, _| protocols.iter().any(|p| p == name));
        Ok(RunSpec {
            protocols,
            config,
            ..self.spec.clone()
        })
    }

    /// Those asked for, or those of the run: of either, those that can say something about one moment.
    fn protocols(&self, asked: &[String]) -> Result<Vec<String>, RunnerError> {
        let follows = |name: &String| protocol_by_name(name).is_some_and(|p| p.follows_a_run);
        if asked.is_empty() || asked.iter().any(|name| name == "all") {
            let mut own = match asked.is_empty() {
                true => self.spec.protocols.clone(),
                false => resolve_protocols(asked)?,
            };
            own.retain(|name| !follows(name));
            return Ok(own);
        }
        match asked.iter().find(|name| follows(name)) {
            None => resolve_protocols(asked),
            Some(name) => Err(RunnerError::Config(format!(
                "protocol {name} follows a run from its beginning; it has nothing to say about one checkpoint"
            ))),
        }
    }

    /// Those whose settings let them ask after some step of a run; of the others the log tells.
    fn with_rows(
        &self,
        protocols: Vec<String>,
        config: &RunConfig,
    ) -> Result<Vec<String>, RunnerError> {
        let schedule = Arc::new(Schedule {
            steps: evaluation_steps(self.total_steps, config.measure.points_per_decade),
            total: self.total_steps,
        });
        let (mut asked, mut silent) = (Vec::new(), Vec::new());
        for name in protocols {
            match is_ever_due(&name, config, &schedule)? {
                true => asked.push(name),
                false => silent.push(silence(&name, config)),
            }
        }
        if asked.is_empty() {
            let why: String = silent.iter().map(|s| format!(": {s}")).collect();
            return Err(RunnerError::Config(format!(
                "there is nothing to measure{why}"
            )));
        }
        for why in silent {
            tracing::warn!("{why}; it is not asked");
        }
        Ok(asked)
    }

    /// The task that model and dataset share, with its own settings.
    fn task(&self) -> Result<Arc<dyn Task>, RunnerError> {
        let config = &self.spec.config;
        let model = self.model.models.iter();
        let model = model.filter(|m| m.name == config.model.name);
        let dataset = self.dataset.datasets.iter();
        let served: Vec<&String> = dataset
            .filter(|d| d.name == config.dataset.name)
            .flat_map(|d| &d.tasks)
            .collect();
        let shared = model.flat_map(|m| &m.tasks).find(|t| served.contains(t));
        let name = shared.map(String::as_str).unwrap_or_default();
        configure(name, &config.task, &|_| None).map_err(RunnerError::Config)
    }

    fn device(&self, asked: &str) -> Result<String, RunnerError> {
        resolve_device(asked, self.model).map_err(|error| match error {
            RunnerError::Host(HostError::Device { plugin, message }) => {
                let message = message.replace("--device ", "--set run.device=");
                RunnerError::Host(HostError::Device { plugin, message })
            }
            other => other,
        })
    }
}

/// Keys of the training are refused: it is over.
fn check_keys(overrides: &[(String, Value)]) -> Result<(), RunnerError> {
    let own = ["run.precision", "run.device", "run.threads"];
    for (key, value) in overrides {
        if key == "run.precision" && value.as_str() != Some("f64") {
            return Err(RunnerError::Config(format!(
                "run.precision = {value}: a checkpoint is measured in the precision of its run, or in f64"
            )));
        }
        let is_free = key.starts_with("measure.") || key.starts_with("protocols.");
        if !is_free && !own.contains(&key.as_str()) {
            return Err(RunnerError::Config(format!(
                "--set {key}: this belongs to the training, which is over; a measurement can set keys of measure and protocols, {}",
                own.join(", ")
            )));
        }
    }
    Ok(())
}

/// Conditions that the task does not have: set for one run, they can only be a mistake.
fn refuse_other_axes(overrides: &[(String, Value)], task: &dyn Task) -> Result<(), RunnerError> {
    let own: Vec<&str> = task.axes().iter().map(|axis| axis.setting).collect();
    let set = |setting: &str| {
        overrides
            .iter()
            .any(|(k, _)| k.strip_prefix("measure.") == Some(setting))
    };
    let other = all_axes()
        .into_iter()
        .find(|axis| !own.contains(&axis.setting) && set(axis.setting));
    let Some(axis) = other else { return Ok(()) };
    let there = match own.is_empty() {
        true => "it has no conditions".into(),
        false => format!("its conditions are: measure.{}", own.join(", measure.")),
    };
    Err(RunnerError::Config(format!(
        "--set measure.{}: the task {} does not have this condition; {there}",
        axis.setting,
        task.name()
    )))
}

fn is_ever_due(
    name: &str,
    config: &RunConfig,
    schedule: &Arc<Schedule>,
) -> Result<bool, RunnerError> {
    let Some(protocol) = protocol_by_name(name) else {
        return Err(RunnerError::Conflict(format!(
            "protocol \"{name}\" is of another version"
        )));
    };
    let settings = match config.protocols.get(name).map(serde_json::to_value) {
        Some(Ok(serde_json::Value::Object(settings))) => settings,
        _ => serde_json::Map::new(),
    };
    let started = (protocol.start)(settings, Arc::clone(schedule))
        .map_err(|e| RunnerError::Config(e.to_string()))?;
    Ok((0..=schedule.total).any(|step| started.due(step)))
}

/// Why a protocol writes no rows.
fn silence(name: &str, config: &RunConfig) -> String {
    let settings = config.protocols.get(name).and_then(Value::as_table);
    let settings: Vec<String> = settings
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("protocols.{name}.{key} = {value}"))
        .collect();
    format!(
        "protocol {name} leaves no rows with {}",
        settings.join(", ")
    )
}

/// What a measurement set otherwise than the run that it measures, each as for `--set`: `measure.samples=4`.
pub(crate) fn set_otherwise(trained: &RunSpec, measured: &RunSpec) -> Vec<String> {
    let of = |spec: &RunSpec| Table::try_from(&spec.config).unwrap_or_default();
    let mut set = Vec::new();
    differences(&of(trained), &of(measured), "", &mut set);
    set
}

fn differences(before: &Table, after: &Table, prefix: &str, out: &mut Vec<String>) {
    let none = Table::new();
    for (key, value) in after {
        match (before.get(key), value) {
            (Some(old), new) if old == new => {}
            (old, Value::Table(new)) => {
                let old = old.and_then(Value::as_table).unwrap_or(&none);
                differences(old, new, &format!("{prefix}{key}."), out);
            }
            (_, new) => out.push(format!("{prefix}{key}={new}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::parse_override;
    use equivbench_host::descriptor::{DatasetSummary, ModelDescriptor};

    fn plugins(task: &str) -> (PluginDescriptor, PluginDescriptor) {
        let tasks = vec![task.to_owned()];
        let model = ModelDescriptor {
            name: "m".into(),
            tasks: tasks.clone(),
            ..ModelDescriptor::default()
        };
        let dataset = DatasetSummary {
            name: "d".into(),
            tasks,
            ..DatasetSummary::default()
        };
        let of = |models, datasets| PluginDescriptor {
            name: "p".into(),
            models,
            datasets,
            devices: vec!["cpu".into()],
            ..PluginDescriptor::default()
        };
        (of(vec![model], vec![]), of(vec![], vec![dataset]))
    }

    fn spec() -> RunSpec {
        let mut config = RunConfig::default();
        config.model.name = "m".into();
        config.dataset.name = "d".into();
        config.run.device = "cpu".into();
        RunSpec {
            protocols: ["train-and-measure", "samples"].map(Into::into).into(),
            ..RunSpec::of(config)
        }
    }

    fn measured(task: &str, protocols: &[&str], set: &[&str]) -> Result<RunSpec, String> {
        let (model, dataset) = plugins(task);
        let trained = Trained {
            spec: &spec(),
            total_steps: 20,
            model: &model,
            dataset: &dataset,
        };
        let request = MeasureRequest {
            at: KeptStep::Step(5),
            protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            overrides: set.iter().map(|s| parse_override(s).unwrap()).collect(),
        };
        trained.measured(&request).map_err(|e| e.to_string())
    }

    #[test]
    fn a_device_is_resolved_as_in_a_run() {
        let auto = measured("force-field", &[], &["run.device=auto"]).unwrap();
        assert_eq!(auto.config.run.device, "cpu");
        let refused = measured("force-field", &[], &["run.device=cuda:0"]).unwrap_err();
        assert!(
            refused.contains("without CUDA") && refused.contains("use --set run.device=cpu"),
            "{refused}"
        );
    }

    #[test]
    fn conditions_that_the_task_does_not_have_are_refused() {
        let times = ["measure.flow_times=[0.5]"];
        let refused = measured("force-field", &[], &times).unwrap_err();
        assert!(
            refused.contains("measure.flow_times: the task force-field does not have"),
            "{refused}"
        );
        let taken = measured("flow-matching", &[], &times).unwrap();
        assert_eq!(
            set_otherwise(&spec(), &taken),
            [
                "measure.flow_times=[0.5]",
                "measure.scheme=\"tetrahedral-x2\""
            ]
        );
    }

    #[test]
    fn a_protocol_whose_settings_leave_no_rows_is_not_asked() {
        let set = ["protocols.samples.rows=none"];
        let rest = measured("force-field", &[], &set).unwrap();
        assert_eq!(rest.protocols, ["train-and-measure"]);
        assert!(!rest.config.protocols.contains_key("samples"));
        let nothing = measured("force-field", &["samples"], &set).unwrap_err();
        assert!(
            nothing.contains("nothing to measure: protocol samples leaves no rows with protocols.samples.rows = \"none\""),
            "{nothing}"
        );
        let others = measured("force-field", &["final-percent"], &set).unwrap_err();
        assert!(others.contains("protocol samples is not asked"), "{others}");
    }
}

//! Comparisons of models that were not trained alike, named in one line each. Learning rates may differ: each model has its own best.

use crate::RunManifest;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a reader takes for equal, in the order of the lines.
const QUANTITIES: [&str; 5] = [
    "batch size differs",
    "schedule differs",
    "moving average differs",
    "steps differ",
    "precision differs",
];

/// What was trained on what.
#[derive(PartialEq)]
struct Comparison {
    task: String,
    /// Training samples as they were asked for, and of which data.
    data: String,
    entrants: Vec<Entrant>,
}

/// A model of a comparison, with the values that its runs have of each quantity, in the order of the runs.
#[derive(PartialEq)]
struct Entrant {
    name: String,
    values: [Vec<String>; QUANTITIES.len()],
}

/// One line for each quantity in which models of one task, trained on the same samples, differ: `force-field: batch size differs: escaip
/// nano 8, painn small 32`. Runs that ended before their model was opened are passed over.
#[must_use]
pub fn unfair(runs: &[RunManifest]) -> Vec<String> {
    let comparisons = comparisons(runs);
    let shares_task = |c: &Comparison| comparisons.iter().filter(|o| o.task == c.task).count() > 1;
    let mut lines = data_differ(&comparisons);
    for comparison in &comparisons {
        let place = match shares_task(comparison) {
            true => format!("{}, {}", comparison.task, comparison.data),
            false => comparison.task.clone(),
        };
        lines.extend(
            comparison
                .differences()
                .map(|what| format!("{place}: {what}")),
        );
    }
    lines
}

/// A line for each task whose models were not trained on the same data.
fn data_differ(comparisons: &[Comparison]) -> Vec<String> {
    let tasks: BTreeSet<&str> = comparisons.iter().map(|c| c.task.as_str()).collect();
    let line = |task: &str| {
        let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for comparison in comparisons.iter().filter(|c| c.task == task) {
            for entrant in &comparison.entrants {
                of.entry(&entrant.name).or_default().push(&comparison.data);
            }
        }
        let sets: BTreeSet<BTreeSet<&&str>> =
            of.values().map(|data| data.iter().collect()).collect();
        let each = of
            .iter()
            .map(|(name, data)| format!("{name} {}", data.join(" or ")));
        let each: Vec<String> = each.collect();
        (sets.len() > 1).then(|| format!("{task}: data differ: {}", each.join(", ")))
    };
    tasks.into_iter().filter_map(line).collect()
}

fn comparisons(runs: &[RunManifest]) -> Vec<Comparison> {
    let mut all: Vec<Comparison> = Vec::new();
    for (task, data, name, values) in runs.iter().filter_map(read) {
        let same = |c: &Comparison| c.task == task && c.data == data;
        let at = all.iter().position(same).unwrap_or_else(|| {
            all.push(Comparison {
                task,
                data,
                entrants: Vec::new(),
            });
            all.len() - 1
        });
        all[at].add(name, values);
    }
    all
}

impl Comparison {
    fn add(&mut self, name: String, values: [String; QUANTITIES.len()]) {
        let at = self.entrants.iter().position(|e| e.name == name);
        let at = at.unwrap_or_else(|| {
            self.entrants.push(Entrant {
                name,
                values: Default::default(),
            });
            self.entrants.len() - 1
        });
        for (known, value) in self.entrants[at].values.iter_mut().zip(values) {
            if !known.contains(&value) {
                known.push(value);
            }
        }
    }

    /// A quantity that every model takes the same values of is a sweep, and fair.
    fn differences(&self) -> impl Iterator<Item = String> {
        let of = |quantity: usize| self.entrants.iter().map(move |e| &e.values[quantity]);
        let differing = move |quantity: &usize| {
            let sets: BTreeSet<BTreeSet<&String>> = of(*quantity)
                .map(|values| values.iter().collect())
                .collect();
            sets.len() > 1
        };
        (0..QUANTITIES.len()).filter(differing).map(|quantity| {
            let each = self.entrants.iter();
            let each = each.map(|e| format!("{} {}", e.name, e.values[quantity].join(" or ")));
            let each: Vec<String> = each.collect();
            format!("{}: {}", QUANTITIES[quantity], each.join(", "))
        })
    }
}

/// Task, data, model and the values of its quantities.
fn read(run: &RunManifest) -> Option<(String, String, String, [String; QUANTITIES.len()])> {
    let document = |text: &String| serde_json::from_str::<Value>(text).ok();
    let (recipe, config) = (document(&run.recipe)?, document(&run.config)?);
    let task = document(&run.task)?.as_object()?.keys().next()?.clone();
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let data = format!(
        "{} samples of {}",
        plain(&config["train"]["examples"]),
        run.data.name
    );
    let model = &config["model"];
    let name = format!("{} {}", plain(&model["name"]), plain(&model["size"]));
    let values = [
        plain(&recipe["batch_size"]),
        schedule(&recipe),
        average(&recipe),
        run.total_steps.to_string(),
        plain(&config["run"]["precision"]),
    ];
    Some((task, data, name.trim_end().to_owned(), values))
}

/// Kind and lengths of a schedule; a constant one has none.
fn schedule(recipe: &Value) -> String {
    let kind = recipe["schedule"].as_str().unwrap_or_default();
    match kind {
        "constant" => kind.into(),
        _ => format!(
            "{kind} ({} + {} epochs)",
            recipe["warmup_epochs"], recipe["schedule_epochs"]
        ),
    }
}

fn average(recipe: &Value) -> String {
    match recipe["ema_decay"].as_f64() {
        Some(decay) if decay > 0.0 => decay.to_string(),
        _ => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataFacts;
    use serde_json::json;

    fn run(name: &str, examples: Value, recipe: Value) -> RunManifest {
        let mut whole = json!({
            "batch_size": 8,
            "schedule": "constant",
            "warmup_epochs": 0.1,
            "schedule_epochs": 4.0,
            "ema_decay": 0.99,
            "lr": 1e-3,
        });
        for (key, value) in recipe.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let config = json!({
            "model": {"name": name, "size": "nano"},
            "train": {"examples": examples},
            "run": {"precision": "f32"},
        });
        RunManifest {
            recipe: whole.to_string(),
            config: config.to_string(),
            task: json!({"force-field": {"augmentation": "none"}}).to_string(),
            total_steps: 1000,
            data: DataFacts {
                name: "spice-mini".into(),
                ..DataFacts::default()
            },
            ..RunManifest::default()
        }
    }

    fn all(name: &str, recipe: Value) -> RunManifest {
        run(name, json!("all"), recipe)
    }

    #[test]
    fn models_that_differ_in_their_learning_rate_alone_are_compared_fairly() {
        let runs = [all("a", json!({"lr": 1.0})), all("b", json!({"lr": 2.0}))];
        assert!(unfair(&runs).is_empty());
        // Lengths of a schedule that has none mean nothing.
        let lengths = json!({"schedule_epochs": 9.0, "warmup_epochs": 1.0});
        assert!(unfair(&[all("a", json!({})), all("b", lengths)]).is_empty());
    }

    #[test]
    fn models_of_one_task_on_different_data_are_named_and_a_sweep_over_data_is_not() {
        let few = |name: &str| run(name, json!(500), json!({}));
        let lines = unfair(&[all("a", json!({})), few("b")]);
        assert_eq!(
            lines,
            [
                "force-field: data differ: a nano all samples of spice-mini, b nano 500 samples of spice-mini"
            ]
        );
        let both = [all("a", json!({})), few("a"), few("b"), all("b", json!({}))];
        assert!(unfair(&both).is_empty());
    }

    #[test]
    fn each_quantity_that_differs_has_a_line() {
        let one = all("escaip", json!({}));
        let mut two = all(
            "painn",
            json!({"batch_size": 32, "schedule": "warmup-cosine", "ema_decay": 0.0}),
        );
        two.total_steps = 500;
        two.config = two.config.replace("f32", "bf16");
        assert_eq!(
            unfair(&[one, two]),
            [
                "force-field: batch size differs: escaip nano 8, painn nano 32",
                "force-field: schedule differs: escaip nano constant, painn nano warmup-cosine (0.1 + 4.0 epochs)",
                "force-field: moving average differs: escaip nano 0.99, painn nano none",
                "force-field: steps differ: escaip nano 1000, painn nano 500",
                "force-field: precision differs: escaip nano f32, painn nano bf16",
            ]
        );
    }

    #[test]
    fn a_sweep_that_every_model_goes_through_is_fair_and_half_of_one_is_not() {
        let batch = |name: &str, size: u64| all(name, json!({"batch_size": size}));
        let mut runs = vec![batch("a", 8), batch("a", 16), batch("b", 16), batch("b", 8)];
        assert!(unfair(&runs).is_empty());
        runs.pop();
        assert_eq!(
            unfair(&runs),
            ["force-field: batch size differs: a nano 8 or 16, b nano 16"]
        );
    }

    #[test]
    fn only_runs_of_one_task_on_the_same_samples_are_compared() {
        let small = json!({"batch_size": 1});
        let mut runs = vec![
            all("a", json!({})),
            run("a", json!(500), small.clone()),
            RunManifest::default(),
        ];
        assert!(unfair(&runs).is_empty());
        let mut voxels = all("b", small);
        voxels.task = json!({"voxel-denoising": {}}).to_string();
        runs.push(voxels);
        assert!(unfair(&runs).is_empty());
        runs.push(run("c", json!(500), json!({"batch_size": 2})));
        let mut elsewhere = all("d", json!({"batch_size": 3}));
        elsewhere.data.name = "other".into();
        runs.push(elsewhere);
        assert_eq!(
            unfair(&runs),
            [
                "force-field: data differ: a nano all samples of spice-mini or 500 samples of spice-mini, c nano 500 samples of spice-mini, d nano all samples of other",
                "force-field, 500 samples of spice-mini: batch size differs: a nano 1, c nano 2",
            ]
        );
    }
}

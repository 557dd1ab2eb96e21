//! Suites: TOML files of defaults, per-model differences and sweeps, with overrides from the command line on top.
//!
//! Layers, later ones win: built-in defaults, the suite, its `[models.NAME]`, a sweep's assignment, `[fair]` where `--fair` asks for it,
//! `--set`.

use crate::{RunnerError, config::RunConfig};
use equivbench_host::descriptor::Recipe;
use std::path::Path;
use toml::{Table, Value};

/// Suites that come with the program.
const BUILT_IN: &[(&str, &str)] = &[
    (
        "quick",
        include_str!("../../../benchmarks/suites/quick.toml"),
    ),
    (
        "throughput",
        include_str!("../../../benchmarks/suites/throughput.toml"),
    ),
    (
        "paper-escaip",
        include_str!("../../../benchmarks/suites/paper-escaip.toml"),
    ),
    (
        "paper-proteina",
        include_str!("../../../benchmarks/suites/paper-proteina.toml"),
    ),
    (
        "paper-voxmol",
        include_str!("../../../benchmarks/suites/paper-voxmol.toml"),
    ),
];

/// Keys of the recipe, which may stand directly in `[train]`.
fn recipe_keys() -> Vec<String> {
    match Value::try_from(Recipe::default()) {
        Ok(Value::Table(recipe)) => recipe.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Protocols of a suite that names none.
const STANDARD: [&str; 4] = [
    "train-and-measure",
    "dip-timing",
    "final-percent",
    "throughput",
];

/// Tables whose keys a plugin or a task checks.
const FREE: &[&str] = &["model.config", "dataset.options", "task"];

/// Keys of `[fair]`, each of `[train]`: what all models of a task then have in common. Learning rates stay their own.
const FAIR: [&str; 8] = [
    "batch_size",
    "steps",
    "schedule",
    "ema_decay",
    "warmup_epochs",
    "warmup_factor",
    "schedule_epochs",
    "min_factor",
];

/// Those of them without which training would not be alike.
const ALWAYS_FAIR: usize = 4;

/// A suite as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// Name, for the results directory.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Protocols by name.
    pub protocols: Vec<String>,
    /// Runs at a time on a processor, unless the command line says otherwise; no more than it has cores. Small models use two cores best
    /// one run each.
    pub jobs: usize,
    base: Table,
    models: Table,
    sweeps: Vec<Table>,
    fair: Table,
    is_fair: bool,
}

/// Names of the suites that come with the program.
#[must_use]
pub fn built_in_names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Suite {
    /// A suite by name, or from a file.
    ///
    /// # Errors
    /// An unknown name, an unreadable file, unknown keys.
    pub fn load(name_or_path: &str) -> Result<Self, RunnerError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text, name, name);
        }
        let path = Path::new(name_or_path);
        if !path.is_file() {
            let known = built_in_names().join(", ");
            return Err(RunnerError::Config(format!(
                "suite \"{name_or_path}\" is neither a file nor a suite of this program; its suites are: {known}"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(RunnerError::io(path))?;
        let stem = path
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        Self::parse(&text, &stem, name_or_path)
    }

    /// Reads the text of a suite; `source` is named in errors.
    ///
    /// # Errors
    /// Text that is not TOML, unknown keys, values of another type.
    pub fn parse(text: &str, name: &str, source: &str) -> Result<Self, RunnerError> {
        let bad = |what: String| RunnerError::Config(format!("suite {source}: {what}"));
        let mut table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| bad(e.to_string()))?;
        let text_of = |v: Option<Value>| {
            v.and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        let about = text_of(table.remove("about"));
        let named = text_of(table.remove("name"));
        let protocols = match table.remove("protocols") {
            // Named by their tables of settings.
            Some(Value::Table(settings)) if !settings.is_empty() => {
                let names = settings.keys().cloned().collect();
                table.insert("protocols".into(), Value::Table(settings));
                names
            }
            Some(Value::Table(_)) | None => STANDARD.map(Into::into).into(),
            Some(v) => v.try_into().map_err(|e| bad(format!("protocols: {e}")))?,
        };
        let mut models =
            into_table(table.remove("models")).map_err(|e| bad(format!("models: {e}")))?;
        for own in models
            .iter_mut()
            .filter_map(|(_, value)| value.as_table_mut())
        {
            *own = expand(std::mem::take(own))?;
        }
        let sweeps = match table.remove("sweep") {
            None => Vec::new(),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|i| into_table(Some(i)))
                .collect::<Result<_, _>>()
                .map_err(|e| bad(format!("sweep: {e}")))?,
            Some(_) => return Err(bad("sweep must be an array of tables, [[sweep]]".into())),
        };
        let jobs = match table.remove("jobs") {
            None => 1,
            Some(Value::Integer(jobs)) if jobs > 0 => jobs as usize,
            Some(other) => return Err(bad(format!("jobs = {other} must be a count of runs"))),
        };
        let fair = into_table(table.remove("fair")).map_err(|e| bad(format!("fair: {e}")))?;
        table = expand(table)?;
        let suite = Self {
            name: if named.is_empty() { name.into() } else { named },
            about,
            protocols,
            base: table,
            models,
            sweeps,
            jobs,
            fair,
            is_fair: false,
        };
        suite.check().map_err(|e| bad(e.to_string()))?;
        Ok(suite)
    }

    fn check(&self) -> Result<(), RunnerError> {
        check_keys(&self.base, "")?;
        for (name, table) in &self.models {
            let Value::Table(table) = table else {
                return Err(RunnerError::Config(format!(
                    "models.{name} must be a table"
                )));
            };
            check_keys(table, "")?;
        }
        check_fair(&self.fair).map_err(RunnerError::Config)?;
        self.sweeps
            .iter()
            .flat_map(Table::keys)
            .try_for_each(|key| check_key(key))
    }

    /// The suite with its table `[fair]` over all that it says of training: the same batch size, steps, schedule and moving average for
    /// every model. It is another experiment, and has a name of its own.
    ///
    /// # Errors
    /// A suite without that table.
    pub fn fair(mut self) -> Result<Self, RunnerError> {
        if self.fair.is_empty() {
            return Err(RunnerError::Config(format!(
                "suite {}: --fair needs a table [fair] with {}, values that every model can be trained with; add it to a copy of the suite, or set \
                 them with --set train.KEY=VALUE",
                self.name,
                FAIR[..ALWAYS_FAIR].join(", ")
            )));
        }
        self.is_fair = true;
        self.name.push_str("-fair");
        Ok(self)
    }

    /// What `--fair` sets, except for keys that the command line names.
    fn fair_assignment(&self, overrides: &[(String, Value)]) -> Vec<(String, Value)> {
        let keys = self.fair.iter().filter(|_| self.is_fair);
        let keys = keys.map(|(key, value)| (format!("train.{key}"), value.clone()));
        keys.filter(|(key, _)| overrides.iter().all(|(k, _)| k != key))
            .collect()
    }

    /// The configurations of one model: one for each combination of every sweep, without repeats, in order.
    ///
    /// # Errors
    /// Values of another type, an empty list.
    pub fn configurations(
        &self,
        model: &str,
        overrides: &[(String, Value)],
    ) -> Result<Vec<RunConfig>, RunnerError> {
        let mut base = Table::new();
        lay_over(&mut base, &self.base);
        if let Some(Value::Table(own)) = self.models.get(model) {
            lay_over(&mut base, own);
        }
        let (fixed, swept): (Vec<_>, Vec<_>) = overrides
            .iter()
            .cloned()
            .partition(|(key, value)| !is_sweep(key, value));
        let fair = self.fair_assignment(overrides);
        let no_sweep = [Table::new()];
        let sweeps = if self.sweeps.is_empty() {
            &no_sweep[..]
        } else {
            &self.sweeps
        };
        let mut found: Vec<RunConfig> = Vec::new();
        for sweep in sweeps {
            // A key that the command line names is no longer swept by the suite.
            let named = |key: &String| overrides.iter().any(|(k, _)| k == key);
            let axes = sweep
                .iter()
                .filter(|(k, _)| !named(k))
                .map(|(k, v)| (k.clone(), v.clone()))
                .chain(swept.iter().cloned());
            for assignment in product(axes.collect())? {
                let mut table = base.clone();
                for (key, value) in assignment.iter().chain(&fair).chain(&fixed) {
                    assign(&mut table, key, value.clone())?;
                }
                let config = resolve(table, model)?;
                if !found.contains(&config) {
                    found.push(config);
                }
            }
        }
        Ok(found)
    }
}

/// Reads `KEY=VALUE`: the value is TOML where it parses as such, text otherwise; a bare list `a,b` is not a list, `[a, b]` is.
///
/// # Errors
/// Text without `=`, or an unknown key.
pub fn parse_override(text: &str) -> Result<(String, Value), RunnerError> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(RunnerError::Config(format!(
            "--set {text}: write KEY=VALUE, for example --set train.lr=1e-3"
        )));
    };
    let (key, value) = (key.trim(), value.trim());
    check_key(key)?;
    let parsed = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"));
    Ok((
        key.into(),
        parsed.unwrap_or_else(|| Value::String(value.into())),
    ))
}

/// A configuration with some keys set anew.
///
/// # Errors
/// A value of another type.
pub(crate) fn override_config(
    config: &RunConfig,
    overrides: &[(String, Value)],
) -> Result<RunConfig, RunnerError> {
    let bad = |e: String| RunnerError::Config(format!("--set: {e}"));
    let mut table = Table::try_from(config).map_err(|e| bad(e.to_string()))?;
    for (key, value) in overrides {
        assign(&mut table, key, value.clone())?;
    }
    let mut config: RunConfig = Value::Table(table)
        .try_into()
        .map_err(|e: toml::de::Error| bad(e.to_string()))?;
    config.measure.complete();
    Ok(config)
}

fn resolve(mut table: Table, model: &str) -> Result<RunConfig, RunnerError> {
    if let Some(Value::Table(train)) = table.get_mut("train") {
        let mut recipe = into_table(train.remove("recipe"))
            .map_err(|e| RunnerError::Config(format!("train.recipe: {e}")))?;
        for key in recipe_keys() {
            if let Some(value) = train.remove(&key) {
                recipe.insert(key, value);
            }
        }
        train.insert("recipe".into(), Value::Table(recipe));
    }
    let mut config: RunConfig = Value::Table(table)
        .try_into()
        .map_err(|e| RunnerError::Config(format!("configuration of {model}: {e}")))?;
    config.model.name = model.into();
    config.measure.complete();
    Ok(config)
}

/// A list given for a key that holds one value means one run for each.
fn is_sweep(key: &str, value: &Value) -> bool {
    value.is_array()
        && !holds_list(key)
        && !FREE.iter().any(|free| {
            key.strip_prefix(free)
                .is_some_and(|rest| rest.starts_with('.'))
        })
}

/// Whether the value of a key is a list by itself.
fn holds_list(key: &str) -> bool {
    let defaults = Value::try_from(RunConfig::default()).ok();
    let at = key
        .split('.')
        .try_fold(defaults.as_ref(), |at, part| {
            at.map(|value| value.get(part))
        })
        .flatten();
    key == "train.no_decay" || at.is_some_and(Value::is_array)
}

fn product(axes: Vec<(String, Value)>) -> Result<Vec<Vec<(String, Value)>>, RunnerError> {
    let mut all = vec![Vec::new()];
    for (key, value) in axes {
        let values = match value {
            Value::Array(values) if is_sweep(&key, &Value::Array(vec![])) => values,
            other => vec![other],
        };
        if values.is_empty() {
            return Err(RunnerError::Config(format!(
                "sweep over {key}: the list is empty"
            )));
        }
        let extended = |a: &Vec<(String, Value)>, v: &Value| {
            [a.clone(), vec![(key.clone(), v.clone())]].concat()
        };
        all = all
            .iter()
            .flat_map(|a| values.iter().map(|v| extended(a, v)).collect::<Vec<_>>())
            .collect();
    }
    Ok(all)
}

/// Quoted keys with dots, `"train.lr" = 1`, mean what they say.
fn expand(table: Table) -> Result<Table, RunnerError> {
    let mut expanded = Table::new();
    for (key, value) in table {
        match value {
            Value::Table(over) if !key.contains('.') => {
                let mut inner = into_table(expanded.remove(&key)).map_err(RunnerError::Config)?;
                lay_over(&mut inner, &over);
                expanded.insert(key, Value::Table(inner));
            }
            value => assign(&mut expanded, &key, value)?,
        }
    }
    Ok(expanded)
}

fn assign(table: &mut Table, key: &str, value: Value) -> Result<(), RunnerError> {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
            Ok(())
        }
        Some((head, rest)) => match table
            .entry(head)
            .or_insert_with(|| Value::Table(Table::new()))
        {
            Value::Table(inner) => assign(inner, rest, value),
            _ => Err(RunnerError::Config(format!(
                "{head} is a value, it has no key {rest}"
            ))),
        },
    }
}

fn lay_over(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => lay_over(inner, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn into_table(value: Option<Value>) -> Result<Table, String> {
    match value {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(other) => Err(format!("expected a table, found {}", other.type_str())),
    }
}

/// All known keys with dots; those that end in `.*` hold free keys that a plugin checks.
#[must_use]
pub fn known_keys() -> Vec<String> {
    fn collect(table: &Table, prefix: &str, out: &mut Vec<String>) {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            match value {
                Value::Table(_) if FREE.contains(&name.as_str()) => out.push(format!("{name}.*")),
                Value::Table(_) if name == "train.recipe" => {
                    out.extend(recipe_keys().iter().map(|k| format!("train.{k}")))
                }
                Value::Table(inner) => collect(inner, &format!("{name}."), out),
                _ => out.push(name),
            }
        }
    }
    let mut keys = Vec::new();
    if let Ok(Value::Table(table)) = Value::try_from(RunConfig::default()) {
        collect(&table, "", &mut keys);
    }
    keys
}

fn check_keys(table: &Table, prefix: &str) -> Result<(), RunnerError> {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        match value {
            // A protocol without settings may be named by an empty table.
            Value::Table(inner) if inner.is_empty() && prefix == "protocols." => {}
            Value::Table(inner) if !FREE.contains(&name.as_str()) => {
                check_keys(inner, &format!("{name}."))?;
            }
            Value::Table(_) => {}
            _ => check_key(&name)?,
        }
    }
    Ok(())
}

/// A table that is there says all that makes training alike, and nothing else.
fn check_fair(fair: &Table) -> Result<(), String> {
    if let Some(other) = fair.keys().find(|key| !FAIR.contains(&key.as_str())) {
        return Err(format!(
            "key \"fair.{other}\" is not known; what models are trained alike in is: {}",
            FAIR.join(", ")
        ));
    }
    let has_lengths = |fair: &Table| {
        fair.get("schedule").and_then(Value::as_str) == Some("constant")
            || ["warmup_epochs", "schedule_epochs"]
                .iter()
                .all(|key| fair.contains_key(*key))
    };
    let missing = FAIR[..ALWAYS_FAIR]
        .iter()
        .find(|key| !fair.contains_key(**key));
    match missing {
        _ if fair.is_empty() => Ok(()),
        Some(key) => Err(format!(
            "[fair] lacks {key}: without it every model would keep its own"
        )),
        None if !has_lengths(fair) => Err(
            "[fair] lacks warmup_epochs or schedule_epochs: a schedule that is not constant has lengths".into(),
        ),
        None => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), RunnerError> {
    let known = known_keys();
    let fits = |k: &String| {
        k == key
            || k.strip_suffix('*')
                .is_some_and(|free| key.starts_with(free) && key.len() > free.len())
    };
    if known.iter().any(fits) {
        return Ok(());
    }
    let nearest = known
        .iter()
        .min_by_key(|k| strsim::damerau_levenshtein(k, key))
        .cloned()
        .unwrap_or_default();
    Err(RunnerError::Config(format!(
        "key \"{key}\" is not known; did you mean \"{nearest}\"? All keys: {}",
        known.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
about = "test"
[train]
lr = 1e-3
[models.escaip]
model.size = "nano"
[models.escaip.train]
lr = 5e-4
[[sweep]]
"run.seed" = [0, 1]
[[sweep]]
"train.examples" = ["all", 50]
"#;

    fn suite() -> Suite {
        Suite::parse(TEXT, "test", "test").unwrap()
    }

    #[test]
    fn layers_win_in_their_order_and_sweeps_are_united_without_repeats() {
        let configs = suite().configurations("escaip", &[]).unwrap();
        // seed 0 + all is in both sweeps.
        assert_eq!(configs.len(), 3);
        assert_eq!(configs[0].train.recipe["lr"].as_float(), Some(5e-4));
        assert_eq!(configs[0].model.size, "nano");
        assert_eq!(
            suite().configurations("other", &[]).unwrap()[0]
                .train
                .recipe["lr"]
                .as_float(),
            Some(1e-3)
        );
        let set = parse_override("train.lr=0.25").unwrap();
        assert_eq!(
            suite().configurations("escaip", &[set]).unwrap()[1]
                .train
                .recipe["lr"]
                .as_float(),
            Some(0.25)
        );
    }

    #[test]
    fn a_list_on_the_command_line_is_a_sweep() {
        let set = parse_override("run.seed=[3, 4]").unwrap();
        let configs = suite().configurations("x", &[set]).unwrap();
        let mut seeds: Vec<u64> = configs.iter().map(|c| c.run.seed).collect();
        seeds.dedup();
        assert_eq!(seeds, [3, 4, 3, 4]);
        assert_eq!(configs.len(), 4);
    }

    #[test]
    fn a_list_for_a_key_that_holds_one_is_no_sweep() {
        let sets = [
            "measure.flow_times=[0.0, 0.5]",
            "measure.weights=[\"raw\"]",
            "train.no_decay=[\"bias\"]",
        ]
        .map(|s| parse_override(s).unwrap());
        let configs = Suite::parse("", "t", "t")
            .unwrap()
            .configurations("x", &sets)
            .unwrap();
        assert_eq!(configs.len(), 1);
        let times = configs[0].measure.axis("flow_times").unwrap();
        assert_eq!(times, serde_json::json!([0.0, 0.5]));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = parse_override("train.learning=1").unwrap_err().to_string();
        assert!(
            error.contains("\"train.learning\" is not known")
                && error.contains("did you mean \"train."),
            "{error}"
        );
        let error = Suite::parse("[mesure]\nsamples = 3", "t", "t.toml")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("suite t.toml") && error.contains("measure.samples"),
            "{error}"
        );
        assert!(parse_override("dataset.options.path=/x/y.hdf5").is_ok());
    }

    #[test]
    fn fair_lies_over_all_but_the_command_line_and_leaves_learning_rates_alone() {
        let fair = "[fair]\nbatch_size = 4\nsteps = 9\nschedule = \"constant\"\nema_decay = 0.5\n";
        let sweep = "[[sweep]]\n\"train.batch_size\" = [1, 2]\n";
        let text = format!("{TEXT}{sweep}{fair}");
        let plain = Suite::parse(&text, "test", "test").unwrap();
        let batches = |suite: &Suite, set: &[&str]| {
            let set: Vec<_> = set.iter().map(|s| parse_override(s).unwrap()).collect();
            let configs = suite.configurations("escaip", &set).unwrap();
            assert!(
                configs
                    .iter()
                    .all(|c| c.train.recipe["lr"].as_float() == Some(5e-4))
            );
            let of = |c: &RunConfig| c.train.recipe.get("batch_size").and_then(Value::as_integer);
            configs.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(batches(&plain, &[]), [None, None, None, Some(1), Some(2)]);
        let fair = plain.fair().unwrap();
        assert_eq!(fair.name, "test-fair");
        // What was swept and is the same now is run once.
        assert_eq!(batches(&fair, &[]), [Some(4); 3]);
        assert_eq!(
            batches(
                &fair,
                &[
                    "train.batch_size=[6, 7]",
                    "run.seed=0",
                    "train.examples=all"
                ]
            ),
            [Some(6), Some(7)]
        );
        let config = &fair.configurations("escaip", &[]).unwrap()[0];
        assert_eq!(config.train.steps, 9);
        assert_eq!(config.train.recipe["schedule"].as_str(), Some("constant"));
    }

    #[test]
    fn a_table_that_would_not_train_alike_is_refused() {
        let refused = |text: &str| Suite::parse(text, "t", "t").unwrap_err().to_string();
        let lr = refused("[fair]\nlr = 1e-3");
        assert!(
            lr.contains("\"fair.lr\" is not known") && lr.contains("batch_size, steps"),
            "{lr}"
        );
        let short = refused("[fair]\nbatch_size = 4\nsteps = 9\nschedule = \"constant\"");
        assert!(short.contains("[fair] lacks ema_decay"), "{short}");
        let lengths = "batch_size = 4\nsteps = 9\nschedule = \"warmup-cosine\"\nema_decay = 0.0";
        let lengths = refused(&format!("[fair]\n{lengths}"));
        assert!(lengths.contains("schedule_epochs"), "{lengths}");
        let none = suite().fair().unwrap_err().to_string();
        assert!(none.contains("--fair needs a table [fair]"), "{none}");
    }

    /// How many configurations have these values; keys as for `--set`, `seeds` for the number of different seeds.
    fn counted(configs: &[RunConfig], wanted: &[(&str, &str)]) -> usize {
        let value = |config: &RunConfig, key: &str| {
            let table = Value::try_from(config).unwrap();
            let key = match key.strip_prefix("train.") {
                Some(recipe) if recipe_keys().iter().any(|k| k == recipe) => {
                    format!("train.recipe.{recipe}")
                }
                _ => key.to_owned(),
            };
            let at = key.split('.').try_fold(&table, |at, part| at.get(part));
            at.map_or("-".into(), |v| v.to_string().replace('"', ""))
        };
        let fits = |c: &&RunConfig| wanted.iter().all(|(k, v)| value(c, k) == *v);
        configs.iter().filter(fits).count()
    }

    fn planned(suite: &str, model: &str) -> Vec<RunConfig> {
        let suite = Suite::load(suite).unwrap();
        let configs = suite.configurations(model, &[]).unwrap();
        let seeds = match suite.name.as_str() {
            "quick" => 3,
            _ => 5,
        };
        for seed in 0..seeds {
            let of_seed = counted(&configs, &[("run.seed", &seed.to_string())]);
            assert_eq!(of_seed * seeds, configs.len(), "{}", suite.name);
        }
        configs
    }

    #[test]
    fn the_paper_s_experiments_on_escaip_are_planned_once_each() {
        let configs = planned("paper-escaip", "escaip");
        // Sizes 1M, 4M; samples 50k, 5k, 500; two by two more optimisers and rates, the rest of the first; and the one in all of them.
        assert_eq!(configs.len(), 5 * (2 + 3 + 8 + 1));
        let common = [("model.size", "6M"), ("train.examples", "all")];
        for optimiser in ["adamw", "adam", "sgd"] {
            for lr in ["0.00001", "0.0001", "0.0005"] {
                let own = [("train.optimiser", optimiser), ("train.lr", lr)];
                assert_eq!(
                    counted(&configs, &[&common[..], &own].concat()),
                    5,
                    "{optimiser} {lr}"
                );
            }
        }
        // Batch size 1 for 500 samples and nowhere else: 30 epochs are 15,000 steps.
        let few = [
            ("train.examples", "500"),
            ("train.batch_size", "1"),
            ("train.steps", "15000"),
        ];
        for one in 1..=few.len() {
            assert_eq!(counted(&configs, &few[..one]), 5);
        }
        assert_eq!(counted(&configs, &[("train.batch_size", "-")]), 65);
        assert_eq!(counted(&configs, &[("train.steps", "0")]), 65);
    }

    #[test]
    fn voxels_are_augmented_as_the_paper_may_have_done_it() {
        let configs = planned("paper-voxmol", "voxmol");
        // Sizes 28M, 7M; 50, 25, 10, 1%; cube16-a, cube16-b; and the one in all of them.
        assert_eq!(configs.len(), 5 * (2 + 4 + 2 + 1));
        for set in ["cube16-a", "cube16-b"] {
            let wanted = [
                ("task.augmentation", set),
                ("model.size", "111M"),
                ("train.examples", "all"),
            ];
            assert_eq!(counted(&configs, &wanted), 5, "{set}");
        }
        let rest = [("task.augmentation", "continuous-euler")];
        assert_eq!(counted(&configs, &rest), 35);
    }

    #[test]
    fn other_suites_have_their_seeds_too() {
        assert_eq!(planned("paper-proteina", "proteina").len(), 5 * (2 + 2));
        assert_eq!(planned("quick", "escaip").len(), 3);
        let one = [parse_override("run.seed=[0]").unwrap()];
        let quick = Suite::load("quick").unwrap().fair().unwrap();
        assert_eq!(quick.configurations("voxmol", &one).unwrap().len(), 1);
        assert_eq!(
            quick.configurations("voxmol", &[]).unwrap()[0].train.steps,
            600
        );
    }

    #[test]
    fn the_suites_of_the_program_can_be_read() {
        for name in built_in_names() {
            let suite = Suite::load(name).unwrap();
            assert!(
                !suite.configurations("escaip", &[]).unwrap().is_empty(),
                "{name}"
            );
        }
    }
}

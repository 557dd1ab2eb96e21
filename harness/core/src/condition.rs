//! Conditions: the settings under which measured samples are predicted. A task owns its axes; every row of a table belongs to one
//! condition, and nothing above the task knows an axis by name.

use crate::{Cell, CoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a sample stands on an axis.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum AxisValue {
    /// A number, such as a flow time.
    Real(f64),
    /// A name, such as a variant of the prediction.
    Name(String),
}

impl From<AxisValue> for Cell {
    fn from(value: AxisValue) -> Self {
        match value {
            AxisValue::Real(x) => Self::Real(x),
            AxisValue::Name(name) => Self::Text(name),
        }
    }
}

/// What changes along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisRole {
    /// What the model sees: samples are prepared anew for each value.
    Input,
    /// Which pass of the model is read: all values come from one series of predictions (see `Task::pass`).
    Reading,
}

/// An axis of conditions, declared by the task that owns it: its column, its key in `[measure]`, its values.
#[derive(Debug)]
pub struct Axis {
    /// Name of the column.
    pub name: &'static str,
    /// Unit of the column.
    pub unit: &'static str,
    /// What the column says.
    pub about: &'static str,
    /// Heading in summaries for people.
    pub heading: &'static str,
    /// Key of `[measure]` that lists values.
    pub setting: &'static str,
    /// What changes along it.
    pub role: AxisRole,
    /// What stands in the column for a task without this axis; `None` for an empty cell.
    pub without: Option<&'static str>,
    /// Reads one value of a suite, or says what is wrong with it.
    pub parse: fn(&Value) -> Result<AxisValue, String>,
}

/// One setting under which the measured samples are predicted: a value on each axis of the task, in the order of the axes.
#[derive(Clone, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Condition(Vec<(String, AxisValue)>);

impl Condition {
    /// The same with a value on one more axis.
    #[must_use]
    pub fn with(mut self, axis: &str, value: AxisValue) -> Self {
        self.0.push((axis.to_owned(), value));
        self
    }

    /// The value on an axis; `None` where the task has no such axis.
    #[must_use]
    pub fn value(&self, axis: &str) -> Option<&AxisValue> {
        self.0.iter().find(|(name, _)| name == axis).map(|(_, v)| v)
    }

    /// The number on an axis of numbers.
    #[must_use]
    pub fn real(&self, axis: &str) -> Option<f64> {
        match self.value(axis)? {
            AxisValue::Real(x) => Some(*x),
            AxisValue::Name(_) => None,
        }
    }

    /// The name on an axis of names.
    #[must_use]
    pub fn name(&self, axis: &str) -> Option<&str> {
        match self.value(axis)? {
            AxisValue::Name(name) => Some(name),
            AxisValue::Real(_) => None,
        }
    }

    /// The cell of an axis' column.
    #[must_use]
    pub fn cell(&self, axis: &Axis) -> Cell {
        match self.value(axis.name) {
            Some(value) => value.clone().into(),
            None => axis.without.into(),
        }
    }

    /// What of it changes what the model sees: the values on axes of the role [`AxisRole::Input`].
    #[must_use]
    pub fn of_inputs(&self, axes: &[&Axis]) -> Self {
        let is_input = |name: &str| {
            axes.iter()
                .any(|axis| axis.name == name && axis.role == AxisRole::Input)
        };
        Self(
            self.0
                .iter()
                .filter(|(n, _)| is_input(n))
                .cloned()
                .collect(),
        )
    }
}

/// A task as far as its conditions go.
pub(crate) trait Axes {
    fn axes(&self) -> &'static [&'static Axis];
    fn values(&self, axis: &Axis) -> Vec<AxisValue>;
    fn offered(&self, axis: &Axis, value: &AxisValue) -> Result<(), String>;
}

/// The values on one axis: those asked for, without repeats, or all that are offered. Names keep the order of the task.
fn values_of(
    task: &dyn Axes,
    axis: &Axis,
    asked: &[AxisValue],
) -> Result<Vec<AxisValue>, CoreError> {
    let own = task.values(axis);
    if asked.is_empty() {
        let offered = |v: &AxisValue| task.offered(axis, v).is_ok();
        return Ok(own.into_iter().filter(offered).collect());
    }
    for value in asked {
        task.offered(axis, value)
            .map_err(|why| CoreError::Shape(format!("measure.{}: {why}", axis.setting)))?;
    }
    if axis.role == AxisRole::Reading {
        return Ok(own.into_iter().filter(|v| asked.contains(v)).collect());
    }
    let mut values: Vec<AxisValue> = Vec::new();
    for value in asked {
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    Ok(values)
}

/// All conditions of a task, the last axis the fastest: the order of rows.
pub(crate) fn conditions(
    task: &dyn Axes,
    asked: &dyn Fn(&Axis) -> Result<Vec<AxisValue>, CoreError>,
) -> Result<Vec<Condition>, CoreError> {
    let mut all = vec![Condition::default()];
    for axis in task.axes() {
        let values = values_of(task, axis, &asked(axis)?)?;
        let along = |c: &Condition| -> Vec<Condition> {
            let with = |value: &AxisValue| c.clone().with(axis.name, value.clone());
            values.iter().map(with).collect()
        };
        all = all.iter().flat_map(along).collect();
    }
    Ok(all)
}

/// Reads the list of a suite's key, or says what is wrong.
///
/// # Errors
/// A value that is no list, or a value of the list that the axis cannot have.
pub fn parse_axis(axis: &Axis, list: Option<&Value>) -> Result<Vec<AxisValue>, CoreError> {
    let bad = |what: String| CoreError::Shape(format!("measure.{}: {what}", axis.setting));
    match list {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => values
            .iter()
            .map(|value| (axis.parse)(value).map_err(bad))
            .collect(),
        Some(other) => Err(bad(format!("{other} is no list; write [{other}]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static HEAT: Axis = Axis {
        name: "heat",
        unit: "K",
        about: "",
        heading: "heat",
        setting: "heats",
        role: AxisRole::Input,
        without: None,
        parse: |v| v.as_f64().map(AxisValue::Real).ok_or("no number".into()),
    };
    static PASS: Axis = Axis {
        name: "pass",
        role: AxisRole::Reading,
        setting: "passes",
        without: Some("first"),
        parse: |v| match v.as_str() {
            Some(name) => Ok(AxisValue::Name(name.into())),
            None => Err("no name".into()),
        },
        ..HEAT
    };

    struct Ours;
    impl Axes for Ours {
        fn axes(&self) -> &'static [&'static Axis] {
            static AXES: [&Axis; 2] = [&HEAT, &PASS];
            &AXES
        }
        fn values(&self, axis: &Axis) -> Vec<AxisValue> {
            match axis.name {
                "heat" => [1.0, 2.0].map(AxisValue::Real).to_vec(),
                _ => ["first", "second"]
                    .map(|n| AxisValue::Name(n.into()))
                    .to_vec(),
            }
        }
        fn offered(&self, _: &Axis, value: &AxisValue) -> Result<(), String> {
            match value {
                AxisValue::Name(n) if n == "third" => Err("there is no third".into()),
                _ => Ok(()),
            }
        }
    }

    fn asked(heats: &str, passes: &str) -> Result<Vec<Condition>, CoreError> {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        conditions(&Ours, &|axis| {
            parse_axis(
                axis,
                Some(&read(if axis.name == "heat" { heats } else { passes })),
            )
        })
    }

    #[test]
    fn conditions_are_all_combinations_with_the_last_axis_the_fastest() {
        let all = asked("[]", "[]").unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|c| (c.real("heat").unwrap(), c.name("pass").unwrap()))
            .collect();
        let expected = [
            (1.0, "first"),
            (1.0, "second"),
            (2.0, "first"),
            (2.0, "second"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(
            all[1].of_inputs(&[&HEAT, &PASS]),
            all[0].of_inputs(&[&HEAT, &PASS])
        );
    }

    #[test]
    fn numbers_keep_the_order_asked_for_and_names_that_of_the_task() {
        let all = asked("[7, 3, 7]", r#"["second", "first"]"#).unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(
            (all[0].real("heat"), all[0].name("pass")),
            (Some(7.0), Some("first"))
        );
        assert_eq!(all[2].real("heat"), Some(3.0));
    }

    #[test]
    fn what_cannot_be_is_told_with_its_key() {
        for (heats, passes, said) in [
            (r#"["x"]"#, "[]", "measure.heats: no number"),
            ("[]", r#"["third"]"#, "measure.passes: there is no third"),
            ("3", "[]", "write [3]"),
        ] {
            let error = asked(heats, passes).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_task_without_the_axis_shows_what_the_axis_says() {
        let none = Condition::default();
        assert_eq!(none.cell(&HEAT), Cell::Missing);
        assert_eq!(none.cell(&PASS), Cell::Text("first".into()));
    }
}

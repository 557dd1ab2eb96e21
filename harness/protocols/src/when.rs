//! Steps that a setting of a protocol names.

use serde::{Deserialize, Serialize};

/// After which steps a protocol asks: a list such as `[500, "last"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct When(Vec<Named>);

/// A step by its number or its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "neither a step nor \"last\"; write a list such as [500, \"last\"]"
)]
enum Named {
    Step(u64),
    By(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Last,
}

impl When {
    /// After the last step only.
    pub(crate) fn last() -> Self {
        Self(vec![Named::By(Name::Last)])
    }

    /// After one step only.
    pub(crate) fn at(step: u64) -> Self {
        Self(vec![Named::Step(step)])
    }

    /// Whether a step of so many is among them.
    pub(crate) fn holds(&self, step: u64, total: u64) -> bool {
        self.0.iter().any(|named| match named {
            Named::Step(own) => *own == step,
            Named::By(Name::Last) => step == total,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_named_by_number_or_as_the_last() {
        let read = |text: &str| serde_json::from_str::<When>(text);
        let when = read(r#"[5, "last"]"#).unwrap();
        let due: Vec<u64> = (0..=12).filter(|step| when.holds(*step, 12)).collect();
        assert_eq!(due, [5, 12]);
        assert_eq!(read(r#"["last"]"#).unwrap(), When::last());
        assert!(!read("[]").unwrap().holds(12, 12));
        let error = read(r#"["first"]"#).unwrap_err().to_string();
        assert!(error.contains("neither a step nor \"last\""), "{error}");
    }
}

//! What is computed once for a batch and used many times: what all its rotated copies have in common (capability `shared-rotations`), or
//! what lies below a parameter group (`frozen-below:GROUP`).

use crate::{PluginError, PluginResult};
use std::any::{Any, type_name};

/// Quantities of a batch, as [`ModelPlugin::share`](crate::ModelPlugin::share) or [`ModelPlugin::below`](crate::ModelPlugin::below) found
/// them.
pub struct Shared(Box<dyn Any + Send>);

impl Shared {
    /// Keeps a value of the model's own type.
    pub fn new<T: Any + Send>(value: T) -> Self {
        Self(Box::new(value))
    }

    /// The value.
    ///
    /// # Errors
    /// A value of another type: one that another model made.
    pub fn get<T: Any>(&self) -> PluginResult<&T> {
        let other = || {
            PluginError::BadRequest(format!(
                "what was kept of the batch is not a {}",
                type_name::<T>()
            ))
        };
        self.0.downcast_ref().ok_or_else(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_its_own_type_only() {
        let shared = Shared::new(7_u32);
        assert_eq!(*shared.get::<u32>().unwrap(), 7);
        assert!(
            shared
                .get::<i64>()
                .unwrap_err()
                .to_string()
                .contains("is not a i64")
        );
    }
}

//! What the mathematics refuses.

/// An error of the core. Errors of models and datasets pass through as text with their source named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// A batch lacks a field.
    #[error("field \"{missing}\" is missing; the batch offers: {offered}")]
    MissingField {
        /// The field asked for.
        missing: String,
        /// The fields that are there.
        offered: String,
    },
    /// Numbers do not fit together.
    #[error("{0}")]
    Shape(String),
    /// A rotation cannot act on a field.
    #[error("field \"{field}\": {why}")]
    Action {
        /// The field.
        field: String,
        /// What stands in the way.
        why: String,
    },
    /// A setting of a task that cannot be.
    #[error("task {task}: {what}")]
    Setting {
        /// The task.
        task: String,
        /// The setting and the remedy.
        what: String,
    },
    /// A measurement that cannot be trusted.
    #[error("{0}")]
    NotFinite(String),
    /// Predictions from work that rotated copies share, which are not those of the blind path.
    #[error(
        "predictions from shared work differ from blind ones by {relative:.1e} of their size ({of_equiv:.1e} of the equivariance error): what \
         the model shares among rotated copies changes with rotation. Measure with measure.sharing = false, or mend the plugin's `share`"
    )]
    Sharing {
        /// The relative root-mean-square difference.
        relative: f64,
        /// The mean square of the difference over the measured equivariance error.
        of_equiv: f64,
    },
    /// Somebody asked for an end.
    #[error("stopped on request")]
    Stopped,
    /// A name that is not known.
    #[error("{what} \"{name}\" is not known; there are: {known}")]
    Unknown {
        /// What was named.
        what: &'static str,
        /// The name.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// What a model plugin reported.
    #[error("model: {0}")]
    Model(String),
    /// What a dataset plugin reported.
    #[error("dataset: {0}")]
    Dataset(String),
    /// What a sink reported.
    #[error("table: {0}")]
    Sink(String),
}

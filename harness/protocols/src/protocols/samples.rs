//! Per-sample terms: what each measured sample contributed, so that intervals and tests can be made again by others.

use crate::{Moment, Protocol, Schedule, SetAbout, SetName, Snapshot, columns};
use equivbench_core::{Column, CoreError, MeasuredSample, Sink, Split, Table, TableInfo};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

/// Every sample of every split.
static SAMPLES: LazyLock<Table<SampleRow>> = LazyLock::new(|| Table {
    name: "samples",
    about: "what each measured sample contributed to a split: sums over its components, averaged over its rotations; ratios of their sums over samples are the figures of curve.csv",
    columns: [
        vec![
            columns::version(),
            columns::step(|r: &SampleRow| r.moment.step),
            columns::weights(|r: &SampleRow| r.split.weights),
        ],
        columns::samples_measured(|r: &SampleRow| &*r.set),
        columns::condition(|r: &SampleRow| &r.split.condition),
        terms(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// One sample of one split.
struct SampleRow {
    moment: Moment,
    set: Arc<SetAbout>,
    split: Arc<Split>,
    sample: MeasuredSample,
}

fn terms() -> Vec<Column<SampleRow>> {
    vec![
        Column::new(
            "sample",
            "",
            "index in the measured split of the dataset",
            |r: &SampleRow| r.sample.index,
        ),
        Column::new(
            "group",
            "",
            "samples that are not independent of each other share a group (molecule, sequence cluster); where the dataset does not say, the sample itself",
            |r: &SampleRow| r.sample.group.to_string(),
        ),
        Column::new(
            "components",
            "",
            "what the loss sums are divided by: components of the prediction (rows for the loss l2), or 1 where every sample weighs the same",
            |r: &SampleRow| r.sample.terms.components,
        ),
        Column::new(
            "sum_total",
            "target²",
            "sum over components of the loss of the twisted predictions",
            |r: &SampleRow| r.sample.terms.loss_total,
        ),
        Column::new(
            "sum_equiv",
            "target²",
            "the part of it that is equivariance error",
            |r: &SampleRow| r.sample.terms.loss_equiv,
        ),
        Column::new(
            "sum_equiv_plug_in",
            "target²",
            "that part by the plug-in estimate",
            |r: &SampleRow| r.sample.terms.loss_equiv_plug_in,
        ),
        Column::new(
            "sum_baseline",
            "target²",
            "the loss of the task's baseline, summed alike",
            |r: &SampleRow| r.sample.baseline,
        ),
        Column::new(
            "sum_target_power",
            "target²",
            "sum of the squares of the target",
            |r: &SampleRow| r.sample.terms.power_target,
        ),
        Column::new(
            "sum_twirled_power",
            "target²",
            "sum of the squares of the twirled prediction",
            |r: &SampleRow| r.sample.terms.power_twirled,
        ),
        Column::new(
            "sum_spread",
            "target²",
            "sum of the squared distances of twisted predictions from the twirled one, whatever the loss",
            |r: &SampleRow| r.sample.terms.power_spread,
        ),
        Column::new(
            "prediction_components",
            "",
            "what the powers and the spread are divided by",
            |r: &SampleRow| r.sample.terms.prediction_components,
        ),
    ]
}

/// Which evaluations leave rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SamplesRows {
    /// Every one.
    All,
    /// The one after the last step.
    #[default]
    Last,
    /// None.
    None,
}

/// `[protocols.samples]`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct SamplesSettings {
    /// Which evaluations leave rows: `all`, `last` or `none`.
    pub rows: SamplesRows,
}

/// Writes what samples contributed.
pub(super) struct Samples {
    settings: SamplesSettings,
    schedule: Arc<Schedule>,
}

impl Protocol for Samples {
    const NAME: &'static str = "samples";
    const ABOUT: &'static str = "what each measured sample contributed to each split, for intervals and paired tests of one's own";
    type Settings = SamplesSettings;

    fn tables() -> Vec<TableInfo> {
        vec![SAMPLES.info()]
    }

    fn start(settings: SamplesSettings, schedule: Arc<Schedule>) -> Self {
        Self { settings, schedule }
    }

    fn due(&self, step: u64) -> bool {
        match self.settings.rows {
            SamplesRows::All => self.schedule.holds(step),
            SamplesRows::Last => step == self.schedule.total,
            SamplesRows::None => false,
        }
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let moment = *snapshot.moment();
        let sets = if moment.step == self.schedule.total {
            snapshot.sets()
        } else {
            vec![SetName::Measured]
        };
        for name in sets {
            let measured = snapshot.set(name)?;
            for split in &*measured.splits {
                for &sample in &split.samples {
                    let row = SampleRow {
                        moment,
                        set: Arc::clone(&measured.about),
                        split: Arc::clone(split),
                        sample,
                    };
                    SAMPLES.write(sink, &row)?;
                }
            }
        }
        Ok(())
    }
}

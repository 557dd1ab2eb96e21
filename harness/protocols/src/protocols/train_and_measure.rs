//! Protocol 1, train-and-measure: one row of `curve.csv` for each evaluation.

use crate::{
    NoSettings, Protocol, Schedule, SetName, Snapshot,
    columns::{self, SplitRow},
};
use equivbench_core::{CoreError, Sink, Table, TableInfo};
use std::sync::{Arc, LazyLock};

/// The curve of a run.
static CURVE: LazyLock<Table<SplitRow>> = LazyLock::new(|| Table {
    name: "curve",
    about: "loss and its split into twirled and equivariance part along training, one row for each evaluation, kind of weights and condition",
    columns: [
        columns::progress(),
        columns::condition(|r: &SplitRow| &r.split.condition),
        columns::losses(),
        columns::sampling(),
        columns::of_tasks(),
        columns::last_step(),
        columns::samples_measured(|r: &SplitRow| &*r.set),
        columns::method(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// Writes the curve.
pub(super) struct TrainAndMeasure(Arc<Schedule>);

impl Protocol for TrainAndMeasure {
    const NAME: &'static str = "train-and-measure";
    const ABOUT: &'static str = "train by the recipe and split the loss on a fixed validation subset on a log-spaced schedule";
    type Settings = NoSettings;

    fn tables() -> Vec<TableInfo> {
        vec![CURVE.info()]
    }

    fn start(_: NoSettings, schedule: Arc<Schedule>) -> Self {
        Self(schedule)
    }

    fn due(&self, step: u64) -> bool {
        self.0.holds(step)
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let measured = snapshot.set(SetName::Measured)?;
        SplitRow::of(snapshot, &measured).try_for_each(|row| CURVE.write(sink, &row))
    }
}

//! Protocol 3, final percent loss with its interval: one row of `final.csv` for each kind of weights and condition.

use crate::{
    NoSettings, Protocol, Schedule, Snapshot,
    columns::{self, SplitRow},
};
use equivbench_core::{CoreError, Sink, Table, TableInfo};
use std::sync::{Arc, LazyLock};

/// Where a run ended.
static FINAL: LazyLock<Table<SplitRow>> = LazyLock::new(|| Table {
    name: "final",
    about: "where each run ended, with intervals",
    columns: [
        columns::progress(),
        columns::condition(|r: &SplitRow| &r.split.condition),
        columns::losses(),
        columns::of_tasks(),
        columns::method(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// Asks once, after the last step.
pub(super) struct FinalPercent(Arc<Schedule>);

impl Protocol for FinalPercent {
    const NAME: &'static str = "final-percent";
    const ABOUT: &'static str =
        "percent loss from equivariance error at the end of training, with its interval";
    type Settings = NoSettings;

    fn tables() -> Vec<TableInfo> {
        vec![FINAL.info()]
    }

    fn start(_: NoSettings, schedule: Arc<Schedule>) -> Self {
        Self(schedule)
    }

    fn due(&self, step: u64) -> bool {
        step == self.0.total
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        for split in snapshot.splits()?.iter() {
            FINAL.write(sink, &SplitRow::new(snapshot, split))?;
        }
        Ok(())
    }
}

//! Protocol 3, final percent loss with its intervals: one row of `final.csv` for each set of samples, kind of weights and condition.
//!
//! Curves and choices are of the split `valid`; the split `test` is for reporting, and the whole of `valid` tells whether the measured
//! samples stood for it.

use crate::{
    NoSettings, Protocol, Schedule, Snapshot,
    columns::{self, SplitRow},
};
use equivbench_core::{CoreError, Sink, Table, TableInfo};
use std::sync::{Arc, LazyLock};

/// Where a run ended.
static FINAL: LazyLock<Table<SplitRow>> = LazyLock::new(|| Table {
    name: "final",
    about: "where each run ended: on the measured samples, on the whole split that they are drawn from, and on the split for reporting; intervals are those of sampling alone",
    columns: [
        columns::progress(),
        columns::samples_measured(|r: &SplitRow| &*r.set),
        columns::condition(|r: &SplitRow| &r.split.condition),
        columns::losses(),
        columns::sampling(),
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
        for name in snapshot.sets() {
            let measured = snapshot.set(name)?;
            SplitRow::of(snapshot, &measured).try_for_each(|row| FINAL.write(sink, &row))?;
        }
        Ok(())
    }
}

//! `equivbench compare`.

use crate::args::{CompareArgs, ComparisonFormat};
use equivbench_analysis::{
    CompareError, Selection, compare_tables, comparison_csv, comparison_text,
};
use equivbench_report::{MergedTable, read_merged};
use equivbench_runner::RunnerError;
use std::{io::Write, process::ExitCode};

/// Reads the tables of both sides and prints how they differ.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let config = |e: CompareError| RunnerError::Config(e.to_string());
    let (a, b) = (
        Selection::parse(&args.a).map_err(config)?,
        Selection::parse(&args.b).map_err(config)?,
    );
    let (tables_a, tables_b) = (tables(&a)?, tables(&b)?);
    let compared = compare_tables((&a, &tables_a), (&b, &tables_b)).map_err(config)?;
    match args.format {
        ComparisonFormat::Text => print!("{}", comparison_text(&compared)),
        ComparisonFormat::Csv => {
            std::io::stdout().write_all(&comparison_csv(&compared).map_err(config)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tables(of: &Selection) -> anyhow::Result<Vec<MergedTable>> {
    let mut all = Vec::new();
    for name in ["final", "samples"] {
        all.extend(read_merged(&of.folder, name)?);
    }
    Ok(all)
}

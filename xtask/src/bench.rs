//! `cargo xtask bench`: hot paths beside their floors, compared with the ratios of the committed baseline.
//!
//! Every bench is timed in turns with what it could cost at best, in one process, so a ratio says little about the machine and nothing
//! about who else used it on the whole. What is compared are these ratios, from several processes: layout of code and memory is drawn
//! anew in each of them. A bench is slower when all that was measured now lies above all that was measured then, by more than
//! [`MARGIN`]; it is measured a second time before it is named.

use crate::machine;
use anyhow::{Context, Result, bail};
use std::{fmt::Write as _, path::Path, process::Command};

/// Crates whose bench targets write ratios.
const CRATES: [&str; 2] = ["equivbench-micro", "equivbench-micro-plugins"];
/// Names the file that benches add their ratios to.
const RATIOS: &str = "EQUIVBENCH_MICRO_RATIOS";
const BASELINE: &str = "benchmarks/micro/baseline.csv";
const HEADER: &str = "bench,against,ratio,ratio_low,ratio_high,work_s,floor_s,processes,hardware";
/// Processes of one measurement.
const PROCESSES: usize = 3;
/// A change below this fraction is no change: another compiler or link order moves a loop of a few instructions as far.
const MARGIN: f64 = 0.1;

const USAGE: &str = "usage: cargo xtask bench [--save] [PART-OF-NAME]";

/// Measures and compares; with `--save` writes the baseline instead. Benches whose names lack the part keep their rows.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wish = Wish::read(arguments)?;
    let path = crate::root().join(BASELINE);
    let baseline = match std::fs::read_to_string(&path) {
        Ok(text) => read_baseline(&text).with_context(|| BASELINE.to_owned())?,
        Err(_) if wish.saves => Vec::new(),
        Err(error) => {
            bail!("{BASELINE} cannot be read ({error}); write one with cargo xtask bench --save")
        }
    };
    let measured = measure(&wish.part)?;
    if wish.saves {
        let rows = replaced(baseline, measured, &wish.part);
        std::fs::write(&path, written(&rows)).with_context(|| path.display().to_string())?;
        println!("{BASELINE}: {} benches", rows.len());
        return Ok(());
    }
    let measured = measured_again_where_slower(&baseline, measured)?;
    let report = Report::new(&baseline, &measured, &wish.part);
    print!("{}", report.table);
    report.verdict()
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
struct Wish {
    saves: bool,
    part: String,
}

impl Wish {
    fn read(arguments: &[String]) -> Result<Self> {
        let (flags, parts): (Vec<&str>, Vec<&str>) = arguments
            .iter()
            .map(String::as_str)
            .partition(|a| a.starts_with('-'));
        if flags.iter().any(|f| *f != "--save") || parts.len() > 1 {
            bail!("{} is not understood; {USAGE}", arguments.join(" "));
        }
        Ok(Self {
            saves: !flags.is_empty(),
            part: parts.first().map_or_else(String::new, |p| (*p).to_owned()),
        })
    }
}

/// One bench, measured: a row of the baseline.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    bench: String,
    against: String,
    ratio: f64,
    /// The least lower quartile and the greatest upper one of all processes.
    low: f64,
    high: f64,
    work_s: f64,
    floor_s: f64,
    processes: usize,
    hardware: String,
}

impl Row {
    /// Reads a line that a bench wrote: `name,against,work_s,floor_s,ratio,ratio_low,ratio_high,pairs`.
    fn of_process(line: &str, hardware: &str) -> Result<Self> {
        let [bench, against, work_s, floor_s, ratio, low, high, _pairs] = cells(line)?;
        Self::new([
            bench, against, ratio, low, high, work_s, floor_s, "1", hardware,
        ])
    }

    /// Reads a line of the baseline.
    fn of_baseline(line: &str) -> Result<Self> {
        Self::new(cells(line)?)
    }

    fn new(
        [
            bench,
            against,
            ratio,
            low,
            high,
            work_s,
            floor_s,
            processes,
            hardware,
        ]: [&str; 9],
    ) -> Result<Self> {
        let number = |what: &str, text: &str| {
            let found = text
                .parse::<f64>()
                .ok()
                .filter(|n| n.is_finite() && *n > 0.0);
            found.with_context(|| format!("{bench}: {what} \"{text}\" is no positive number"))
        };
        Ok(Self {
            bench: bench.to_owned(),
            against: against.to_owned(),
            ratio: number("ratio", ratio)?,
            low: number("ratio_low", low)?,
            high: number("ratio_high", high)?,
            work_s: number("work_s", work_s)?,
            floor_s: number("floor_s", floor_s)?,
            processes: processes
                .parse()
                .with_context(|| format!("{bench}: processes \"{processes}\""))?,
            hardware: hardware.to_owned(),
        })
    }

    fn line(&self) -> String {
        let Self {
            bench,
            against,
            ratio,
            low,
            high,
            work_s,
            floor_s,
            processes,
            hardware,
        } = self;
        format!(
            "{bench},{against},{ratio:.3},{low:.3},{high:.3},{work_s:.3e},{floor_s:.3e},{processes},{hardware}\n"
        )
    }
}

fn cells<const N: usize>(line: &str) -> Result<[&str; N]> {
    let cells: Vec<&str> = line.split(',').collect();
    let count = cells.len();
    cells
        .try_into()
        .map_err(|_| anyhow::anyhow!("{count} cells where {N} were expected: {line}"))
}

fn read_baseline(text: &str) -> Result<Vec<Row>> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        bail!("the header is not {HEADER}; write the file anew with cargo xtask bench --save");
    }
    lines.map(Row::of_baseline).collect()
}

fn written(rows: &[Row]) -> String {
    rows.iter()
        .fold(format!("{HEADER}\n"), |text, row| text + &row.line())
}

/// The rows of a new baseline, by name: what was measured, and what the part left out.
fn replaced(baseline: Vec<Row>, measured: Vec<Row>, part: &str) -> Vec<Row> {
    let kept = baseline.into_iter().filter(|row| !row.bench.contains(part));
    let mut rows: Vec<Row> = kept.chain(measured).collect();
    rows.sort_by(|a, b| a.bench.cmp(&b.bench));
    rows
}

/// Runs the benches whose names contain a part, in several processes each.
fn measure(part: &str) -> Result<Vec<Row>> {
    // Benches run in the folders of their crates.
    let file = std::path::absolute(crate::target().join("micro-ratios.csv"))?;
    std::fs::create_dir_all(crate::target())?;
    let _ = std::fs::remove_file(&file);
    let mut arguments = vec!["bench"];
    arguments.extend(CRATES.iter().flat_map(|name| ["--package", name]));
    arguments.push("--benches");
    crate::cargo(&[&arguments[..], &["--no-run"]].concat())?;
    arguments.extend(
        (!part.is_empty())
            .then_some(["--", part])
            .into_iter()
            .flatten(),
    );
    for _ in 0..PROCESSES {
        run_benches(&arguments, &file)?;
    }
    let lines = std::fs::read_to_string(&file);
    let lines = lines.with_context(|| {
        format!("no bench has a name with \"{part}\" in it; the names are in {BASELINE}")
    })?;
    let hardware = hardware();
    let rows: Vec<Row> = lines
        .lines()
        .map(|line| Row::of_process(line, &hardware))
        .collect::<Result<_>>()?;
    Ok(merged(rows))
}

fn run_benches(arguments: &[&str], ratios: &Path) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = command
        .args(arguments)
        .current_dir(crate::root())
        .env(RATIOS, ratios)
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// One row for each bench: the median process, and the spread of all.
fn merged(rows: Vec<Row>) -> Vec<Row> {
    let mut by_bench: Vec<(String, Vec<Row>)> = Vec::new();
    for row in rows {
        match by_bench.iter_mut().find(|(bench, _)| *bench == row.bench) {
            Some((_, own)) => own.push(row),
            None => by_bench.push((row.bench.clone(), vec![row])),
        }
    }
    by_bench
        .into_iter()
        .map(|(_, own)| of_processes(own))
        .collect()
}

fn of_processes(mut rows: Vec<Row>) -> Row {
    rows.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let low = rows.iter().map(|row| row.low).fold(f64::INFINITY, f64::min);
    let high = rows.iter().map(|row| row.high).fold(0.0, f64::max);
    Row {
        low,
        high,
        processes: rows.len(),
        ..rows[rows.len() / 2].clone()
    }
}

/// Measures once more what looks slower, and keeps the better of the two.
fn measured_again_where_slower(baseline: &[Row], measured: Vec<Row>) -> Result<Vec<Row>> {
    let again = |row: Row| -> Result<Row> {
        if Verdict::of(then(baseline, &row.bench), &row) != Verdict::Slower {
            return Ok(row);
        }
        println!("{} looks slower; it is measured again", row.bench);
        let second = measure(&row.bench)?
            .into_iter()
            .find(|other| other.bench == row.bench);
        Ok(second
            .filter(|other| other.ratio < row.ratio)
            .unwrap_or(row))
    };
    measured.into_iter().map(again).collect()
}

fn then<'a>(baseline: &'a [Row], bench: &str) -> Option<&'a Row> {
    baseline.iter().find(|row| row.bench == bench)
}

/// How a bench compares with its row of the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Slower,
    Faster,
    New,
}

impl Verdict {
    fn of(then: Option<&Row>, now: &Row) -> Self {
        match then {
            None => Self::New,
            // Another floor makes another ratio.
            Some(then) if then.against != now.against => Self::New,
            Some(then) if now.low > then.high && now.ratio > (1.0 + MARGIN) * then.ratio => {
                Self::Slower
            }
            Some(then) if now.high < then.low && (1.0 + MARGIN) * now.ratio < then.ratio => {
                Self::Faster
            }
            Some(_) => Self::Same,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Slower => "SLOWER",
            Self::Faster => "faster",
            Self::New => "new",
        }
    }
}

/// A table for people, and what is wrong.
struct Report {
    table: String,
    slower: Vec<String>,
    missing: Vec<String>,
}

impl Report {
    fn new(baseline: &[Row], measured: &[Row], part: &str) -> Self {
        let mut table = format!(
            "{:<30} {:>26} {:>26} {:>8}  {:<7} against\n",
            "bench", "then", "now", "change", "verdict"
        );
        let mut slower = Vec::new();
        let range = |row: &Row| format!("{:.2} [{:.2}, {:.2}]", row.ratio, row.low, row.high);
        for now in measured {
            let then = then(baseline, &now.bench);
            let verdict = Verdict::of(then, now);
            let change = then.map_or_else(String::new, |then| {
                format!("{:+.1}%", 100.0 * (now.ratio / then.ratio - 1.0))
            });
            let before = then.map_or_else(|| "-".into(), range);
            let _ = writeln!(
                table,
                "{:<30} {before:>26} {:>26} {change:>8}  {:<7} {}",
                now.bench,
                range(now),
                verdict.name(),
                now.against
            );
            slower.extend((verdict == Verdict::Slower).then(|| now.bench.clone()));
        }
        for elsewhere in other_hardware(baseline, measured) {
            let _ = writeln!(
                table,
                "part of the baseline is of other hardware ({elsewhere}): ratios move less than seconds, but they do"
            );
        }
        let is_missing =
            |row: &&Row| row.bench.contains(part) && then(measured, &row.bench).is_none();
        let missing = baseline
            .iter()
            .filter(is_missing)
            .map(|row| row.bench.clone())
            .collect();
        Self {
            table,
            slower,
            missing,
        }
    }

    fn verdict(&self) -> Result<()> {
        let mut wrong = Vec::new();
        if !self.slower.is_empty() {
            wrong.push(format!(
                "slower than {BASELINE}: {}",
                self.slower.join(", ")
            ));
        }
        if !self.missing.is_empty() {
            wrong.push(format!(
                "in {BASELINE} but not measured: {}",
                self.missing.join(", ")
            ));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        bail!(
            "{}; mend it, or if it is meant, cargo xtask bench --save",
            wrong.join("; ")
        )
    }
}

/// Hardware of rows of the baseline that is not the one of now.
fn other_hardware(baseline: &[Row], measured: &[Row]) -> Vec<String> {
    let elsewhere = |now: &Row| {
        then(baseline, &now.bench)
            .map(|row| row.hardware.clone())
            .filter(|hardware| *hardware != now.hardware)
    };
    let mut found: Vec<String> = measured.iter().filter_map(elsewhere).collect();
    found.sort();
    found.dedup();
    found
}

/// Processor and number of threads, as a cell of a table.
fn hardware() -> String {
    let model = machine::processor();
    let name = if model.is_empty() {
        std::env::consts::ARCH.to_owned()
    } else {
        model
    };
    // Virtual machines hide the model; family and model number tell it all the same.
    let numbers = ["cpu family", "model"]
        .map(machine::processor_fact)
        .join("/");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name} ({numbers}) with {threads} threads").replace(',', ";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bench: &str, [low, ratio, high]: [f64; 3]) -> Row {
        let [work_s, floor_s] = [ratio * 1e-3, 1e-3];
        let (against, hardware) = ("a copy".to_owned(), "a machine".to_owned());
        Row {
            bench: bench.to_owned(),
            against,
            ratio,
            low,
            high,
            work_s,
            floor_s,
            processes: 3,
            hardware,
        }
    }

    fn verdict(then: [f64; 3], now: [f64; 3]) -> Verdict {
        Verdict::of(Some(&row("a", then)), &row("a", now))
    }

    #[test]
    fn slower_is_what_lies_beyond_both_spreads_and_the_margin() {
        assert_eq!(verdict([1.9, 2.0, 2.1], [2.2, 2.3, 2.4]), Verdict::Slower);
        // The spreads meet.
        assert_eq!(verdict([1.9, 2.0, 2.1], [2.05, 2.3, 2.4]), Verdict::Same);
        // Apart, but by less than a tenth.
        assert_eq!(verdict([1.99, 2.0, 2.01], [2.1, 2.15, 2.2]), Verdict::Same);
        assert_eq!(verdict([1.9, 2.0, 2.1], [1.9, 2.0, 2.1]), Verdict::Same);
        // A noisy process on either side proves nothing.
        assert_eq!(verdict([0.5, 2.0, 9.0], [3.0, 4.0, 5.0]), Verdict::Same);
    }

    #[test]
    fn faster_is_the_mirror_image() {
        assert_eq!(verdict([2.2, 2.3, 2.4], [1.9, 2.0, 2.1]), Verdict::Faster);
        assert_eq!(verdict([2.1, 2.15, 2.2], [1.99, 2.0, 2.01]), Verdict::Same);
    }

    #[test]
    fn another_floor_or_no_row_makes_a_bench_new() {
        let now = row("a", [1.0, 2.0, 3.0]);
        let then = Row {
            against: "something else".into(),
            ratio: 0.1,
            high: 0.1,
            ..now.clone()
        };
        assert_eq!(Verdict::of(Some(&then), &now), Verdict::New);
        assert_eq!(Verdict::of(None, &now), Verdict::New);
    }

    #[test]
    fn processes_merge_into_their_median_and_the_spread_of_all() {
        let rows = vec![
            row("a", [2.0, 2.5, 2.6]),
            row("b", [1.0, 1.0, 1.0]),
            row("a", [1.5, 1.8, 1.9]),
            row("a", [2.1, 2.2, 3.5]),
        ];
        let merged = merged(rows);
        let found: Vec<_> = merged
            .iter()
            .map(|r| (r.bench.as_str(), r.low, r.ratio, r.high, r.processes))
            .collect();
        assert_eq!(found, [("a", 1.5, 2.2, 3.5, 3), ("b", 1.0, 1.0, 1.0, 1)]);
    }

    #[test]
    fn a_baseline_reads_back_and_damage_is_refused() {
        let rows = vec![row("a", [1.0, 2.0, 3.0]), row("b", [0.5, 0.625, 0.75])];
        assert_eq!(read_baseline(&written(&rows)).unwrap(), rows);
        let refused = |text: &str| format!("{:#}", read_baseline(text).unwrap_err());
        assert!(refused("bench,ratio\na,2\n").contains("--save"));
        assert!(refused(&written(&rows).replace("2.000", "two")).contains("a: ratio \"two\""));
        assert!(refused(&written(&rows).replace("2.000", "NaN")).contains("no positive number"));
        assert!(refused(&format!("{HEADER}\na,b\n")).contains("2 cells where 9 were expected"));
    }

    #[test]
    fn the_line_of_a_bench_is_read() {
        let read = Row::of_process("a/b,a copy,3e-3,2e-3,1.5,1,2,21", "a machine").unwrap();
        assert_eq!(
            read,
            Row {
                work_s: 3e-3,
                floor_s: 2e-3,
                processes: 1,
                ..row("a/b", [1.0, 1.5, 2.0])
            }
        );
        assert!(Row::of_process("a/b,a copy", "a machine").is_err());
    }

    #[test]
    fn saving_a_part_keeps_the_other_rows() {
        let baseline = vec![
            row("grids/a", [1.0; 3]),
            row("rotate/a", [1.0; 3]),
            row("rotate/gone", [1.0; 3]),
        ];
        let rows = replaced(
            baseline,
            vec![row("rotate/b", [2.0; 3]), row("rotate/a", [2.0; 3])],
            "rotate/",
        );
        let found: Vec<_> = rows.iter().map(|r| (r.bench.as_str(), r.ratio)).collect();
        assert_eq!(
            found,
            [("grids/a", 1.0), ("rotate/a", 2.0), ("rotate/b", 2.0)]
        );
    }

    #[test]
    fn a_report_names_what_is_slower_and_what_is_missing() {
        let baseline = vec![
            row("a", [1.0; 3]),
            row("b", [1.0; 3]),
            row("gone", [1.0; 3]),
        ];
        let report = Report::new(&baseline, &[row("a", [2.0; 3]), row("b", [1.05; 3])], "");
        assert_eq!(
            (report.slower.as_slice(), report.missing.as_slice()),
            (&["a".to_owned()][..], &["gone".to_owned()][..])
        );
        assert!(
            report.table.contains("+100.0%  SLOWER") && report.table.contains("+5.0%  same"),
            "{}",
            report.table
        );
        let message = report.verdict().unwrap_err().to_string();
        assert!(
            message.contains(": a;") && message.contains("not measured: gone"),
            "{message}"
        );
        assert!(
            Report::new(&baseline, &[row("a", [1.0; 3])], "a")
                .verdict()
                .is_ok()
        );
    }

    #[test]
    fn other_hardware_is_told() {
        let then = Row {
            hardware: "another".into(),
            ..row("a", [1.0; 3])
        };
        assert!(
            Report::new(&[then], &[row("a", [1.0; 3])], "")
                .table
                .contains("other hardware (another)")
        );
    }

    #[test]
    fn the_command_line_is_read() {
        let wish = |text: &str| {
            Wish::read(
                &text
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            wish("--save grids").unwrap(),
            Wish {
                saves: true,
                part: "grids".into()
            }
        );
        assert_eq!(
            wish("").unwrap(),
            Wish {
                saves: false,
                part: String::new()
            }
        );
        assert!(wish("--sav").unwrap_err().to_string().contains("usage:") && wish("a b").is_err());
    }

    #[test]
    fn hardware_is_one_cell_with_the_number_of_threads() {
        let found = hardware();
        assert!(
            !found.contains(',') && found.ends_with(" threads"),
            "{found}"
        );
    }
}

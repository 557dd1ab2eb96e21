//! What a bench target does: ratios for people and for the stored baseline, times for criterion.

use crate::{Case, Ratio, interleaved};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use std::{ffi::OsString, fs::OpenOptions, hint::black_box, io::Write, time::Duration};

/// Environment variable that names a file. Ratios are then added to it, a line for each case, and criterion is left out.
///
/// A line is `name,against,work_s,floor_s,ratio,ratio_low,ratio_high,pairs`.
pub const RATIOS: &str = "EQUIVBENCH_MICRO_RATIOS";

const PAIRS: usize = 21;

/// Runs cases as `cargo bench` asks for: all, those whose name contains the first free argument, or with `--test` each of them once.
///
/// A case that cannot be made says why, and the others run.
///
/// # Panics
/// When the file of [`RATIOS`] cannot be written.
pub fn run(cases: &[fn() -> Result<Case, String>]) {
    let arguments = Arguments::new(std::env::args().skip(1));
    let ratios = std::env::var_os(RATIOS);
    let mut criterion = Criterion::default().configure_from_args();
    for make in cases {
        let mut case = match make() {
            Ok(case) => case,
            Err(why) => {
                println!("skipped: {why}");
                continue;
            }
        };
        if !arguments.wants(case.name) {
            continue;
        }
        if !arguments.only_lists {
            let ratio = interleaved(
                if arguments.is_trial { 1 } else { PAIRS },
                &mut case.work,
                &mut case.floor,
            );
            println!("{}", case.tell(&ratio));
            if let Some(file) = &ratios {
                add(file, &case, &ratio)
                    .unwrap_or_else(|e| panic!("{RATIOS}={}: {e}", file.display()));
            }
        }
        if ratios.is_none() {
            show_criterion(&mut criterion, &mut case);
        }
    }
    if ratios.is_none() {
        criterion.final_summary();
    }
}

/// What matters here of the command line; criterion reads all of it.
struct Arguments {
    is_trial: bool,
    only_lists: bool,
    filter: Option<String>,
}

impl Arguments {
    fn new(arguments: impl Iterator<Item = String>) -> Self {
        let all: Vec<String> = arguments.collect();
        let has = |flag: &str| all.iter().any(|a| a == flag);
        // As criterion has it: what is not `cargo bench` tries the code and measures nothing.
        let is_trial = has("--test") || !has("--bench");
        let takes_value = |i: usize| {
            i > 0
                && all[i - 1].starts_with("--")
                && !["--bench", "--test", "--list"].contains(&all[i - 1].as_str())
        };
        let free = all
            .iter()
            .enumerate()
            .find(|(i, a)| !a.starts_with('-') && !takes_value(*i));
        Self {
            is_trial,
            only_lists: has("--list"),
            filter: free.map(|(_, a)| a.clone()),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    }
}

/// Adds the line of a case.
fn add(file: &OsString, case: &Case, ratio: &Ratio) -> std::io::Result<()> {
    let ([low, median, high], [work_s, floor_s]) = (ratio.quartiles, ratio.medians_s);
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(
        file,
        "{},{},{work_s:e},{floor_s:e},{median},{low},{high},{}",
        case.name, case.against, ratio.pairs
    )
}

fn show_criterion(criterion: &mut Criterion, case: &mut Case) {
    let (group, name) = case.name.split_once('/').unwrap_or(("other", case.name));
    let mut group = criterion.benchmark_group(group);
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    let amount = case.amounts.first().copied();
    count(&mut group, amount.map(|a| (a.unit, a.of_work)));
    group.bench_function(name, |b| b.iter(|| black_box(&mut case.work)()));
    group.finish();
}

fn count(group: &mut BenchmarkGroup<'_, WallTime>, amount: Option<(&str, f64)>) {
    match amount {
        Some(("bytes", n)) => group.throughput(Throughput::Bytes(n as u64)),
        Some((_, n)) => group.throughput(Throughput::Elements(n as u64)),
        None => group,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Arguments {
        Arguments::new(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_first_free_argument_is_the_part_of_a_name() {
        let given = arguments("--bench --sample-size 50 rotate");
        assert!(given.wants("rotate/batch") && !given.wants("grids/average") && !given.is_trial);
        assert!(arguments("--bench").wants("grids/average"));
    }

    #[test]
    fn without_bench_or_with_test_every_case_is_only_tried() {
        assert!(arguments("--bench --test rotate").is_trial && arguments("").is_trial);
        assert!(
            arguments("--bench --test rotate").wants("rotate")
                && arguments("--bench --list").only_lists
        );
    }

    #[test]
    fn a_line_of_the_file_has_the_cells_in_their_order() {
        let file =
            std::env::temp_dir().join(format!("equivbench-micro-{}.csv", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let ratio = Ratio {
            quartiles: [1.0, 1.5, 2.0],
            medians_s: [3e-3, 2e-3],
            pairs: 21,
        };
        add(
            &file.clone().into_os_string(),
            &Case::new("a/b", "a copy", || (), || ()),
            &ratio,
        )
        .unwrap();
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "a/b,a copy,3e-3,2e-3,1.5,1,2,21\n"
        );
        std::fs::remove_file(&file).unwrap();
    }
}

//! Taking turns, and what the seconds of many turns say.

use super::process::Process;
use anyhow::Result;

/// The programs of one comparison.
pub(crate) struct Sides {
    pub(crate) ours: Process,
    pub(crate) eager: Process,
    /// None where there is no `torch.compile`, or it was not asked for.
    pub(crate) compiled: Option<Process>,
}

impl Sides {
    /// Every program does the request once in each round; who is first, changes from round to round.
    pub(crate) fn interleave(&mut self, request: &str, rounds: usize) -> Result<Seconds> {
        let mut sides: Vec<&mut Process> = [&mut self.ours, &mut self.eager]
            .into_iter()
            .chain(&mut self.compiled)
            .collect();
        let mut seconds = vec![Vec::with_capacity(rounds); sides.len()];
        for round in 0..rounds {
            for turn in 0..sides.len() {
                let side = (round + turn) % sides.len();
                seconds[side].push(sides[side].figure(request, "seconds")?);
            }
        }
        let mut seconds = seconds.into_iter();
        let mut next = || seconds.next().unwrap_or_default();
        Ok(Seconds {
            ours: next(),
            eager: next(),
            compiled: next(),
        })
    }

    /// Asks the compiled one for something; if that fails it is told and left out.
    pub(crate) fn try_compiled<T>(
        &mut self,
        ask: impl FnOnce(&mut Process) -> Result<T>,
    ) -> Option<T> {
        let answer = ask(self.compiled.as_mut()?);
        answer
            .inspect_err(|error| {
                eprintln!("xtask: without torch.compile: {error:#}");
                self.compiled = None;
            })
            .ok()
    }
}

/// Starts the compiled one; if that fails it is told and left out.
pub(crate) fn start_compiled(
    wanted: bool,
    start: impl FnOnce() -> Result<Process>,
) -> Option<Process> {
    if !wanted {
        return None;
    }
    start()
        .inspect_err(|error| eprintln!("xtask: without torch.compile: {error:#}"))
        .ok()
}

/// Seconds of every round, one list for each program; the last one is empty where it did not take part.
#[derive(Debug)]
pub(crate) struct Seconds {
    ours: Vec<f64>,
    eager: Vec<f64>,
    compiled: Vec<f64>,
}

/// Ratio of neighbours, ours over theirs: median and quartiles.
#[derive(Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    low: f64,
    high: f64,
}

impl Seconds {
    pub(crate) fn rounds(&self) -> usize {
        self.ours.len()
    }

    pub(crate) fn eager(&self) -> Option<Ratio> {
        ratio(&self.ours, &self.eager)
    }

    /// Cells of a table, in the order of [`Seconds::COLUMNS`]; empty where nothing was measured.
    pub(crate) fn cells(&self) -> Vec<String> {
        let medians = [&self.ours, &self.eager, &self.compiled]
            .map(|seconds| cell(quantile(seconds, 0.5), 7));
        let ratios = [
            ratio(&self.ours, &self.eager),
            ratio(&self.ours, &self.compiled),
        ];
        let ratios = ratios.iter().flat_map(|ratio| {
            let parts = ratio.as_ref().map(|r| [r.median, r.low, r.high]);
            [0, 1, 2].map(|part| cell(parts.map(|parts| parts[part]), 3))
        });
        medians
            .into_iter()
            .chain(ratios)
            .chain([self.rounds().to_string(), super::THREADS.to_owned()])
            .collect()
    }

    pub(crate) const COLUMNS: [&'static str; 11] = [
        "ours_s",
        "torch_eager_s",
        "torch_compiled_s",
        "ratio_eager",
        "ratio_eager_p25",
        "ratio_eager_p75",
        "ratio_compiled",
        "ratio_compiled_p25",
        "ratio_compiled_p75",
        "pairs",
        "threads",
    ];

    /// What a person reads.
    pub(crate) fn sentence(&self) -> String {
        let against = |name: &str, theirs: &[f64]| {
            let (seconds, ratio) = (quantile(theirs, 0.5)?, ratio(&self.ours, theirs)?);
            Some(format!(
                ", {name} {seconds:.4} s: ratio {:.2} [{:.2}, {:.2}]",
                ratio.median, ratio.low, ratio.high
            ))
        };
        let ours = quantile(&self.ours, 0.5).unwrap_or(f64::NAN);
        let sides = [
            against("eager", &self.eager),
            against("compiled", &self.compiled),
        ]
        .into_iter()
        .flatten()
        .collect::<String>();
        format!("ours {ours:.4} s{sides} ({} pairs)", self.rounds())
    }
}

/// A figure with some decimals; empty for none.
pub(crate) fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
}

fn ratio(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    Some(Ratio {
        median: quantile(&ratios, 0.5)?,
        low: quantile(&ratios, 0.25)?,
        high: quantile(&ratios, 0.75)?,
    })
}

/// By linear interpolation between the neighbours in order; none of nothing.
fn quantile(values: &[f64], fraction: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = fraction * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    Some(below + place.fract() * (above - below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_straight_line_lie_on_it() {
        let values: Vec<f64> = (0..=8).rev().map(f64::from).collect();
        assert_eq!(
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|f| quantile(&values, f)),
            [0.0, 2.0, 4.0, 6.0, 8.0].map(Some)
        );
        assert_eq!(quantile(&[1.0, 2.0], 0.5), Some(1.5));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn ratios_are_those_of_neighbours_and_cells_of_what_did_not_run_are_empty() {
        let seconds = Seconds {
            ours: vec![1.0, 2.0, 3.0],
            eager: vec![2.0, 4.0, 3.0],
            compiled: Vec::new(),
        };
        assert_eq!(
            seconds.eager(),
            Some(Ratio {
                median: 0.5,
                low: 0.5,
                high: 0.75
            })
        );
        let cells = seconds.cells();
        assert_eq!(cells.len(), Seconds::COLUMNS.len());
        assert_eq!(
            cells[..6],
            ["2.0000000", "3.0000000", "", "0.500", "0.500", "0.750"]
        );
        assert_eq!(cells[6..], ["", "", "", "3", super::super::THREADS]);
    }
}

//! Fused operations beside PyTorch's own: `benchmarks/peers/kernels.csv`.

use super::{
    Request,
    interleave::{Seconds, Sides, start_compiled},
    process::{Process, example, script},
    summary,
    table::Table,
};
use crate::machine;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What every operation may take of PyTorch's time.
const GOAL: f64 = 1.2;
/// Seconds of one turn, so that waking up does not count.
const TURN_S: f64 = 0.02;
const MOST_RUNS: f64 = 200.0;
/// Of a dot product or a norm, relative to the norm. Both sides round every element to f32, so an element is off by some 1e-7 of the
/// terms it was added up from; those of gradients of weights are sums of up to 10^5 terms, which cancel.
const TOLERANCE: f64 = 1e-4;
/// Of the norm of a result with dropout, of which every side drops other elements: with n elements the norm varies by about
/// `sqrt(p / (2 n))`, below 0.01 for attention among 17600 elements at 0.1.
const RANDOM_TOLERANCE: f64 = 0.05;

/// Measures the operations that are asked for.
pub(crate) fn run(request: &Request) -> Result<()> {
    crate::cargo(&[
        "build",
        "--release",
        "-p",
        "equivbench-kernels",
        "--example",
        "kernel_speed",
    ])?;
    let mut sides = start(request.compiled)?;
    let kernels = listed(&sides)?;
    let order: Vec<Vec<String>> = kernels
        .iter()
        .map(|kernel| vec![kernel.name.clone()])
        .collect();
    let columns = ["kernel", "shape", "torch_op"]
        .into_iter()
        .chain(Seconds::COLUMNS)
        .chain(["processor", "instructions", "torch"]);
    let mut table = Table::read(super::folder().join("kernels.csv"), columns.collect(), 1)?;
    let torch = sides.eager.description["torch"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let wanted = request.select(kernels.iter().map(|kernel| kernel.name.as_str()))?;
    // A compiled process that could not do one operation may do the next, but not if there was none to begin with.
    let with_compiled = sides.compiled.is_some();
    let (mut failed, mut slow) = (Vec::new(), Vec::new());
    for kernel in kernels
        .iter()
        .filter(|kernel| wanted.contains(&kernel.name.as_str()))
    {
        match measure(kernel, &mut sides, request.pairs) {
            Ok(seconds) => {
                println!(
                    "{} ({}; {}): {}",
                    kernel.name,
                    kernel.shape,
                    kernel.theirs.torch_op,
                    seconds.sentence()
                );
                let above = seconds.eager().filter(|ratio| ratio.median > GOAL);
                slow.extend(above.map(|ratio| format!("{} {:.2}", kernel.name, ratio.median)));
                table.put(row(kernel, &seconds, &torch), &order)?;
            }
            Err(error) => {
                eprintln!("xtask: {}: {error:#}", kernel.name);
                failed.push(kernel.name.clone());
                // Whoever failed may be gone.
                sides = start(with_compiled)?;
            }
        }
        if sides.compiled.is_none() {
            sides.compiled = start_compiled(with_compiled, compiled);
        }
    }
    if !slow.is_empty() {
        println!("above {GOAL} of PyTorch's own: {}", slow.join(", "));
    }
    summary(&failed)
}

fn row(kernel: &Kernel, seconds: &Seconds, torch: &str) -> Vec<String> {
    let first = [&kernel.name, &kernel.shape, &kernel.theirs.torch_op].map(String::clone);
    let last = [
        machine::processor(),
        machine::instructions().to_owned(),
        torch.to_owned(),
    ];
    first
        .into_iter()
        .chain(seconds.cells())
        .chain(last)
        .collect()
}

fn start(with_compiled: bool) -> Result<Sides> {
    let eager = Process::start("PyTorch", script("time_kernels.py"))
        .context("pip install -r benchmarks/peers/requirements.txt")?;
    Ok(Sides {
        ours: Process::start("ours", example("kernel_speed"))?,
        eager,
        compiled: start_compiled(with_compiled, compiled),
    })
}

fn compiled() -> Result<Process> {
    let mut command = script("time_kernels.py");
    command.arg("--compile");
    Process::start("torch.compile", command)
}

struct Kernel {
    name: String,
    shape: String,
    theirs: Theirs,
}

/// PyTorch's counterpart, as the script describes it.
#[derive(Deserialize)]
struct Theirs {
    torch_op: String,
    /// Whether results depend on random numbers, of which the two sides have other ones.
    random: bool,
}

/// The operations that both sides know.
fn listed(sides: &Sides) -> Result<Vec<Kernel>> {
    let [ours, theirs] =
        [&sides.ours, &sides.eager].map(|process| process.description["kernels"].clone());
    let ours: Vec<[String; 2]> =
        serde_json::from_value(ours).context("kernel_speed lists its operations in another way")?;
    let mut theirs: BTreeMap<String, Theirs> = serde_json::from_value(theirs)
        .context("time_kernels.py lists its operations in another way")?;
    let kernel = |[name, shape]: [String; 2]| {
        let theirs = theirs
            .remove(&name)
            .with_context(|| format!("time_kernels.py has nothing beside {name}"))?;
        Ok(Kernel {
            name,
            shape,
            theirs,
        })
    };
    let kernels = ours.into_iter().map(kernel).collect::<Result<Vec<_>>>()?;
    ensure!(
        theirs.is_empty(),
        "kernel_speed has nothing beside {}",
        theirs.into_keys().collect::<Vec<_>>().join(", ")
    );
    Ok(kernels)
}

fn measure(kernel: &Kernel, sides: &mut Sides, pairs: usize) -> Result<Seconds> {
    let check = format!("check {}", kernel.name);
    let ours = sides.ours.ask(&check)?;
    agree(&ours, &sides.eager.ask(&check)?, kernel.theirs.random)?;
    sides.try_compiled(|compiled| agree(&ours, &compiled.ask(&check)?, kernel.theirs.random));
    let once = format!("time {} 1", kernel.name);
    let slowest = sides
        .ours
        .figure(&once, "seconds")?
        .max(sides.eager.figure(&once, "seconds")?);
    sides.try_compiled(|compiled| compiled.figure(&once, "seconds"));
    let runs = (TURN_S / slowest).ceil().clamp(1.0, MOST_RUNS);
    sides.interleave(&format!("time {} {runs}", kernel.name), pairs)
}

/// Refuses results or gradients that are not the same up to rounding.
fn agree(ours: &Value, theirs: &Value, random: bool) -> Result<()> {
    let values = |answer: &Value| -> Result<Vec<[f64; 2]>> {
        Ok(serde_json::from_value(answer["values"].clone())?)
    };
    let (ours, theirs) = (values(ours)?, values(theirs)?);
    ensure!(
        ours.len() == theirs.len(),
        "{} gradients on our side, {} on PyTorch's",
        ours.len(),
        theirs.len()
    );
    // With random numbers, gradients of weights may be sums that cancel, so that little is left to compare.
    let compared = if random { 2 } else { ours.len() };
    for (index, ([dot, norm], [their_dot, their_norm])) in
        ours.into_iter().zip(theirs).take(compared).enumerate()
    {
        let what = if index == 0 {
            "the result".to_owned()
        } else {
            format!("gradient {index}")
        };
        let tolerance = if random { RANDOM_TOLERANCE } else { TOLERANCE } * their_norm;
        ensure!(
            (norm - their_norm).abs() <= tolerance,
            "the norm of {what} is {norm}, PyTorch's {their_norm}"
        );
        ensure!(
            random || (dot - their_dot).abs() <= tolerance,
            "a product with {what} is {dot}, PyTorch's {their_dot} (norm {norm})"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rounding_agrees_and_a_missing_factor_does_not() {
        let theirs = json!({"values": [[1.0, 10.0], [2.0, 20.0]]});
        let off = |factor: f64| json!({"values": [[1.0, 10.0], [2.0 * factor, 20.0 * factor]]});
        agree(&off(1.0 + 1e-6), &theirs, false).unwrap();
        assert!(agree(&off(1.01), &theirs, false).is_err());
        agree(&off(1.01), &theirs, true).unwrap();
        assert!(agree(&off(0.5), &theirs, true).is_err());
        assert!(agree(&json!({"values": [[1.0, 10.0]]}), &theirs, false).is_err());
    }
}

//! The clocks of a worker.

use equivbench_core::Clock;
use std::{cell::Cell, time::Instant};

/// Wall time and the peak memory of this process.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now_s(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    fn cpu_s(&self) -> Option<f64> {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9)
    }

    fn peak_memory_bytes(&self) -> Option<u64> {
        peak_memory_bytes("self")
    }
}

/// A clock that counts optimiser steps, 1/1024 s each: timing columns then repeat from run to run, byte for byte. A power of two, so
/// that differences are exact wherever a resumed run begins to count.
#[derive(Default)]
pub struct StepClock(Cell<u64>);

impl Clock for StepClock {
    fn now_s(&self) -> f64 {
        self.0.get() as f64 / 1024.0
    }

    fn step_done(&self) {
        self.0.set(self.0.get() + 1);
    }

    fn is_wall(&self) -> bool {
        false
    }

    fn peak_memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// Peak resident memory of a process (`self` or its id), where the system tells.
#[must_use]
pub fn peak_memory_bytes(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

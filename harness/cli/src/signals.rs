//! Ctrl-C and SIGTERM. Handlers stand before anything else is done, in the program and in its workers.

use crate::exit;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What signals asked for, and what the next one does.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    ends_at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers. At first a signal ends the process at once, with the code of a stop: nothing was begun.
    pub(crate) fn install() -> std::io::Result<Self> {
        let signals = Self {
            stop: Arc::new(AtomicBool::new(false)),
            ends_at_once: Arc::new(AtomicBool::new(true)),
        };
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in the order of their registration: a signal that is the second finds the flag of the first.
            let code = i32::from(exit::STOPPED);
            flag::register_conditional_shutdown(signal, code, Arc::clone(&signals.ends_at_once))?;
            flag::register(signal, Arc::clone(&signals.ends_at_once))?;
            flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// From now on the first signal raises the flag, which asks for a checkpoint and an end; the second ends at once.
    pub(crate) fn as_flag(&self) -> &AtomicBool {
        self.ends_at_once.store(false, Ordering::SeqCst);
        &self.stop
    }
}

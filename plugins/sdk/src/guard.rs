//! A panic in a plugin stops here and arrives at the host as an error with its place.

use crate::{PluginError, PluginResult};
use equivbench_abi::{
    AbiResult,
    abi_stable::std_types::{RErr, ROk},
};
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}
static HOOK: Once = Once::new();

/// Runs a call; turns an error or a panic into the error that crosses the boundary.
pub(crate) fn guard<T>(call: impl FnOnce() -> PluginResult<T>) -> AbiResult<T> {
    HOOK.call_once(record_panics);
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => ROk(value),
        Ok(Err(error)) => RErr(error.into()),
        Err(payload) => RErr(PluginError::Panic(describe(payload.as_ref())).into()),
    }
}

/// The hook belongs to this library's own copy of std, so it touches no other plugin and not the host.
fn record_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map(ToString::to_string)
            .unwrap_or_else(|| "unknown place".into());
        LAST_PANIC.with(|last| *last.borrow_mut() = Some(place));
    }));
}

fn describe(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "payload without text".into());
    match LAST_PANIC.with(|last| last.borrow_mut().take()) {
        Some(place) => format!("{text} (at {place})"),
        None => text,
    }
}

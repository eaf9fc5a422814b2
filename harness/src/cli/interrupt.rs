//! Ctrl-C, and what a supervisor such as a CI system sends when its time is over: both get the reports of what ran so far.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::signal::unix::{SignalKind, signal};

/// Sets `stop` at the first signal; running attempts end first. The second one ends the process at once.
pub(super) async fn interrupted(stop: Arc<AtomicBool>) {
    let (Ok(mut pressed), Ok(mut told)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    while let Some(()) = tokio::select! {
        asked = pressed.recv() => asked,
        asked = told.recv() => asked,
    } {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("interrupted: running attempts end first; once more to leave at once");
    }
}

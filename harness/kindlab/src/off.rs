//! Makes a future of work that blocks.
//!
//! The work is done on a thread of its own. Dropping the future asks it to stop, and then *waits* until it has wound down: when `drop` returns, its
//! program has been killed, and what an interrupted creation had made has been deleted. A thread, and not the runtime's pool: a runtime
//! that shuts down starts no more work, and nobody would come to delete anything.

use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot;

use crate::error::{KindError, Result};
use crate::run::{Cancel, CancelOnDrop};

/// Does the work on a thread; see the module.
pub(crate) async fn off<T: Send + 'static>(
    work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (cancel_on_drop, cancel) =
        Cancel::pair().map_err(|error| KindError::system("make a pipe", error))?;
    let (sender, receiver) = oneshot::channel();
    let thread = Builder::new()
        .name("kindlab".to_owned())
        .spawn(move || {
            let _ = sender.send(work(&cancel));
        })
        .map_err(|error| KindError::system("start a thread", error))?;
    let mut guard = Guard {
        cancel: Some(cancel_on_drop),
        thread: Some(thread),
    };
    let answer = receiver.await;
    let ended = guard.join();
    match (answer, ended) {
        (Ok(answer), _) => answer,
        (Err(_), Err(panic)) => resume_unwind(panic),
        (Err(_), Ok(())) => Err(KindError::Cancelled {
            what: "the work".to_owned(),
        }),
    }
}

struct Guard {
    cancel: Option<CancelOnDrop>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    fn join(&mut self) -> std::thread::Result<()> {
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cancel = None;
        // A panic there has been printed, and there is nobody to hand it to.
        let _ = self.join();
    }
}

//! The one thread that starts worlds.
//!
//! A world's processes ask the kernel for SIGKILL at the death of their parent, and for the kernel that
//! parent is the *thread* that spawned them. Threads of a runtime come and go; this one stays.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc;

use tokio::sync::oneshot;

type Job = (Command, oneshot::Sender<io::Result<Child>>);

static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();

/// Spawns a child that may ask to die with its parent.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    let (answer, answered) = oneshot::channel();
    let gone = || io::Error::other("the spawning thread is gone");
    let spawner = SPAWNER.get_or_init(start);
    spawner.send((command, answer)).map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?
}

fn start() -> mpsc::Sender<Job> {
    let (send, jobs) = mpsc::channel::<Job>();
    let thread = std::thread::Builder::new().name("netlab-spawner".to_owned());
    // When this fails, `jobs` is dropped and every spawn reports it.
    let _ = thread.spawn(move || {
        for (mut command, answer) in jobs {
            let child = command.spawn();
            // The command holds the child's ends of pipes and sockets.
            drop(command);
            if let Err(Ok(mut child)) = answer.send(child) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    });
    send
}

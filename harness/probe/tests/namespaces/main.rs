//! The agent end to end: two of them in namespaces of their own, real packets between them.

mod cases;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use world::{NoWorld, World};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Before anything starts a thread.
    if args.first().is_some_and(|a| a == "__world") {
        world::main(&args[1..]);
    }
    libtest_mimic::run(&Arguments::from_args(), cases::all()).exit_code()
}

/// A test in a world of its own; ignored with the reason where worlds are not possible.
fn case<F>(name: &str, run: impl FnOnce(World) -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    Trial::ignorable_test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match World::build().await {
                Ok(world) => {
                    run(world).await;
                    Ok(Completion::Completed)
                }
                Err(NoWorld::Forbidden) => {
                    eprintln!("skipped: this machine forbids user namespaces");
                    Ok(Completion::ignored_with(
                        "this machine forbids user namespaces",
                    ))
                }
                Err(NoWorld::Failed(why)) => Err(Failed::from(why)),
            }
        })
    })
}

//! One binary, several callers: what it does besides being the command.

use std::{ffi::OsString, process::ExitCode};

use crate::cluster::real::gateway;

/// Takes the part that the first argument names: the first process of a world, the bundled reference proxy, the client of a
/// benchmark, an agent in a container and the process that holds the container for it, a gateway to an API server, a nemesis of the machine, or a soak's burden on it. `None` when it names none of these, so that the caller is what it says it is.
///
/// Every binary that builds worlds calls this first thing in `main`: a world needs a process without threads, and the
/// reference candidate is started from the running binary.
pub fn dispatch(args: &[OsString]) -> Option<ExitCode> {
    match args.get(1)?.to_str()? {
        netlab::SUBCOMMAND => {
            let rest: Vec<String> = args[2..]
                .iter()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect();
            netlab::world_main(&rest)
        }
        "reference-proxy" => {
            let rest = std::iter::once("reference-proxy".into()).chain(args[2..].iter().cloned());
            Some(reference_proxy::main_with_args(rest.collect()))
        }
        crate::nemesis::SUBCOMMAND => {
            let rest = args[2..].iter();
            let rest: Vec<String> = rest.map(|arg| arg.to_string_lossy().into_owned()).collect();
            Some(crate::nemesis::hog_main(&rest))
        }
        "agent" => Some(agent_main()),
        "hold" => hold_main(),
        gateway::SUBCOMMAND => Some(gateway::process::main(args.get(2)?.to_str()?)),
        crate::bench::WATCHER => Some(crate::bench::watcher_main()),
        crate::soak::BURDEN => Some(crate::soak::burden_main(&args[2..])),
        _ => None,
    }
}

/// An agent on stdin and stdout: in a container, where none can be forked off the harness.
fn agent_main() -> ExitCode {
    use std::os::fd::AsFd as _;
    let fds = (
        std::io::stdin().as_fd().try_clone_to_owned(),
        std::io::stdout().as_fd().try_clone_to_owned(),
    );
    let (Ok(read), Ok(write)) = fds else {
        eprintln!("agent: stdin and stdout must be open");
        return ExitCode::from(2);
    };
    match probe::agent::run(read, write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: its channel failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first process of a container in which agents are started: it does nothing until it is killed. As the first one it gets no signal that it does
/// not ask for, so SIGTERM is the beginning of a termination and not its end.
fn hold_main() -> ! {
    loop {
        nix::unistd::pause();
    }
}

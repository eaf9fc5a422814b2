//! The probe agent on stdin and stdout, for places where the harness cannot fork one: inside a real pod.

use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    let fds = (
        std::io::stdin().as_fd().try_clone_to_owned(),
        std::io::stdout().as_fd().try_clone_to_owned(),
    );
    let (Ok(read), Ok(write)) = fds else {
        eprintln!("probe: stdin and stdout must be open");
        return ExitCode::from(2);
    };
    match probe::agent::run(read, write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("probe: channel failed: {e}");
            ExitCode::FAILURE
        }
    }
}

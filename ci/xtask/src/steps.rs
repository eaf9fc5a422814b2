//! Runs commands one after the other, stops at the first that fails, and remembers how long each took.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A command with a name and the exit code that counts as success.
pub struct Step {
    name: &'static str,
    command: Command,
    exit: i32,
}

impl Step {
    /// A command that has to exit with 0.
    pub fn new(name: &'static str, command: Command) -> Self {
        Self {
            name,
            command,
            exit: 0,
        }
    }

    /// The same with another exit code, and no other.
    pub fn expect_exit(mut self, exit: i32) -> Self {
        self.exit = exit;
        self
    }
}

/// The steps run so far.
#[derive(Default)]
pub struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    /// Runs a step with this process's own standard streams.
    ///
    /// # Errors
    /// When the command cannot be started or exits with anything but the expected code; the text names the step.
    pub fn run(&mut self, mut step: Step) -> anyhow::Result<()> {
        println!("\n=== {}", step.name);
        let start = Instant::now();
        let status = step.command.status();
        let took = start.elapsed();
        let ok = matches!(&status, Ok(status) if status.code() == Some(step.exit));
        self.done.push((step.name, took, ok));
        let status = status.with_context(|| format!("start {:?}", step.command.get_program()))?;
        if !ok {
            let wanted = match step.exit {
                0 => String::new(),
                exit => format!(", wanted exit status: {exit}"),
            };
            bail!("{}: {status}{wanted}", step.name);
        }
        Ok(())
    }

    /// Prints one line per step: whether it succeeded and how long it took.
    pub fn print_durations(&self) {
        println!();
        for (name, took, ok) in &self.done {
            let word = if *ok { "ok" } else { "FAILED" };
            println!("{word:>8} {:>8.1} s  {name}", took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exits(code: i32) -> Step {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exit {code}")]);
        Step::new("say goodbye", command)
    }

    #[test]
    fn only_the_expected_exit_code_is_success() {
        for (step, ok) in [
            (exits(0), true),
            (exits(3), false),
            (exits(1).expect_exit(1), true),
            (exits(0).expect_exit(1), false),
            (exits(4).expect_exit(1), false),
        ] {
            let mut steps = Steps::default();
            assert_eq!(steps.run(step).is_ok(), ok);
            assert_eq!(steps.done.len(), 1);
            assert_eq!(steps.done[0].2, ok);
        }
    }

    #[test]
    fn errors_name_the_step_and_the_status() {
        let mut steps = Steps::default();
        let error = steps.run(exits(0).expect_exit(1)).unwrap_err().to_string();
        assert_eq!(error, "say goodbye: exit status: 0, wanted exit status: 1");
        let missing = Step::new("nothing", Command::new("/nonexistent/command"));
        assert!(steps.run(missing).is_err());
    }

    #[test]
    fn a_command_that_dies_of_a_signal_is_no_success() {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -KILL $$"]);
        let mut steps = Steps::default();
        assert!(steps.run(Step::new("die", command)).is_err());
    }
}

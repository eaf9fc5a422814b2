//! Which stress the attempts that begin now are under.
//!
//! The kinds follow one another in phases. What burdens the machine as a whole is felt by every attempt that is under way, so before such a
//! phase begins or ends, attempts under way end first: then what the log says of an attempt is all that it was under.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::run::stress::Stress;

/// A phase ends after so many attempts,
const ATTEMPTS: u32 = 100;
/// or after this time. Waiting for the last attempts costs a second or two of it.
const TIME: Duration = Duration::from_secs(20);

/// Kinds of stress in turn.
pub struct Rotation {
    kinds: Vec<Option<Arc<dyn Stress>>>,
    phase: usize,
    begun: Option<Instant>,
    attempts: u32,
}

/// What an attempt is to begin under.
pub enum Turn {
    /// Under this, or under nothing.
    Go(Option<Arc<dyn Stress>>),
    /// Not before the attempts under way have ended.
    Wait,
}

impl Rotation {
    /// These kinds in turn, from the phase with this number on; `None` is a phase without stress.
    pub fn new(kinds: Vec<Option<Arc<dyn Stress>>>, phase: usize) -> Self {
        Self {
            phase: phase % kinds.len().max(1),
            kinds,
            begun: None,
            attempts: 0,
        }
    }

    /// An attempt is about to begin, with so many under way.
    pub fn turn(&mut self, under_way: usize) -> Turn {
        if self.kinds.is_empty() {
            return Turn::Go(None);
        }
        let over = self
            .begun
            .is_some_and(|begun| self.attempts >= ATTEMPTS || begun.elapsed() >= TIME);
        if over {
            let next = (self.phase + 1) % self.kinds.len();
            let wide = |phase: usize| {
                let kind: &Option<Arc<dyn Stress>> = &self.kinds[phase];
                kind.as_ref().is_some_and(|stress| stress.is_machine_wide())
            };
            if under_way > 0 && (wide(self.phase) || wide(next)) {
                return Turn::Wait;
            }
            self.end();
            self.phase = next;
        }
        if self.begun.is_none() {
            self.begun = Some(Instant::now());
            if let Some(stress) = &self.kinds[self.phase]
                && let Err(error) = stress.begin()
            {
                let name = stress.name();
                tracing::error!("'{name}' cannot be begun and is left out: {error}");
                self.kinds[self.phase] = None;
            }
        }
        self.attempts += 1;
        Turn::Go(self.kinds[self.phase].clone())
    }

    fn end(&mut self) {
        if self.begun.take().is_some()
            && let Some(stress) = &self.kinds[self.phase]
        {
            stress.end();
        }
        self.attempts = 0;
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Recorded {
        name: &'static str,
        wide: bool,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl Stress for Recorded {
        fn name(&self) -> String {
            self.name.into()
        }

        fn is_machine_wide(&self) -> bool {
            self.wide
        }

        fn begin(&self) -> std::io::Result<()> {
            if self.name == "broken" {
                return Err(std::io::Error::other("no"));
            }
            self.log
                .lock()
                .unwrap()
                .push(format!("begin {}", self.name));
            Ok(())
        }

        fn end(&self) {
            self.log.lock().unwrap().push(format!("end {}", self.name));
        }
    }

    /// The name of what an attempt goes under; `wait` when it has to wait.
    fn turn(rotation: &mut Rotation, under_way: usize) -> String {
        match rotation.turn(under_way) {
            Turn::Wait => "wait".into(),
            Turn::Go(None) => "nothing".into(),
            Turn::Go(Some(stress)) => stress.name(),
        }
    }

    fn phase(rotation: &mut Rotation) -> String {
        let first = turn(rotation, 0);
        for _ in 1..ATTEMPTS {
            assert_eq!(turn(rotation, 2), first);
        }
        first
    }

    #[test]
    fn burdens_begin_and_end_when_nobody_is_under_way() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let kind = |name, wide| -> Option<Arc<dyn Stress>> {
            let log = log.clone();
            Some(Arc::new(Recorded { name, wide, log }))
        };
        let kinds = vec![
            None,
            kind("cpu", true),
            kind("broken", true),
            kind("churn", false),
            None,
        ];
        let mut rotation = Rotation::new(kinds, 0);
        assert_eq!(phase(&mut rotation), "nothing");
        assert_eq!(turn(&mut rotation, 1), "wait");
        assert_eq!(phase(&mut rotation), "cpu");
        assert_eq!(turn(&mut rotation, 1), "wait");
        assert_eq!(*log.lock().unwrap(), ["begin cpu"]);
        assert_eq!(
            phase(&mut rotation),
            "nothing",
            "what cannot begin is left out"
        );
        assert_eq!(phase(&mut rotation), "churn");
        assert_eq!(
            turn(&mut rotation, 1),
            "nothing",
            "worlds do not wait for one another"
        );
        drop(rotation);
        assert_eq!(
            *log.lock().unwrap(),
            ["begin cpu", "end cpu", "begin churn", "end churn"]
        );
    }
}

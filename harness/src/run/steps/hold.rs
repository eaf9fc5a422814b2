//! The verb `hold`: the model must hold without a break.

use probe::proto::now;

use super::super::{
    attempt::{Attempt, Stop},
    round::{self, Proportions, Shape},
};
use crate::scenario::doc::Hold;

impl Attempt<'_> {
    pub(in crate::run) async fn hold(&mut self, step: &Hold) -> Result<(), Stop> {
        let cells = self.cells(&step.from, &step.to)?;
        let shape = Shape {
            count: 2,
            ..Shape::default()
        };
        let until = now() + step.duration.0.as_nanos() as u64;
        let mut rounds = 0;
        loop {
            let seen = self.round(&cells, &shape).await?;
            self.controls_must_work(&seen)?;
            self.count_checks(&cells);
            rounds += 1;
            let wrong = round::wrong(&cells, &seen, Proportions::PerService);
            if !wrong.is_empty() {
                self.findings
                    .note(format!("the model broke in round {rounds}"));
                self.record(wrong);
                return Ok(());
            }
            if now() > until {
                self.findings
                    .measure("hold rounds", "count", f64::from(rounds));
                return Ok(());
            }
        }
    }
}

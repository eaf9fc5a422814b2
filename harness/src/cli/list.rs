//! `harness list`.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Exit, Failed, print};
use crate::{
    candidate::Candidate,
    plan::{self, Catalogue, Filter, Profile, Requirements, level_name},
};

/// List the cases of the catalogue.
#[derive(Debug, Args)]
pub struct List {
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Which levels to list.
    #[arg(long, value_enum, default_value_t = Profile::All)]
    profile: Profile,
    /// Which cases to list.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// One case per line: id, level, area, title.
    #[default]
    Text,
    /// An array of cases.
    Json,
}

impl List {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        let candidate = Candidate::load("null")?;
        let filter = self.filter.unwrap_or(Filter::All);
        let planned = plan::select(
            &catalogue,
            &requirements,
            &candidate,
            &plan::Missing::default(),
            self.profile,
            &filter,
        );
        match self.format {
            Format::Text => {
                let mut text = String::new();
                for case in &planned {
                    let header = &case.document.header;
                    text.push_str(&format!(
                        "{:<60} {:<9} {:<15} {}\n",
                        case.key.id,
                        level_name(header.level),
                        case.area,
                        header.title
                    ));
                }
                print(&text);
                eprintln!(
                    "{} cases of {} scenarios",
                    planned.len(),
                    scenarios(&planned)
                );
            }
            Format::Json => {
                let cases: Vec<_> = planned
                    .iter()
                    .map(|case| {
                        let header = &case.document.header;
                        json!({
                            "id": case.key.id,
                            "scenario": header.id,
                            "title": header.title,
                            "area": case.area,
                            "level": level_name(header.level),
                            "requirements": header.requirement,
                            "features": header.features,
                            "covers": header.covers,
                            "axes": case.key.axes,
                            "file": &*case.document.file,
                        })
                    })
                    .collect();
                print(&format!(
                    "{}\n",
                    serde_json::to_string_pretty(&cases).map_err(Failed::infra)?
                ));
            }
        }
        Ok(if planned.is_empty() {
            Exit::NothingRan
        } else {
            Exit::Ok
        })
    }
}

fn scenarios(planned: &[plan::Planned]) -> usize {
    let mut ids: Vec<&str> = planned
        .iter()
        .map(|case| case.document.header.id.as_str())
        .collect();
    ids.dedup();
    ids.len()
}

//! `harness coverage`.

use clap::{Args, ValueEnum};

use super::{Exit, Failed, print};
use crate::{
    coverage::{Accounts, Coverage, Table},
    plan::{Catalogue, Requirements},
};

/// Show what the catalogue stands for, and fail if something is missing.
///
/// Exit codes: 0 everything is accounted for; 1 there are gaps; 2 a file cannot be understood.
#[derive(Debug, Args)]
pub struct CoverageCommand {
    /// Which table.
    #[arg(long, value_enum, default_value_t)]
    what: What,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum What {
    /// The end-to-end specs of SIG Network.
    Upstream,
    /// The real bugs of Service proxies.
    Bugs,
    /// The requirements.
    Requirements,
    /// All three.
    #[default]
    All,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// Totals and a line per row.
    #[default]
    Text,
    /// An array of tables.
    Json,
    /// Tables for a document.
    Markdown,
}

impl CoverageCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        let accounts = Accounts::embedded()?;
        let coverage = Coverage::of(&accounts, &requirements, &catalogue);
        let tables: Vec<Table> = match self.what {
            What::Upstream => vec![coverage.upstream],
            What::Bugs => vec![coverage.bugs],
            What::Requirements => vec![coverage.requirements],
            What::All => coverage.tables(),
        };
        match self.format {
            Format::Text => {
                let texts: Vec<String> = tables.iter().map(Table::text).collect();
                print(&texts.join("\n"));
            }
            Format::Markdown => {
                let texts: String = tables.iter().map(Table::markdown).collect();
                print(&format!("# Coverage\n\n{}\n", texts.trim_end()));
            }
            Format::Json => print(&format!(
                "{}\n",
                serde_json::to_string_pretty(&tables).map_err(Failed::infra)?
            )),
        }
        let gaps = tables.iter().map(|table| table.gaps.len()).sum::<usize>();
        for gap in tables.iter().flat_map(|table| &table.gaps) {
            eprintln!("{gap}");
        }
        Ok(if gaps == 0 {
            Exit::Ok
        } else {
            eprintln!("{gaps} gaps");
            Exit::NotConformant
        })
    }
}

//! `harness schema`: for editors that complete scenario documents.

use clap::{Args, ValueEnum};

use super::{Exit, Failed, print};

/// Print the JSON Schema of a document type.
#[derive(Debug, Args)]
pub struct Schema {
    /// Which documents.
    #[arg(value_enum, default_value_t)]
    of: Of,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Of {
    /// Scenario documents.
    #[default]
    Scenario,
    /// Candidate manifests.
    Candidate,
}

impl Schema {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let schema = match self.of {
            Of::Scenario => schemars::schema_for!(crate::scenario::Scenario),
            Of::Candidate => schemars::schema_for!(crate::candidate::Manifest),
        };
        print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&schema).map_err(Failed::infra)?
        ));
        Ok(Exit::Ok)
    }
}

//! The formats of commands whose answer is for a terminal, a program or a pull request.

use clap::ValueEnum;

use super::Failed;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// All of it, for programs.
    Json,
    /// For a pull request.
    Markdown,
}

impl Format {
    /// The answer in this format.
    pub fn of(
        self,
        answer: &impl serde::Serialize,
        text: impl FnOnce() -> String,
        markdown: impl FnOnce() -> String,
    ) -> Result<String, Failed> {
        Ok(match self {
            Self::Text => text(),
            Self::Markdown => markdown(),
            Self::Json => format!(
                "{}\n",
                serde_json::to_string_pretty(answer).map_err(Failed::infra)?
            ),
        })
    }
}

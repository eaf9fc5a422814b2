//! Who signed a run, for a reader who has only the page.

use std::path::Path;

use super::run::Signed;
use crate::model::Report;
use crate::sign::files::{self, FilesError};
use crate::sign::key::PublicKey;
use crate::sign::{self, Findings, Kind, Signature};
use crate::submission;

/// Looks at the signature of a directory whose report this is.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn look(dir: &Path, report: &Report, keys: &[PublicKey]) -> Result<Signed, FilesError> {
    if dir.join(sign::FILE_NAME).symlink_metadata().is_err() {
        return Ok(Signed::No);
    }
    let (mut signature, mut findings) = check(dir, report, keys)?;
    if !keys.is_empty()
        && findings
            .broken
            .iter()
            .any(|finding| finding.kind == Kind::Key)
    {
        // Signed with a key that nobody named: that is no news, if it holds.
        (signature, findings) = check(dir, report, &[])?;
    }
    if let Some(first) = findings.broken.first() {
        let more = match findings.broken.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let why = format!("{}: {}{more}", first.kind.as_str(), first.what);
        return Ok(Signed::Broken { why });
    }
    Ok(match signature {
        Signature::None => Signed::No,
        Signature::Broken => Signed::Broken {
            why: "it cannot be read".to_owned(),
        },
        Signature::Good(signed) => Signed::Yes {
            key: signed.keys.join(", "),
            name: signed
                .statement
                .predicate
                .service_proxy_conformance
                .signer
                .name,
            known: signed.named,
        },
    })
}

fn check(
    dir: &Path,
    report: &Report,
    keys: &[PublicKey],
) -> Result<(Signature, Findings), FilesError> {
    let files = files::list(dir)?;
    let mut findings = Findings::default();
    let submission = files.contains_key(submission::README);
    // What a submission adds is not signed, and not shown here either.
    let derived =
        |name: &str| submission && matches!(name, submission::README | submission::MANIFEST);
    let signature = sign::check(dir, &files, Some(report), keys, &derived, &mut findings)?;
    Ok((signature, findings))
}

//! Whether a signature holds: the envelope, its signatures, the files, and what the statement says about the report.

use std::io::Read as _;
use std::path::Path;

use super::dsse::{self, Envelope};
use super::files::{self, Entry, FilesError, Listing};
use super::findings::{Findings, Kind};
use super::key::PublicKey;
use super::statement::{PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, Signer, Statement};
use super::{FILE_NAME, listed};
use crate::model::Report;

/// What became of the signature of a directory.
#[derive(Debug)]
pub enum Signature {
    /// There is none.
    None,
    /// There is one that shows nothing; the findings say why.
    Broken,
    /// Somebody signed, though what they signed may be something else: see the findings.
    Good(Box<Signed>),
}

/// Who signed what.
#[derive(Debug)]
pub struct Signed {
    /// Ids of the keys whose owners signed.
    pub keys: Vec<String>,
    /// Whether these keys were named by whoever verifies. If not, all that is shown is that nothing has changed since.
    pub named: bool,
    /// What they signed.
    pub statement: Statement,
}

/// Verifies the signature of a directory with these files and, where it can be read, this report.
///
/// `named` are the keys whose owners are trusted; without any, the key in the statement itself is taken. `derived` says of a file that need
/// not be signed, because it is checked otherwise.
///
/// # Errors
/// When a file cannot be read. Everything else is a finding.
pub fn check(
    dir: &Path,
    files: &Listing,
    report: Option<&Report>,
    named: &[PublicKey],
    derived: &dyn Fn(&str) -> bool,
    findings: &mut Findings,
) -> Result<Signature, FilesError> {
    let Some(bytes) = envelope(&dir.join(FILE_NAME), findings)? else {
        return Ok(match findings.has(Kind::Envelope) {
            true => Signature::Broken,
            false => Signature::None,
        });
    };
    let signed = match signed(&bytes, named) {
        Ok(signed) => signed,
        Err((kind, what)) => {
            findings.broken(kind, what);
            return Ok(Signature::Broken);
        }
    };
    compare_files(dir, files, &signed.statement, derived, findings)?;
    if let Some(report) = report {
        compare_report(report, &signed.statement, findings);
    }
    Ok(Signature::Good(Box::new(signed)))
}

/// The file of the signature, if there is one that can be read into memory.
fn envelope(path: &Path, findings: &mut Findings) -> Result<Option<Vec<u8>>, FilesError> {
    let Ok(kind) = path.symlink_metadata() else {
        return Ok(None);
    };
    if !kind.is_file() {
        findings.broken(Kind::Envelope, format!("{FILE_NAME}: it is no file"));
        return Ok(None);
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(dsse::MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(FilesError::at(path))?;
    if bytes.len() as u64 > dsse::MAX_BYTES {
        let what = format!("{FILE_NAME}: it is longer than {} bytes", dsse::MAX_BYTES);
        findings.broken(Kind::Envelope, what);
        return Ok(None);
    }
    Ok(Some(bytes))
}

/// Who signed what in an envelope. Every signature in it has to hold: one that nobody can check is one that somebody added.
fn signed(bytes: &[u8], named: &[PublicKey]) -> Result<Signed, (Kind, String)> {
    let (envelope, body) =
        Envelope::open(bytes).map_err(|error| (Kind::Envelope, format!("{FILE_NAME}: {error}")))?;
    let payload_type = envelope.payload_type.as_str();
    if payload_type != PAYLOAD_TYPE {
        let what = format!("{FILE_NAME}: its payload is {payload_type:?} and not {PAYLOAD_TYPE:?}");
        return Err((Kind::Envelope, what));
    }
    if envelope.signatures.is_empty() {
        return Err((Kind::Signature, format!("{FILE_NAME}: nobody signed it")));
    }
    let trusted = match named {
        [] => vec![own_key(&body)?],
        keys => keys.to_vec(),
    };
    let mut keys = Vec::new();
    for signature in &envelope.signatures {
        let id = &signature.keyid;
        let Some(key) = trusted.iter().find(|key| key.id() == *id) else {
            let what = match named {
                [] => format!("signed with {id}, which is not the key in the statement"),
                _ => format!("signed with {id}, which is none of the keys that were named"),
            };
            return Err((Kind::Key, what));
        };
        if !signature.is_by(key, payload_type, &body) {
            let what = format!("{FILE_NAME}: the signature of {id} is not one of this statement");
            return Err((Kind::Signature, what));
        }
        keys.push(id.clone());
    }
    // From here on it is known that a trusted key signed these bytes.
    let statement = parse(&body)?;
    let own = own_key(&body)?.id();
    if !keys.contains(&own) {
        let what = format!("the statement says that {own} signs it, which did not");
        return Err((Kind::Key, what));
    }
    Ok(Signed {
        keys,
        named: !named.is_empty(),
        statement,
    })
}

fn parse(body: &[u8]) -> Result<Statement, (Kind, String)> {
    let statement: Statement = serde_json::from_slice(body).map_err(|error| {
        (
            Kind::Statement,
            format!("{FILE_NAME}: its payload: {error}"),
        )
    })?;
    for (is, wanted) in [
        (&statement.statement_type, STATEMENT_TYPE),
        (&statement.predicate_type, PREDICATE_TYPE),
    ] {
        if is != wanted {
            let what = format!("{FILE_NAME}: its payload is of type {is:?} and not {wanted:?}");
            return Err((Kind::Statement, what));
        }
    }
    Ok(statement)
}

/// The key that a statement says it is signed with.
fn own_key(body: &[u8]) -> Result<PublicKey, (Kind, String)> {
    let Signer { public_key, .. } = parse(body)?.predicate.service_proxy_conformance.signer;
    PublicKey::from_pem(&public_key)
        .map_err(|reason| (Kind::Key, format!("the key in the statement: {reason}")))
}

fn compare_files(
    dir: &Path,
    files: &Listing,
    statement: &Statement,
    derived: &dyn Fn(&str) -> bool,
    findings: &mut Findings,
) -> Result<(), FilesError> {
    let signed = match statement.files() {
        Ok(signed) => signed,
        Err(name) => {
            let what = format!("{name}: named twice, or without a sha256");
            findings.broken(Kind::Statement, what);
            return Ok(());
        }
    };
    for (name, digest) in &signed {
        match files.get(name) {
            None => findings.broken(Kind::Missing, name),
            Some(Entry::Other(what)) => {
                findings.broken(Kind::Changed, format!("{name}: it is {what} now"));
            }
            Some(Entry::File) => {
                if files::sha256(&dir.join(name))? != *digest {
                    findings.broken(Kind::Changed, name);
                }
            }
        }
    }
    for name in files.keys() {
        if !signed.contains_key(name) && !derived(name) {
            findings.broken(Kind::Added, name);
        }
    }
    Ok(())
}

/// Makes the statement again from the report: what differs was not signed about this report.
fn compare_report(report: &Report, statement: &Statement, findings: &mut Findings) {
    let theirs = &statement.predicate;
    let details = &theirs.service_proxy_conformance;
    let (signer, time) = (details.signer.clone(), details.signed_at.clone());
    let ours = Statement::new(report, &Default::default(), signer, time).predicate;
    if ours == *theirs {
        return;
    }
    let value = |predicate| serde_json::to_value(predicate).expect("it was read from JSON");
    let places = differences(&value(theirs), &value(&ours));
    let what = format!(
        "it does not say what report.json says, in {}",
        listed(places, 5)
    );
    findings.broken(Kind::Statement, what);
}

/// Where two JSON documents differ, as JSON pointers.
pub(crate) fn differences(a: &serde_json::Value, b: &serde_json::Value) -> Vec<String> {
    let patch = json_patch::diff(a, b);
    patch.0.iter().map(|op| op.path().to_string()).collect()
}

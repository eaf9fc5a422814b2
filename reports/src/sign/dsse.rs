//! The envelope of a signature: DSSE v1.0, <https://github.com/secure-systems-lab/dsse>.
//!
//! What is signed is not the JSON around it but the bytes of the payload, with their type and both lengths before them, so that nobody has to
//! agree on how JSON is written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::key::{PrivateKey, PublicKey};

/// The longest envelope a reader accepts, in bytes. A file that is signed takes about 200; the bound keeps a hostile envelope from filling
/// the memory.
pub const MAX_BYTES: u64 = 256 << 20;

/// A payload and who signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// The payload in base64.
    pub payload: String,
    /// What the payload is.
    pub payload_type: String,
    /// Signatures of the same payload.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Id of the key, see [`PublicKey::id`]. Nothing signs it: it only says which key to try.
    pub keyid: String,
    /// The signature in base64.
    pub sig: String,
}

/// Why a file is no envelope.
#[derive(Debug, Error)]
pub enum EnvelopeError {
    /// It is not the JSON of one.
    #[error("it is no envelope: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is not base64.
    #[error("its {field} is not base64: {source}")]
    Base64 {
        /// The field.
        field: &'static str,
        /// What the reader says.
        source: base64::DecodeError,
    },
    /// The same envelope is written in another way.
    #[error(
        "it is not written the way 'harness sign' writes it, so it holds bytes that nobody signed"
    )]
    Form,
}

impl Envelope {
    /// Signs a payload.
    pub fn seal(payload_type: &str, body: &[u8], key: &PrivateKey) -> Self {
        Self {
            payload: STANDARD.encode(body),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature {
                keyid: key.public().id(),
                sig: STANDARD.encode(key.sign(&pae(payload_type, body))),
            }],
        }
    }

    /// The envelope as a file.
    pub fn render(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings are always valid JSON");
        text.push('\n');
        text
    }

    /// Reads an envelope and its payload. It has to be written exactly as [`Self::render`] does: then every byte of the file is either
    /// signed or makes the signature another one.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn open(bytes: &[u8]) -> Result<(Self, Vec<u8>), EnvelopeError> {
        let envelope: Self = serde_json::from_slice(bytes)?;
        if envelope.render().as_bytes() != bytes {
            return Err(EnvelopeError::Form);
        }
        let decode = |field, text: &str| {
            let decoded = STANDARD.decode(text);
            decoded.map_err(|source| EnvelopeError::Base64 { field, source })
        };
        for signature in &envelope.signatures {
            decode("sig", &signature.sig)?;
        }
        let body = decode("payload", &envelope.payload)?;
        Ok((envelope, body))
    }
}

impl Signature {
    /// Whether it is this key's signature of a payload.
    pub fn is_by(&self, key: &PublicKey, payload_type: &str, body: &[u8]) -> bool {
        let signature = STANDARD.decode(&self.sig);
        signature.is_ok_and(|signature| key.verifies(&pae(payload_type, body), &signature))
    }
}

/// What is signed: DSSE's pre-authentication encoding.
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the protocol's description.
    #[test]
    fn what_is_signed_is_encoded_as_the_protocol_says() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("é", b""), "DSSEv1 2 é 0 ".as_bytes());
    }

    /// Lengths keep type and payload apart.
    #[test]
    fn bytes_cannot_move_between_type_and_payload() {
        let key = PrivateKey::from_seed([7; 32]);
        let (mut envelope, _) =
            Envelope::open(Envelope::seal("a/b", b"cd", &key).render().as_bytes()).unwrap();
        assert!(envelope.signatures[0].is_by(&key.public(), "a/b", b"cd"));
        envelope.payload_type = "a/bc".into();
        assert!(!envelope.signatures[0].is_by(&key.public(), "a/bc", b"d"));
    }

    #[test]
    fn an_envelope_has_one_spelling() {
        let key = PrivateKey::from_seed([7; 32]);
        let text = Envelope::seal("a/b", b"cd", &key).render();
        Envelope::open(text.as_bytes()).unwrap();
        for other in [
            text.replace('\n', ""),
            text.replace("  ", " "),
            format!("{text}\n"),
            text.replace("payloadType", "payload\\u0054ype"),
            text.replace("\"Y2Q=\"", "\"Y2Q\""),
            text.replace("\"Y2Q=\"", "\"Y2R=\""),
            text.replace("\"signatures\"", "\"more\": 1,\n  \"signatures\""),
        ] {
            assert_ne!(other, text);
            assert!(Envelope::open(other.as_bytes()).is_err(), "{other}");
        }
    }
}

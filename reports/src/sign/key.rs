//! Keys: ed25519, in the files that every other tool reads. A private key is PKCS#8 in PEM, a public one SPKI in PEM.
//!
//! A key's id is the SHA-256 of the public key's DER encoding: `openssl pkey -pubin -in FILE.pub -outform DER | sha256sum`.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    KeypairBytes,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::files::hex;

/// No key file is longer, in bytes: one that is was named by mistake.
const MAX_FILE: u64 = 64 << 10;

/// What can go wrong with a key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("key {path:?} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file holds no key of the kind that is needed.
    #[error("{path:?} is no {wanted}: {reason}")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What it is instead.
        reason: String,
    },
    /// A key would have to be overwritten.
    #[error("{path:?} exists; a key is never overwritten, name another file")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("key {path:?} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system gives no random numbers.
    #[error("no key can be made, because the system gives no random numbers: {0}")]
    Random(String),
}

impl KeyError {
    /// Whether the wrong file was named, rather than that something broke.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Random(_))
    }
}

/// A key that signs.
pub struct PrivateKey(SigningKey);

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PrivateKey {
    /// A new key, from the system's random numbers.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        let filled = rand::rngs::OsRng.try_fill_bytes(&mut seed);
        filled.map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self::from_seed(seed))
    }

    /// The key of a seed, which RFC 8032 calls the private key.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads a PKCS#8 PEM file.
    ///
    /// # Errors
    /// [`KeyError::Read`] and [`KeyError::NoKey`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let wanted =
            "private ed25519 key in PKCS#8 PEM (harness sign --generate-key FILE makes one)";
        let text = text(path, wanted)?;
        if text.contains("-----BEGIN PUBLIC KEY-----") {
            let reason = "it is a public key, and signing takes the private one".into();
            return Err(no_key(path, wanted, reason));
        }
        let key = SigningKey::from_pkcs8_pem(&text);
        key.map(Self)
            .map_err(|error| no_key(path, wanted, error.to_string()))
    }

    /// The key as PKCS#8 PEM, in the first version of that format, which all readers know.
    fn to_pem(&self) -> impl std::ops::Deref<Target = String> {
        let bytes = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        // 32 bytes have an encoding.
        bytes
            .to_pkcs8_pem(LineEnding::LF)
            .expect("a key can be encoded")
    }

    /// Writes the key and, beside it, `FILE.pub`. The private one can be read by its owner only.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if one of the files is there, [`KeyError::Write`]. No file is left then.
    pub fn write(&self, path: &Path) -> Result<PathBuf, KeyError> {
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = PathBuf::from(public);
        create(&public, self.public().to_pem().as_bytes(), 0o644)?;
        if let Err(error) = create(path, self.to_pem().as_bytes(), 0o600) {
            let _ = std::fs::remove_file(&public);
            return Err(error);
        }
        Ok(public)
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl PublicKey {
    /// Reads an SPKI PEM file.
    ///
    /// # Errors
    /// [`KeyError::Read`] and [`KeyError::NoKey`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let wanted = "public ed25519 key in PEM";
        let text = text(path, wanted)?;
        if text.contains("PRIVATE KEY-----") {
            let reason =
                "it is a private key, and verifying takes the public one (FILE.pub)".into();
            return Err(no_key(path, wanted, reason));
        }
        Self::from_pem(&text).map_err(|reason| no_key(path, wanted, reason))
    }

    /// Reads SPKI PEM.
    ///
    /// # Errors
    /// Why it is none.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let key = VerifyingKey::from_public_key_pem(text);
        key.map(Self).map_err(|error| error.to_string())
    }

    /// The key as SPKI PEM.
    pub fn to_pem(&self) -> String {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .expect("a key can be encoded")
    }

    /// `sha256:` and the digest of the key's DER encoding.
    pub fn id(&self) -> String {
        let der = self.0.to_public_key_der().expect("a key can be encoded");
        format!("sha256:{}", hex(&Sha256::digest(der.as_bytes())))
    }

    /// Whether this key's owner signed the message. Signatures with more than one spelling and weak keys are refused.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = Signature::from_slice(signature);
        signature.is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

fn no_key(path: &Path, wanted: &'static str, reason: String) -> KeyError {
    KeyError::NoKey {
        path: path.to_path_buf(),
        wanted,
        reason,
    }
}

fn text(path: &Path, wanted: &'static str) -> Result<String, KeyError> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    read.map_err(|source| KeyError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    match String::from_utf8(bytes) {
        Ok(text) if text.len() as u64 <= MAX_FILE => Ok(text),
        _ => Err(no_key(path, wanted, "it is no PEM file".into())),
    }
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let write = |source| KeyError::Write {
        path: path.to_path_buf(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyError::Exists {
                path: path.to_path_buf(),
            });
        }
        Err(error) => return Err(write(error)),
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = std::fs::remove_file(path);
        write(error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_written_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("me.pem");
        let key = PrivateKey::generate().unwrap();
        let public = key.write(&path).unwrap();
        assert_eq!(public, dir.path().join("me.pem.pub"));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let read = PrivateKey::read(&path).unwrap();
        let verifier = PublicKey::read(&public).unwrap();
        assert_eq!(verifier, key.public());
        assert!(verifier.verifies(b"text", &read.sign(b"text")));
        assert!(!verifier.verifies(b"test", &read.sign(b"text")));
        assert!(!verifier.verifies(b"text", &read.sign(b"text")[..63]));
        assert_ne!(verifier, PrivateKey::generate().unwrap().public());
    }

    #[test]
    fn no_key_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("me.pem");
        let key = PrivateKey::generate().unwrap();
        let public = key.write(&path).unwrap();
        for missing in [&path, &public] {
            let kept = std::fs::read(missing).unwrap();
            std::fs::remove_file(missing).unwrap();
            let other = PrivateKey::generate().unwrap();
            assert!(matches!(other.write(&path), Err(KeyError::Exists { .. })));
            assert!(!missing.exists(), "half a pair was left");
            std::fs::write(missing, kept).unwrap();
        }
        assert_eq!(PublicKey::read(&public).unwrap(), key.public());
    }

    #[test]
    fn what_is_no_key_is_called_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("me.pem");
        let public = PrivateKey::generate().unwrap().write(&path).unwrap();
        let says = |error: KeyError, text: &str| {
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.is_usage());
        };
        says(PublicKey::read(&path).unwrap_err(), "it is a private key");
        says(
            PrivateKey::read(&public).err().unwrap(),
            "it is a public key",
        );
        let note = dir.path().join("note");
        std::fs::write(&note, "not a key").unwrap();
        says(PublicKey::read(&note).unwrap_err(), "is no public ed25519");
        says(
            PrivateKey::read(&note).err().unwrap(),
            "is no private ed25519",
        );
        std::fs::write(&note, vec![b'x'; 1 << 20]).unwrap();
        says(PublicKey::read(&note).unwrap_err(), "it is no PEM file");
        says(
            PublicKey::read(&dir.path().join("gone")).unwrap_err(),
            "cannot be read",
        );
    }

    /// RFC 8410, section 10.3: the private key of an example and its public key.
    #[test]
    fn the_keys_of_the_standard_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(
            &path,
            "-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
             -----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let key = PrivateKey::read(&path).unwrap();
        assert_eq!(
            key.public().to_pem(),
            "-----BEGIN PUBLIC KEY-----\n\
             MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
             -----END PUBLIC KEY-----\n"
        );
        let written = dir.path().join("again");
        key.write(&written).unwrap();
        assert_eq!(
            std::fs::read(&written).unwrap(),
            std::fs::read(&path).unwrap()
        );
    }
}

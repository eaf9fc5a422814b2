//! Our own images, written straight from static binaries: no engine, no build, no registry.
//!
//! The archive is one tar that is an OCI image layout and a Docker archive at the same time, so that whatever loads it finds what it knows:
//!
//! ```text
//! blobs/sha256/<config>     architecture, entrypoint, environment, labels
//! blobs/sha256/<layer>      a tar of the files, not compressed
//! blobs/sha256/<manifest>   the OCI manifest: its digest is the image's
//! index.json                the manifest, with the full reference as org.opencontainers.image.ref.name
//! manifest.json             the same for Docker
//! oci-layout
//! ```
//!
//! The same files give the same bytes, on every machine and at any time. The tag is a part of the digest: a changed binary has another name, so that
//! `imagePullPolicy: IfNotPresent` never finds an old one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, Digest, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, RootFsBuilder,
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::elf;
use crate::error::{KindError, Result};

/// The label that all our images have; its value is the name without the tag.
pub const IMAGE_LABEL: &str = "dev.harness.image";

/// What a file of an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of this machine.
    File(PathBuf),
}

/// A file in an image. Directories above it are made, with mode 0755.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Its absolute path in the image.
    pub path: String,
    /// What is in it.
    pub content: Content,
    /// Its mode, as 0o755. Its owner is root.
    pub mode: u32,
}

/// An image as it is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// The name without a tag, with a registry that does not exist: `harness.local/probe`.
    pub name: String,
    /// Its files.
    pub files: Vec<ImageFile>,
    /// Directories in it, beside those that hold files, with their modes: `("/tmp", 0o1777)`.
    pub directories: Vec<(String, u32)>,
    /// The program and its first arguments. It has to be one of the files, and static, unless its dynamic loader is among the files, too.
    pub entrypoint: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Labels, beside [`IMAGE_LABEL`].
    pub labels: BTreeMap<String, String>,
    /// The user that it runs as: `65534:65534`; root if there is none.
    pub user: Option<String>,
}

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The name with a tag made of the digest: `harness.local/probe:sha-0123456789ab`.
    pub reference: String,
    /// The digest of the manifest: `sha256:...`.
    pub digest: String,
    /// The digest of the configuration, which Docker calls the image's id.
    pub config_digest: String,
    /// The architecture, as OCI calls it: `amd64`.
    pub architecture: String,
    /// The archive.
    pub path: PathBuf,
    /// The size of the archive in bytes.
    pub size: u64,
}

/// Whether a reference has a tag that was made of a digest, so that an image of this name cannot be another one.
pub(crate) fn is_by_content(reference: &str) -> bool {
    reference.rsplit_once(":sha-").is_some_and(|(_, tag)| {
        tag.len() == TAG_DIGITS && tag.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// 48 bits: two of our images would have to be made 2^24 times to share one by chance.
const TAG_DIGITS: usize = 12;

impl ImageSpec {
    /// Writes the archive, whole or not at all.
    ///
    /// # Errors
    /// `BadFile` for an entrypoint that would not start, and for paths that cannot be.
    pub fn write(&self, path: &Path) -> Result<Image> {
        let arch = self.architecture()?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let failed =
            |error: io::Error| KindError::system(format!("write {}", path.display()), error);
        let mut layer = Blob::new(tempfile::tempfile_in(parent).map_err(failed)?);
        self.layer(&mut layer)?;
        let (mut layer, layer_digest, layer_size) = layer.finish().map_err(failed)?;

        let config = to_json(&self.config(arch.clone(), &layer_digest)?);
        let config_digest = sha256(&config);
        let manifest = built(
            ImageManifestBuilder::default()
                .schema_version(2u32)
                .media_type(MediaType::ImageManifest)
                .config(descriptor(
                    MediaType::ImageConfig,
                    config.len() as u64,
                    &config_digest,
                )?)
                .layers(vec![descriptor(
                    MediaType::ImageLayer,
                    layer_size,
                    &layer_digest,
                )?])
                .build(),
        )?;
        let manifest = to_json(&manifest);
        let digest = sha256(&manifest);
        let reference = format!("{}:sha-{}", self.name, &digest[..TAG_DIGITS]);

        let mut of_manifest = descriptor(MediaType::ImageManifest, manifest.len() as u64, &digest)?;
        // containerd reads the first one, and everybody else the second one.
        of_manifest.set_annotations(Some(HashMap::from([
            ("io.containerd.image.name".to_owned(), reference.clone()),
            (
                "org.opencontainers.image.ref.name".to_owned(),
                reference.clone(),
            ),
        ])));
        let index = built(
            ImageIndexBuilder::default()
                .schema_version(2u32)
                .media_type(MediaType::ImageIndex)
                .manifests(vec![of_manifest])
                .build(),
        )?;
        let layout = built(
            OciLayoutBuilder::default()
                .image_layout_version("1.0.0")
                .build(),
        )?;
        let docker = json!([{
            "Config": blob_path(&config_digest),
            "Layers": [blob_path(&layer_digest)],
            "RepoTags": [&reference],
        }]);

        let blobs = [
            (blob_path(&config_digest), config),
            (blob_path(&digest), manifest),
            ("index.json".to_owned(), to_json(&index)),
            ("manifest.json".to_owned(), to_json(&docker)),
            ("oci-layout".to_owned(), to_json(&layout)),
        ];
        let mut small: BTreeMap<String, Option<Vec<u8>>> = blobs
            .into_iter()
            .map(|(path, bytes)| (path, Some(bytes)))
            .collect();
        small.insert(blob_path(&layer_digest), None);

        let whole = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
        let mut write = || -> io::Result<u64> {
            let mut archive = tar::Builder::new(BufWriter::new(whole.as_file()));
            for directory in ["blobs/", "blobs/sha256/"] {
                archive.append_data(
                    &mut header(EntryType::Directory, 0, 0o755),
                    directory,
                    io::empty(),
                )?;
            }
            // Sorted by path, with the layer among them.
            for (path, bytes) in &small {
                match bytes {
                    Some(bytes) => {
                        let mut header = header(EntryType::Regular, bytes.len() as u64, 0o644);
                        archive.append_data(&mut header, path, bytes.as_slice())?;
                    }
                    None => {
                        layer.rewind()?;
                        let mut header = header(EntryType::Regular, layer_size, 0o644);
                        archive.append_data(&mut header, path, BufReader::new(&mut layer))?;
                    }
                }
            }
            archive.into_inner()?.flush()?;
            Ok(whole.as_file().metadata()?.len())
        };
        let size = write().map_err(failed)?;
        // Temporary files are for their owner only; an archive is for whoever may look into its directory.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(whole.path(), fs::Permissions::from_mode(0o644)).map_err(failed)?;
        whole.persist(path).map_err(|error| failed(error.error))?;
        Ok(Image {
            reference,
            digest: format!("sha256:{digest}"),
            config_digest: format!("sha256:{config_digest}"),
            architecture: arch.to_string(),
            path: path.to_owned(),
            size,
        })
    }

    /// The architecture of the entrypoint, which has to start where there is nothing but itself.
    fn architecture(&self) -> Result<Arch> {
        let bad = |path: &Path, why: &str| KindError::BadFile {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        let Some(program) = self.entrypoint.first() else {
            return Err(bad(Path::new(&self.name), "an image needs an entrypoint"));
        };
        let Some(file) = self.files.iter().find(|file| file.path == *program) else {
            return Err(bad(
                Path::new(program),
                "the entrypoint is none of the files of the image",
            ));
        };
        if file.mode & 0o111 == 0 {
            return Err(bad(
                Path::new(program),
                "the entrypoint is not executable: give it mode 0755",
            ));
        }
        let (path, about) = match &file.content {
            Content::Bytes(bytes) => (Path::new(program), elf::read(&mut io::Cursor::new(bytes))),
            Content::File(path) => {
                let file = File::open(path).map_err(|error| {
                    KindError::system(format!("open {}", path.display()), error)
                })?;
                (path.as_path(), elf::read(&mut BufReader::new(file)))
            }
        };
        let Ok(about) = about else {
            return Err(bad(path, "it is no ELF program for a machine with 64 bits"));
        };
        let loader = about.interpreter.as_deref();
        // Whoever brings the loader brings the libraries, too.
        if loader.is_some_and(|loader| self.files.iter().all(|file| file.path != loader)) {
            return Err(bad(
                path,
                "it is linked dynamically and would not start in an image without libraries: build it with RUSTFLAGS='-C target-feature=+crt-static' \
                 and --target x86_64-unknown-linux-gnu (or another one), or for a musl target",
            ));
        }
        Ok(match about.machine {
            elf::X86_64 => Arch::Amd64,
            elf::AARCH64 => Arch::ARM64,
            elf::RISCV => Arch::RISCV64,
            elf::PPC64 => Arch::PowerPC64le,
            elf::S390 => Arch::s390x,
            _ => {
                return Err(bad(
                    path,
                    "it is a program for an architecture that is not known here",
                ));
            }
        })
    }

    fn config(&self, arch: Arch, layer: &str) -> Result<serde_json::Value> {
        // The library keeps labels in a HashMap, whose order changes from run to run; a JSON value does not.
        let mut config = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .env(
                self.env
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect::<Vec<_>>(),
            )
            .working_dir("/");
        if let Some(user) = &self.user {
            config = config.user(user);
        }
        let mut labels: HashMap<String, String> = self.labels.clone().into_iter().collect();
        labels.insert(IMAGE_LABEL.to_owned(), self.name.clone());
        let config = built(config.labels(labels).build())?;
        let rootfs = built(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(vec![format!("sha256:{layer}")])
                .build(),
        )?;
        let whole = built(
            ImageConfigurationBuilder::default()
                .architecture(arch)
                .os(Os::Linux)
                .created("1970-01-01T00:00:00Z")
                .config(config)
                .rootfs(rootfs)
                .build(),
        )?;
        serde_json::to_value(whole).map_err(|error| strange(&error))
    }

    /// A tar of the files and of the directories above them, sorted by path.
    fn layer(&self, into: &mut Blob) -> Result<()> {
        let mut directories: BTreeMap<String, u32> = BTreeMap::new();
        let mut files: BTreeMap<String, &ImageFile> = BTreeMap::new();
        for file in &self.files {
            let path = relative(&file.path)?;
            for above in Path::new(&path).ancestors().skip(1) {
                if !above.as_os_str().is_empty() {
                    directories
                        .entry(above.to_string_lossy().into_owned())
                        .or_insert(0o755);
                }
            }
            if files.insert(path, file).is_some() {
                return Err(KindError::BadFile {
                    path: PathBuf::from(&file.path),
                    why: "it is in the image twice".to_owned(),
                });
            }
        }
        for (path, mode) in &self.directories {
            directories.insert(relative(path)?, *mode);
        }
        let failed = |error: io::Error| KindError::system("write a layer", error);
        let names: BTreeSet<&String> = directories.keys().chain(files.keys()).collect();
        let mut tar = tar::Builder::new(into);
        for name in names {
            if let Some(mode) = directories.get(name) {
                tar.append_data(
                    &mut header(EntryType::Directory, 0, *mode),
                    format!("{name}/"),
                    io::empty(),
                )
                .map_err(failed)?;
            }
            if let Some(file) = files.get(name) {
                self.append(&mut tar, name, file)?;
            }
        }
        tar.finish().map_err(failed)
    }

    fn append(
        &self,
        tar: &mut tar::Builder<&mut Blob>,
        name: &str,
        file: &ImageFile,
    ) -> Result<()> {
        match &file.content {
            Content::Bytes(bytes) => {
                let mut header = header(EntryType::Regular, bytes.len() as u64, file.mode);
                tar.append_data(&mut header, name, bytes.as_slice())
                    .map_err(|error| KindError::system("write a layer", error))
            }
            Content::File(path) => {
                let mut append = || -> io::Result<()> {
                    let source = File::open(path)?;
                    let size = source.metadata()?.len();
                    let mut header = header(EntryType::Regular, size, file.mode);
                    let mut exactly = source.take(size);
                    tar.append_data(&mut header, name, &mut exactly)?;
                    if exactly.limit() > 0 {
                        // The header says a size that was not kept: the archive would be broken.
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "it became shorter while it was read",
                        ));
                    }
                    Ok(())
                };
                append().map_err(|error| {
                    KindError::system(format!("put {} into a layer", path.display()), error)
                })
            }
        }
    }
}

/// Everything that is not about the content is the same in all headers.
fn header(entry: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn relative(path: &str) -> Result<String> {
    let given = Path::new(path);
    let plain = given
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    match given.strip_prefix("/") {
        Ok(rest) if plain && !rest.as_os_str().is_empty() => {
            Ok(rest.to_string_lossy().into_owned())
        }
        _ => Err(KindError::BadFile {
            path: given.to_owned(),
            why: "paths in images are absolute and have no '..'".to_owned(),
        }),
    }
}

/// A file that knows its size and its digest.
struct Blob {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Blob {
    fn new(file: File) -> Self {
        Self {
            file: BufWriter::new(file),
            hash: Sha256::new(),
            size: 0,
        }
    }

    fn finish(self) -> io::Result<(File, String, u64)> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok((file, hex(&self.hash.finalize()), self.size))
    }
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn descriptor(media_type: MediaType, size: u64, digest: &str) -> Result<Descriptor> {
    let digest: Digest = format!("sha256:{digest}")
        .parse()
        .map_err(|error| strange(&error))?;
    built(
        DescriptorBuilder::default()
            .media_type(media_type)
            .size(size)
            .digest(digest)
            .build(),
    )
}

fn built<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T> {
    result.map_err(|error| strange(&error))
}

fn strange(error: &dyn std::fmt::Display) -> KindError {
    KindError::BadFile {
        path: PathBuf::from("image"),
        why: error.to_string(),
    }
}

/// As JSON with sorted keys, so that no map's order gets into a digest.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    let value = serde_json::to_value(value).expect("maps of these have strings as keys");
    let mut bytes = Vec::new();
    write_sorted(&value, &mut bytes);
    bytes
}

/// The workspace's JSON maps keep the order in which they were filled.
fn write_sorted(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            into.push(b'{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                into.extend(Value::from(key.as_str()).to_string().bytes());
                into.push(b':');
                write_sorted(value, into);
            }
            into.push(b'}');
        }
        Value::Array(values) => {
            into.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_sorted(value, into);
            }
            into.push(b']');
        }
        plain => into.extend(plain.to_string().bytes()),
    }
}

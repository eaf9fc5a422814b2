//! Image archives: the same bytes each time, another name for other bytes, and a structure that both kinds of readers understand.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use kindlab::{Content, Image, ImageFile, ImageSpec, KindError};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The smallest program that the headers allow: static, for x86-64, without a single section.
fn program(machine: u8, interpreter: bool) -> Vec<u8> {
    let mut elf = vec![0u8; 64 + 56];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = machine;
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = if interpreter { 3 } else { 1 };
    elf
}

fn spec(text: &str) -> ImageSpec {
    let file = |path: &str, bytes: &[u8], mode| ImageFile {
        path: path.to_owned(),
        content: Content::Bytes(bytes.to_vec()),
        mode,
    };
    ImageSpec {
        name: "harness.local/probe".to_owned(),
        files: vec![
            file("/usr/bin/probe", &program(62, false), 0o755),
            file("/etc/text", text.as_bytes(), 0o644),
        ],
        directories: vec![("/tmp".to_owned(), 0o1777)],
        entrypoint: vec!["/usr/bin/probe".to_owned(), "agent".to_owned()],
        env: BTreeMap::from([
            ("B".to_owned(), "2".to_owned()),
            ("A".to_owned(), "1".to_owned()),
        ]),
        labels: (0..20)
            .map(|number| (format!("label-{number}"), number.to_string()))
            .collect(),
        user: Some("65534:65534".to_owned()),
    }
}

fn write(spec: &ImageSpec, directory: &Path, name: &str) -> (Image, Vec<u8>) {
    let path = directory.join(name);
    let image = spec.write(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(image.size, bytes.len() as u64);
    (image, bytes)
}

#[derive(Debug)]
struct Entry {
    path: String,
    mode: u32,
    bytes: Vec<u8>,
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    tar::Archive::new(tar)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 0)
            );
            let mode = header.mode().unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            Entry { path, mode, bytes }
        })
        .collect()
}

fn named<'a>(entries: &'a [Entry], path: &str) -> &'a [u8] {
    &entries
        .iter()
        .find(|entry| entry.path == path)
        .unwrap_or_else(|| panic!("no {path}"))
        .bytes
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// A blob by its descriptor, whose size and digest have to be true.
fn blob<'a>(all: &'a [Entry], descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"]
        .as_str()
        .unwrap()
        .strip_prefix("sha256:")
        .unwrap();
    let bytes = named(all, &format!("blobs/sha256/{digest}"));
    assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64));
    let hash: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hash, digest);
    bytes
}

#[test]
fn the_same_files_give_the_same_bytes_and_others_give_another_name() {
    let directory = tempfile::tempdir().unwrap();
    let (first, bytes) = write(&spec("one"), directory.path(), "first.tar");
    let mut shuffled = spec("one");
    shuffled.files.reverse();
    let (second, same) = write(&shuffled, directory.path(), "second.tar");
    assert_eq!((&first.reference, &bytes), (&second.reference, &same));
    let (other, different) = write(&spec("two"), directory.path(), "other.tar");
    assert_ne!(first.reference, other.reference);
    assert_ne!(first.digest, other.digest);
    assert_ne!(bytes, different);
    // Whoever changes this changes the name of every image, and should know it.
    insta::assert_snapshot!(format!("{}\n{} bytes", first.reference, first.size));
}

#[test]
fn files_of_the_machine_are_the_same_as_their_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("text");
    fs::write(&file, "one").unwrap();
    let mut from_file = spec("");
    from_file.files[1].content = Content::File(file);
    let (a, _) = write(&from_file, directory.path(), "a.tar");
    let (b, _) = write(&spec("one"), directory.path(), "b.tar");
    assert_eq!(a.digest, b.digest);
}

#[test]
fn readers_of_oci_layouts_and_of_docker_archives_find_the_same_image() {
    let directory = tempfile::tempdir().unwrap();
    let (image, bytes) = write(&spec("one"), directory.path(), "image.tar");
    let all = entries(&bytes);
    let paths: Vec<&str> = all.iter().map(|entry| entry.path.as_str()).collect();
    assert!(paths.is_sorted(), "{paths:?}");

    assert_eq!(
        json(named(&all, "oci-layout"))["imageLayoutVersion"],
        "1.0.0"
    );
    let index = json(named(&all, "index.json"));
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], image.digest.as_str());
    for annotation in [
        "org.opencontainers.image.ref.name",
        "io.containerd.image.name",
    ] {
        assert_eq!(
            descriptor["annotations"][annotation],
            image.reference.as_str()
        );
    }
    let manifest = json(blob(&all, descriptor));
    assert_eq!(manifest["config"]["digest"], image.config_digest.as_str());
    let config = json(blob(&all, &manifest["config"]));
    let layer = &manifest["layers"][0];
    let files = entries(blob(&all, layer));
    // The layer is not compressed, so that the digest of what is in it is that of itself.
    assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);

    let docker = &json(named(&all, "manifest.json"))[0];
    assert_eq!(docker["RepoTags"][0], image.reference.as_str());
    let at = |digest: &Value| {
        format!(
            "blobs/sha256/{}",
            digest.as_str().unwrap().strip_prefix("sha256:").unwrap()
        )
    };
    assert_eq!(docker["Config"], at(&manifest["config"]["digest"]).as_str());
    assert_eq!(docker["Layers"][0], at(&layer["digest"]).as_str());

    let tag = image
        .reference
        .strip_prefix("harness.local/probe:sha-")
        .unwrap();
    assert!(image.digest.starts_with(&format!("sha256:{tag}")) && tag.len() == 12);
    assert_eq!(image.architecture, "amd64");
    insta::assert_snapshot!(
        files.iter().map(|file| format!("{:04o} {} {}\n", file.mode, file.path, file.bytes.len())).collect::<String>(),
        @r"
    0755 etc/ 0
    0644 etc/text 3
    1777 tmp/ 0
    0755 usr/ 0
    0755 usr/bin/ 0
    0755 usr/bin/probe 120
    "
    );
    let mut config = config;
    config["rootfs"]["diff_ids"][0] = "...".into();
    config["config"]["Labels"] = config["config"]["Labels"].as_object().unwrap().len().into();
    insta::assert_json_snapshot!(config);
}

#[test]
fn what_would_not_start_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    let change = |change: &dyn Fn(&mut ImageSpec)| {
        let mut spec = spec("one");
        change(&mut spec);
        let error = spec.write(&path).unwrap_err();
        assert!(
            error.is_usage() || matches!(error, KindError::System { .. }),
            "{error:?}"
        );
        error
            .to_string()
            .replace(&directory.path().display().to_string(), "DIR")
    };
    let program_is =
        |bytes: Vec<u8>| change(&|spec| spec.files[0].content = Content::Bytes(bytes.clone()));
    let errors = [
        program_is(program(62, true)),
        program_is(b"#!/bin/sh\n".to_vec()),
        program_is(program(3, false)),
        change(&|spec| spec.files[0].mode = 0o644),
        change(&|spec| spec.entrypoint = vec!["/bin/other".to_owned()]),
        change(&|spec| spec.entrypoint.clear()),
        change(&|spec| spec.files[1].path = "etc/text".to_owned()),
        change(&|spec| spec.files[1].path = "/etc/../text".to_owned()),
        change(&|spec| spec.files[1].path = "/usr/bin/probe".to_owned()),
        change(&|spec| spec.files[1].content = Content::File(directory.path().join("nothing"))),
    ];
    insta::assert_snapshot!(errors.join("\n"));
    // Whole or not at all.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn the_archive_takes_the_place_of_an_older_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    fs::write(&path, "old").unwrap();
    let image = spec("one").write(&path).unwrap();
    assert_eq!(
        File::open(&path).unwrap().metadata().unwrap().len(),
        image.size
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

//! Lists the catalogue's documents, so that they can be embedded.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

fn main() {
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("catalogue");
    println!("cargo::rerun-if-changed=catalogue");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("catalogue.rs");
    let mut code = fs::File::create(out).expect("OUT_DIR can be written");
    writeln!(code, "&[").expect("OUT_DIR can be written");
    for file in files {
        let name = file
            .strip_prefix(&root)
            .expect("below the root")
            .display()
            .to_string();
        let path = file.display().to_string();
        writeln!(
            code,
            "    (\"scenarios/catalogue/{name}\", include_str!({path:?})),"
        )
        .expect("OUT_DIR can be written");
    }
    writeln!(code, "]").expect("OUT_DIR can be written");
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo::rerun-if-changed={}", directory.display());
    for entry in fs::read_dir(directory)
        .expect("the catalogue can be read")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
}

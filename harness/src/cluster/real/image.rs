//! Our image: the harness itself, which is agent, holder of a container and reference proxy, and what its dynamic loader needs, if it has one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use kindlab::{Content, Image, ImageFile, ImageSpec, KindError};

use super::agents::PROGRAM;

/// Name of the image, without a tag.
const NAME: &str = "harness.local/harness";

/// Writes the archive of the image. The same harness and libraries give the same bytes.
///
/// # Errors
/// A disk that is full, or a program that cannot be read.
pub fn write(path: &Path) -> Result<Image, KindError> {
    let program = ImageFile {
        path: PROGRAM.into(),
        // Also where the file was replaced by a newer build meanwhile.
        content: Content::File("/proc/self/exe".into()),
        mode: 0o755,
    };
    let libraries = libraries(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default());
    let libraries = libraries.into_iter().map(|library| ImageFile {
        path: library.display().to_string(),
        content: Content::File(library),
        mode: 0o755,
    });
    let spec = ImageSpec {
        name: NAME.into(),
        files: std::iter::once(program).chain(libraries).collect(),
        directories: vec![("/tmp".into(), 0o1777)],
        entrypoint: vec![PROGRAM.into()],
        ..ImageSpec::default()
    };
    spec.write(path)
}

/// What this process has been linked with when it started, the dynamic loader under the name that programs ask for. Nothing in a static program.
fn libraries(maps: &str) -> BTreeSet<PathBuf> {
    let mapped: BTreeSet<&str> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && path.contains(".so"))
        .collect();
    let mut all: BTreeSet<PathBuf> = mapped.iter().map(PathBuf::from).collect();
    for loader in LOADERS {
        // It is mapped under the name of the file that the link leads to.
        let real = std::fs::canonicalize(loader);
        if real.is_ok_and(|real| all.contains(&real)) {
            all.insert(loader.into());
        }
    }
    all
}

/// Where the ABIs of the architectures have their dynamic loader.
const LOADERS: [&str; 3] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib64/ld64.so.2",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_and_not_a_library_is_left_out() {
        let maps = "55d0-55d1 r--p 00000000 fe:00 1 /usr/bin/harness
7f00-7f01 r--p 00000000 fe:00 2                          /lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r-xp 00001000 fe:00 2                          /lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 rw-p 00000000 00:00 0
7ffe-7fff rw-p 00000000 00:00 0                          [stack]
";
        let found = libraries(maps);
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6".into()].into());
    }

    #[test]
    fn the_same_program_is_the_same_image() {
        let place = tempfile::tempdir().unwrap();
        let [one, other] =
            ["one.tar", "other.tar"].map(|name| write(&place.path().join(name)).unwrap());
        assert_eq!(one.reference, other.reference);
        let read = |image: &Image| std::fs::read(&image.path).unwrap();
        assert!(read(&one) == read(&other));
    }
}

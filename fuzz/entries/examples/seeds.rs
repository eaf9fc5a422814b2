//! Writes the valid inputs that fuzzing begins with: `cargo run -p fuzz-entries --example seeds -- fuzz/seeds`.

use std::path::Path;

#[path = "../tests/support/seeds.rs"]
mod seeds;

fn main() -> std::io::Result<()> {
    let Some(root) = std::env::args_os().nth(1) else {
        return Err(std::io::Error::other("where to? give a directory"));
    };
    for (target, seeds) in [
        ("log", seeds::logs()),
        ("report", seeds::reports()),
        ("scenario", seeds::scenarios()),
        ("manifest", seeds::manifests()),
        ("requirements", seeds::requirements()),
        ("gate", seeds::gate()),
        ("filter", seeds::filters()),
    ] {
        let directory = Path::new(&root).join(target);
        std::fs::create_dir_all(&directory)?;
        for (number, (_, text)) in seeds.iter().enumerate() {
            std::fs::write(directory.join(number.to_string()), text)?;
        }
    }
    Ok(())
}

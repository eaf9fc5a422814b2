//! The little that has to be known of a program before it is put into an image in which there is nothing else.

use std::io::{self, Read, Seek, SeekFrom};

pub(crate) const X86_64: u16 = 62;
pub(crate) const AARCH64: u16 = 183;
pub(crate) const RISCV: u16 = 243;
pub(crate) const PPC64: u16 = 21;
pub(crate) const S390: u16 = 22;

/// What a program is for and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// The interpreter that it wants to be started by, which is the dynamic loader; none of a static program.
    pub(crate) interpreter: Option<String>,
}

/// Reads the headers of a 64-bit ELF program, in either byte order; see elf(5).
pub(crate) fn read(from: &mut (impl Read + Seek)) -> io::Result<Elf> {
    let mut head = [0u8; 64];
    from.read_exact(&mut head)?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    if &head[..4] != b"\x7fELF" || head[4] != 2 {
        return Err(invalid());
    }
    let number = |bytes: &[u8]| -> u64 {
        let bytes = bytes.iter().map(|byte| u64::from(*byte));
        match head[5] {
            1 => bytes.rev().fold(0, |sum, byte| sum << 8 | byte),
            _ => bytes.fold(0, |sum, byte| sum << 8 | byte),
        }
    };
    let offset = number(&head[32..40]);
    let size = number(&head[54..56]);
    let count = number(&head[56..58]);
    if size < 4 {
        return Err(invalid());
    }
    let mut interpreter = None;
    for index in 0..count {
        from.seek(SeekFrom::Start(offset + index * size))?;
        let mut entry = [0u8; 56];
        let whole = entry.len().min(size as usize);
        from.read_exact(&mut entry[..whole])?;
        // PT_INTERP.
        if number(&entry[..4]) == 3 {
            let length = number(&entry[32..40]).min(4_096);
            let mut path = vec![0; length as usize];
            from.seek(SeekFrom::Start(number(&entry[8..16])))?;
            from.read_exact(&mut path)?;
            let path = String::from_utf8_lossy(&path);
            interpreter = Some(path.trim_end_matches('\0').to_owned());
        }
    }
    Ok(Elf {
        machine: number(&head[18..20]) as u16,
        interpreter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn this_test_is_a_program_for_this_machine() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let elf = read(&mut Cursor::new(&program)).unwrap();
        let machine = if cfg!(target_arch = "x86_64") {
            X86_64
        } else {
            AARCH64
        };
        assert_eq!(elf.machine, machine);
        // Tests are linked dynamically unless the target is static.
        let dynamic = !cfg!(target_feature = "crt-static");
        assert_eq!(elf.interpreter.is_some(), dynamic);
        if let Some(loader) = elf.interpreter {
            assert!(std::path::Path::new(&loader).exists(), "{loader}");
        }
    }

    #[test]
    fn other_files_are_no_programs() {
        for bytes in [&b"#!/bin/sh\n"[..], b"", &[0x7f; 64]] {
            assert!(read(&mut Cursor::new(bytes)).is_err());
        }
    }
}

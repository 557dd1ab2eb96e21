//! Looks at a Linux shared library without opening it.
//!
//! The dynamic linker maps what the headers promise; a file that is shorter than that ends the process with SIGBUS, and the
//! linker's own messages for foreign files mislead ("No such file or directory" for another processor). Format: `elf(5)`.

/// Size of the header of a 64-bit file.
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
const DYNAMIC_SEGMENT: u64 = 2;
/// Tag of the second flag word in the dynamic section, and its bit for "this is an executable".
const FLAGS_1: u64 = 0x6fff_fffb;
const FLAG_PIE: u64 = 0x0800_0000;

/// Whether a file is a complete shared library for this machine; says in a sentence what is wrong with it.
pub(crate) fn check(data: &[u8]) -> Result<(), String> {
    check_magic(data)?;
    let file = Elf { data };
    if file.len() < HEADER {
        return Err(format!(
            "the file is truncated: its header has {HEADER} bytes, the file has {}. {AGAIN}",
            file.len()
        ));
    }
    check_machine(&file)?;
    check_type(&file)?;
    check_extent(&file)?;
    check_dynamic(&file)
}

const AGAIN: &str = "Copy or build it again";

fn check_magic(data: &[u8]) -> Result<(), String> {
    if data.is_empty() {
        return Err(format!("the file is empty. {AGAIN}"));
    }
    if data.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let what = match data {
        [b'M', b'Z', ..] => "a Windows program or library",
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => {
            "a macOS program or library"
        }
        [b'!', b'<', b'a', b'r', ..] => "a static library",
        _ if data
            .iter()
            .take(512)
            .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) =>
        {
            "text"
        }
        _ => "something else",
    };
    Err(format!(
        "it is not a Linux shared library but {what}. A plugin is a crate with crate-type \"cdylib\", built for this system"
    ))
}

fn check_machine(file: &Elf<'_>) -> Result<(), String> {
    if file.data[4] != 2 {
        return Err(
            "it is a 32-bit library, this program is 64-bit. Build it for this machine".into(),
        );
    }
    let little = file.data[5] == 1;
    if little != cfg!(target_endian = "little") {
        return Err(
            "it was built for a machine of the other byte order. Build it for this machine".into(),
        );
    }
    let (found, wanted) = (machine_name(file.number(18, 2)), std::env::consts::ARCH);
    match found {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(format!(
            "it was built for {found}, this program runs on {wanted}. Build it for this machine"
        )),
        // A machine that is not in the list is left to the dynamic linker.
        None => Ok(()),
    }
}

/// Rust's name of a machine code.
fn machine_name(code: u64) -> Option<&'static str> {
    Some(match code {
        3 => "x86",
        8 => "mips64",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => return None,
    })
}

fn check_type(file: &Elf<'_>) -> Result<(), String> {
    match file.number(16, 2) {
        3 => Ok(()),
        1 => Err(
            "it is an object file that was not linked. Build the crate with crate-type \"cdylib\""
                .into(),
        ),
        2 => Err(EXECUTABLE.into()),
        other => Err(format!(
            "it is an ELF file of type {other}, not a shared library"
        )),
    }
}

const EXECUTABLE: &str =
    "it is an executable program, not a shared library. Build the crate with crate-type \"cdylib\"";

/// Every segment and the section table must lie inside the file.
fn check_extent(file: &Elf<'_>) -> Result<(), String> {
    let truncated = |what: String, end: u64| {
        Err(format!(
            "the file is truncated: {what} ends at byte {end}, the file has {}. {AGAIN}",
            file.len()
        ))
    };
    let (table, count) = (file.number(32, 8), file.number(56, 2));
    let end = table.saturating_add(count * PROGRAM_HEADER);
    if end > file.len() {
        return truncated("the table of segments".into(), end);
    }
    for segment in 0..count {
        let at = table + segment * PROGRAM_HEADER;
        let end = file
            .number(at + 8, 8)
            .saturating_add(file.number(at + 32, 8));
        if end > file.len() {
            return truncated(format!("segment {segment}"), end);
        }
    }
    let end = file
        .number(40, 8)
        .saturating_add(file.number(60, 2) * SECTION_HEADER);
    if end > file.len() {
        truncated("the table of sections".into(), end)
    } else {
        Ok(())
    }
}

/// A position-independent executable differs from a library in one flag of its dynamic section.
fn check_dynamic(file: &Elf<'_>) -> Result<(), String> {
    let (table, count) = (file.number(32, 8), file.number(56, 2));
    let segments = (0..count).map(|segment| table + segment * PROGRAM_HEADER);
    let Some(dynamic) = segments
        .into_iter()
        .find(|&at| file.number(at, 4) == DYNAMIC_SEGMENT)
    else {
        return Err("it has no dynamic section, so it cannot be loaded. Build the crate with crate-type \"cdylib\"".into());
    };
    let (start, length) = (file.number(dynamic + 8, 8), file.number(dynamic + 32, 8));
    let entries = (start..start + length)
        .step_by(16)
        .map(|at| (file.number(at, 8), file.number(at + 8, 8)));
    let executable = entries
        .take_while(|(tag, _)| *tag != 0)
        .any(|(tag, value)| tag == FLAGS_1 && value & FLAG_PIE != 0);
    if executable {
        Err(EXECUTABLE.into())
    } else {
        Ok(())
    }
}

/// A file whose header is there.
struct Elf<'a> {
    data: &'a [u8],
}

impl Elf<'_> {
    fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// An unsigned number in the byte order of this machine; 0 beyond the end, which every caller has excluded or reads as "none".
    fn number(&self, at: u64, bytes: usize) -> u64 {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let found = self
            .data
            .get(start..start.saturating_add(bytes))
            .unwrap_or(&[]);
        let fold = |n: u64, b: &u8| n << 8 | u64::from(*b);
        if cfg!(target_endian = "little") {
            found.iter().rev().fold(0, fold)
        } else {
            found.iter().fold(0, fold)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_of_a_library_passes_and_no_damaged_header_panics() {
        let Ok(program) = std::fs::read("/proc/self/exe") else {
            return;
        };
        assert!(check(&program).unwrap_err().contains("executable program"));
        for length in [
            0,
            1,
            4,
            16,
            63,
            64,
            100,
            1000,
            program.len() / 2,
            program.len() - 1,
        ] {
            assert!(check(&program[..length]).is_err(), "{length}");
        }
        let mut damaged = program[..4096].to_vec();
        for at in 4..200 {
            damaged[at] = 0xff;
            let _ = check(&damaged);
        }
    }
}

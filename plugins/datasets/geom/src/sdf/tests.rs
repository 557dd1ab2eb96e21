//! Structures as they should be, as they are written in the wild, and as they must be refused.

use super::*;
use crate::conformer::Conformer;

fn collect(text: &str) -> (Vec<Conformer>, PluginResult<()>) {
    let mut found = Vec::new();
    let result = read(text.as_bytes(), "x.sdf", &mut |c| {
        found.push(c);
        Ok(())
    });
    (found, result)
}

fn read_all(text: &str) -> Vec<Conformer> {
    let (found, result) = collect(text);
    result.unwrap();
    found
}

fn refused(text: &str) -> String {
    collect(text).1.unwrap_err().to_string()
}

const WATER: &str = "\
    water\n\
    \x20 program\n\
    \n\
    \x20 3  2  0  0  0  0  0  0  0  0999 V2000\n\
    \x20   0.0000    0.0000    0.1173 O   0  0\n\
    \x20   0.0000    0.7572   -0.4692 H   0  0\n\
    \x20   0.0000   -0.7572   -0.4692 H   0  0\n\
    \x20 1  2  1  0\n\
    \x20 1  3  1  0\n\
    M  END\n";
const WATER_V3000: &str = "\
    \n\
    \x20 program\n\
    \n\
    \x20 0  0  0     0  0            999 V3000\n\
    M  V30 BEGIN CTAB\n\
    M  V30 COUNTS 3 2 0 0 0\n\
    M  V30 BEGIN ATOM\n\
    M  V30 10 O 0 0 0.1173 0\n\
    M  V30 20 H 0.0 0.7572 -\n\
    M  V30 -0.4692 0 CFG=1\n\
    M  V30 7 H 0 -0.7572 -0.4692 0 MASS=2\n\
    M  V30 END ATOM\n\
    M  V30 BEGIN BOND\n\
    M  V30 1 1 10 20\n\
    M  V30 2 1 10 7\n\
    M  V30 END BOND\n\
    M  V30 END CTAB\n\
    M  END\n\
    > <ID>\n\
    1\n\
    \n\
    $$$$\n";

#[test]
fn a_structure_has_its_title_or_its_smiles_as_name() {
    let text =
        format!("{WATER}> <energy>\n-76\n\n>  <SMILES>  (1)\nO\n\n$$$$\n{WATER}$$$$\n{WATER}");
    let found = read_all(&text);
    assert_eq!(
        found
            .iter()
            .map(|c| c.molecule.as_str())
            .collect::<Vec<_>>(),
        ["O", "water", "water"]
    );
    for conformer in &found {
        assert_eq!(
            (&conformer.numbers[..], &conformer.bonds[..]),
            (&[8, 1, 1][..], &[(0, 1), (0, 2)][..])
        );
        assert_eq!(
            conformer.positions,
            [
                [0.0, 0.0, 0.1173],
                [0.0, 0.7572, -0.4692],
                [0.0, -0.7572, -0.4692]
            ]
        );
    }
}

#[test]
fn v3000_has_any_indices_continued_lines_and_isotopes() {
    let found = read_all(&format!("{WATER_V3000}{WATER}$$$$\n"));
    assert_eq!(
        (&found[0].numbers[..], &found[0].bonds[..]),
        (&[8, 1, HEAVY_HYDROGEN][..], &[(0, 1), (0, 2)][..])
    );
    assert_eq!(found[0].positions, found[1].positions);
    let list = WATER_V3000.replace("7 H 0 ", "7 NOT [C, N] 0 ");
    assert_eq!(read_all(&list)[0].numbers, [8, 1, UNKNOWN]);
}

#[test]
fn lines_may_end_in_two_characters_and_files_in_blank_lines() {
    let text = format!("{WATER}$$$$\n");
    let expected = read_all(&text);
    assert_eq!(read_all(&text.replace('\n', "\r\n")), expected);
    for end in ["\n", "\n\n\n", "\n\n\n\n\n\n"] {
        assert_eq!(read_all(&(text.clone() + end)), expected, "{end:?}");
    }
}

#[test]
fn columns_count_before_words() {
    // Numbers that touch can only be told by their columns; numbers in other columns only as words.
    let touching = WATER.replace(
        "    0.0000    0.7572   -0.4692 H",
        "-1234.5678-2345.6789-3456.7891 H",
    );
    assert_eq!(
        read_all(&touching)[0].positions[1],
        [-1234.5678, -2345.6789, -3456.7891]
    );
    let loose = WATER.replace(
        "    0.0000    0.7572   -0.4692 H   0  0",
        "0.0 0.7572 -0.46921 H 0 0",
    );
    assert_eq!(read_all(&loose)[0].positions[1], [0.0, 0.7572, -0.46921]);
    let hundred: String = (0..120)
        .map(|i| format!("{i:10.4}{:10.4}{:10.4} C   0\n", 0.0, 1.0))
        .collect();
    let bonds: String = (1..120)
        .map(|i| format!("{i:3}{:3}  1  0\n", i + 1))
        .collect();
    let found = read_all(&format!(
        "chain\n\n\n120119  0  0  0            999 V2000\n{hundred}{bonds}M  END\n"
    ));
    assert_eq!(
        (found[0].numbers.len(), found[0].bonds[118]),
        (120, (118, 119))
    );
}

#[test]
fn no_symbol_is_taken_for_another_element() {
    for (symbol, number) in [
        ("Cl ", 17),
        ("CL ", 17),
        ("BR ", 35),
        ("SI ", UNKNOWN),
        ("cl ", UNKNOWN),
        ("Si ", 14),
        ("Hg ", 80),
        ("D  ", HEAVY_HYDROGEN),
        ("T  ", HEAVY_HYDROGEN),
        ("R# ", UNKNOWN),
        ("*  ", UNKNOWN),
        ("Du ", UNKNOWN),
    ] {
        let text = WATER.replace("0.1173 O  ", &format!("0.1173 {symbol}"));
        assert_eq!(read_all(&text)[0].numbers[0], number, "{symbol}");
    }
}

#[test]
fn isotopes_of_hydrogen_are_marked_and_others_are_not() {
    let iso = |line: &str| {
        read_all(&WATER.replace("M  END", &format!("{line}\nM  END")))[0]
            .numbers
            .clone()
    };
    assert_eq!(iso("M  ISO  2   1  18   3   2"), [8, 1, HEAVY_HYDROGEN]);
    assert_eq!(iso("M  ISO  1   9   2"), [8, 1, 1]);
    assert_eq!(iso("M  ISO"), [8, 1, 1]);
    assert_eq!(
        iso("M  ISO  3 -9223372036854775808   2   0   2   3   2"),
        [8, 1, HEAVY_HYDROGEN]
    );
    let column = WATER.replace(
        "0.7572   -0.4692 H   0  0\n    0",
        "0.7572   -0.4692 H   1  0\n    0",
    );
    assert_eq!(read_all(&column)[0].numbers, [8, HEAVY_HYDROGEN, 1]);
}

#[test]
fn coordinates_that_are_not_finite_are_handed_over() {
    assert!(read_all(&WATER.replace("    0.7572", "       nan"))[0].positions[1][1].is_nan());
}

#[test]
fn properties_may_look_like_anything_and_be_absent() {
    let alias = WATER.replace(
        "M  END",
        "A    1\n  1  2  1  0\nV    1 text\nM  CHG  1   1  -1\nM  END",
    );
    assert_eq!(read_all(&alias)[0].numbers.len(), 3);
    let old = WATER.replace("M  END\n", "") + "$$$$\n" + WATER;
    assert_eq!(read_all(&old).len(), 2);
    let fields = WATER.replace("M  END\n", "") + "> <smiles>\nO\n\n$$$$\n";
    assert_eq!(read_all(&fields)[0].molecule, "O");
    let empty = "nothing\n\n\n  0  0  0  0  0  0            999 V2000\nM  END\n$$$$\n";
    assert_eq!(read_all(empty)[0].numbers.len(), 0);
}

#[test]
fn counts_that_lie_are_refused_with_the_line() {
    for (from, to, message) in [
        (
            "  3  2  0  0",
            "  4  2  0  0",
            "structure 1, line 8: one of 4 atoms was expected, found \"  1  2  1  0\"",
        ),
        (
            "  3  2  0  0",
            "  2  2  0  0",
            "line 7: one of 2 bonds between atoms 1 to 2 was expected",
        ),
        (
            "  3  2  0  0",
            "  3  3  0  0",
            "line 10: one of 3 bonds between atoms 1 to 3 was expected, found \"M  END\"",
        ),
        (
            "  3  2  0  0",
            "  3  1  0  0",
            "line 9: the end of the structure (its counts line states fewer atoms or bonds)",
        ),
        (
            "  3  2  0  0",
            "  3  0  0  0",
            "states fewer atoms or bonds",
        ),
        ("  3  2  0  0", "  x  2  0  0", "line 4: a counts line"),
        ("  1  3  1  0", "  1  4  1  0", "bonds between atoms 1 to 3"),
        ("  1  3  1  0", "  0  3  1  0", "bonds between atoms 1 to 3"),
        (
            "    0.7572",
            "    zero  ",
            "line 6: one of 3 atoms was expected",
        ),
    ] {
        let error = refused(&WATER.replacen(from, to, 1));
        assert!(
            error.contains(message) && error.contains("x.sdf") && error.contains("fetch it again"),
            "{error}"
        );
    }
    for (from, to, message) in [
        (
            "COUNTS 3 2",
            "COUNTS 4 2",
            "COUNTS states 4 atoms and 2 bonds, there are 3 and 2",
        ),
        ("COUNTS 3 2", "COUNTS 99999999999 2", "COUNTS with numbers"),
        ("M  V30 COUNTS 3 2 0 0 0\n", "", "no COUNTS"),
        (
            "1 1 10 20",
            "1 1 10 21",
            "a bond between two atoms was expected",
        ),
        (
            "7 H 0 -0.7572",
            "10 H 0 -0.7572",
            "atom 10 stands there twice",
        ),
        ("10 O 0 0", "10 O 0 zero", "an atom was expected"),
        ("M  END\n", "", "without \"M  END\""),
    ] {
        let error = refused(&WATER_V3000.replacen(from, to, 1));
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused_or_lacks_its_last_fields() {
    for whole in [
        format!("{WATER}$$$$\n{WATER}> <a>\n1\n\n$$$$\n"),
        format!("{WATER}$$$$\n{WATER_V3000}"),
    ] {
        let second = whole.find("$$$$\n").unwrap() + 5;
        let end = second + whole[second..].find("M  END").unwrap();
        for length in second + 1..whole.len() {
            let (found, result) = collect(&whole[..length]);
            // Blank lines after the last structure are allowed; after "M  END" only fields can be missing.
            let (is_blank, is_complete) =
                (whole[second..length].trim().is_empty(), length >= end + 6);
            assert_eq!(
                (found.len(), result.is_ok()),
                (1 + usize::from(is_complete), is_blank || is_complete),
                "{length}"
            );
        }
    }
}

#[test]
fn other_content_is_refused() {
    for (text, message) in [
        ("", "it holds no structure"),
        ("\n\n\n\n\n", "it holds no structure"),
        ("\n\n\n\n\nx", "a structure was expected after blank lines"),
        ("hello", "the file ends inside a structure"),
        (
            "a\nb\nc\nd\ne\n",
            "a counts line (numbers of atoms and bonds) was expected, found \"d\"",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(message), "{error}");
    }
    let garbage: String = (0..3_000_000_u32)
        .map(|i| char::from((i.wrapping_mul(2_654_435_761) >> 25) as u8 | 0x20))
        .collect();
    assert!(refused(&garbage).contains("too long for a line"));
}

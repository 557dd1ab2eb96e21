//! A small writer of BinaryCIF that uses every encoding of the format.

use crate::make::{Atom, ITEMS, values};
use rmpv::Value;

/// How the coordinates are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coordinates {
    /// FixedPoint, Delta, IntegerPacking (2 bytes), ByteArray: what the archive writes. Exact for three decimals.
    Fixed,
    /// Plain doubles.
    Doubles,
    /// IntervalQuantization in steps of a thousandth, IntegerPacking (1 byte).
    Quantised,
}

fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Map(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect())
}

fn encoding<const N: usize>(kind: &str, pairs: [(&str, Value); N]) -> Value {
    let Value::Map(rest) = map(pairs) else {
        unreachable!()
    };
    Value::Map(
        [("kind".into(), kind.into())]
            .into_iter()
            .chain(rest)
            .collect(),
    )
}

fn byte_array(kind: i64) -> Value {
    encoding("ByteArray", [("type", kind.into())])
}

fn data(bytes: Vec<u8>, encodings: Vec<Value>) -> Value {
    map([
        ("data", Value::Binary(bytes)),
        ("encoding", Value::Array(encodings)),
    ])
}

fn i32_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Splits integers into parts of one or two bytes: parts at a limit are followed by the rest.
fn pack(values: &[i32], byte_count: i64) -> Vec<i32> {
    let (low, high) = if byte_count == 1 {
        (-128, 127)
    } else {
        (-32768, 32767)
    };
    let mut parts = Vec::new();
    for &value in values {
        let mut rest = value;
        while rest >= high {
            parts.push(high);
            rest -= high;
        }
        while rest <= low {
            parts.push(low);
            rest -= low;
        }
        parts.push(rest);
    }
    parts
}

fn packed(values: &[i32], byte_count: i64) -> (Vec<u8>, Vec<Value>) {
    let parts = pack(values, byte_count);
    let bytes = match byte_count {
        1 => parts
            .iter()
            .flat_map(|p| (*p as i8).to_le_bytes())
            .collect(),
        _ => parts
            .iter()
            .flat_map(|p| (*p as i16).to_le_bytes())
            .collect(),
    };
    let packing = encoding(
        "IntegerPacking",
        [
            ("byteCount", byte_count.into()),
            ("isUnsigned", false.into()),
            ("srcSize", values.len().into()),
        ],
    );
    (bytes, vec![packing, byte_array(byte_count)])
}

fn deltas(values: &[i32]) -> (Vec<i32>, Value) {
    let origin = values.first().copied().unwrap_or(0);
    let steps = std::iter::once(0)
        .chain(values.windows(2).map(|w| w[1] - w[0]))
        .take(values.len())
        .collect();
    (
        steps,
        encoding("Delta", [("origin", origin.into()), ("srcType", 3.into())]),
    )
}

fn runs(values: &[i32]) -> (Vec<i32>, Value) {
    let mut pairs: Vec<i32> = Vec::new();
    for &value in values {
        match pairs.len() {
            n if n >= 2 && pairs[n - 2] == value => pairs[n - 1] += 1,
            _ => pairs.extend([value, 1]),
        }
    }
    (
        pairs,
        encoding(
            "RunLength",
            [("srcType", 3.into()), ("srcSize", values.len().into())],
        ),
    )
}

fn integers(values: &[i32]) -> Value {
    let (steps, delta) = deltas(values);
    let (pairs, run) = runs(&steps);
    let (bytes, rest) = packed(&pairs, 1);
    data(bytes, [vec![delta, run], rest].concat())
}

fn coordinates(values: &[f64], how: Coordinates) -> Value {
    let thousandths: Vec<i32> = values.iter().map(|v| (1000.0 * v).round() as i32).collect();
    match how {
        Coordinates::Fixed => {
            let (steps, delta) = deltas(&thousandths);
            let (bytes, rest) = packed(&steps, 2);
            let fixed = encoding(
                "FixedPoint",
                [("factor", 1000.into()), ("srcType", 32.into())],
            );
            data(bytes, [vec![fixed, delta], rest].concat())
        }
        Coordinates::Doubles => data(
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            vec![byte_array(33)],
        ),
        Coordinates::Quantised => {
            let (low, high) = (
                *thousandths.iter().min().unwrap(),
                *thousandths.iter().max().unwrap(),
            );
            let steps: Vec<i32> = thousandths.iter().map(|t| t - low).collect();
            let (bytes, rest) = packed(&steps, 1);
            let (min, max) = (f64::from(low) / 1000.0, f64::from(high) / 1000.0);
            let pairs = [
                ("min", min.into()),
                ("max", max.into()),
                ("numSteps", (high - low + 1).into()),
                ("srcType", 32.into()),
            ];
            data(
                bytes,
                [vec![encoding("IntervalQuantization", pairs)], rest].concat(),
            )
        }
    }
}

fn strings(values: &[String]) -> Value {
    let mut list: Vec<&String> = Vec::new();
    let place = |v: &String, list: &mut Vec<&String>| list.iter().position(|l| *l == v);
    for value in values.iter().filter(|v| !v.is_empty()) {
        if place(value, &mut list).is_none() {
            list.push(value);
        }
    }
    let places: Vec<i32> = values
        .iter()
        .map(|v| list.iter().position(|l| *l == v).map_or(-1, |p| p as i32))
        .collect();
    let offsets: Vec<i32> = list.iter().fold(vec![0], |mut o, v| {
        o.push(o.last().unwrap() + v.len() as i32);
        o
    });
    let (pairs, run) = runs(&places);
    let array = encoding(
        "StringArray",
        [
            ("dataEncoding", Value::Array(vec![run, byte_array(3)])),
            (
                "stringData",
                list.iter().map(|s| s.as_str()).collect::<String>().into(),
            ),
            ("offsetEncoding", Value::Array(vec![byte_array(3)])),
            ("offsets", Value::Binary(i32_bytes(&offsets))),
        ],
    );
    data(i32_bytes(&pairs), vec![array])
}

/// 0 where there is a value, 1 for `.`.
fn mask(values: &[String]) -> Value {
    if values.iter().all(|v| !v.is_empty()) {
        return Value::Nil;
    }
    data(
        values.iter().map(|v| u8::from(v.is_empty())).collect(),
        vec![byte_array(4)],
    )
}

fn column(name: &str, values: &[String], how: Coordinates) -> Value {
    let parsed = match name {
        "id" | "auth_seq_id" | "pdbx_PDB_model_num" => integers(
            &values
                .iter()
                .map(|v| v.parse().unwrap())
                .collect::<Vec<_>>(),
        ),
        "Cartn_x" | "Cartn_y" | "Cartn_z" => coordinates(
            &values
                .iter()
                .map(|v| v.parse().unwrap())
                .collect::<Vec<_>>(),
            how,
        ),
        _ => strings(values),
    };
    map([
        ("name", name.into()),
        ("data", parsed),
        ("mask", mask(values)),
    ])
}

fn category(name: &str, items: &[&str], rows: &[Vec<String>], how: Coordinates) -> Value {
    let columns = items.iter().enumerate().map(|(i, item)| {
        column(
            item,
            &rows.iter().map(|r| r[i].clone()).collect::<Vec<_>>(),
            how,
        )
    });
    map([
        ("name", name.into()),
        ("rowCount", rows.len().into()),
        ("columns", Value::Array(columns.collect())),
    ])
}

/// A file with these atoms, determined by diffraction at 1.5 Å.
pub(crate) fn bcif(atoms: &[Atom], how: Coordinates) -> Vec<u8> {
    let rows: Vec<Vec<String>> = atoms
        .iter()
        .enumerate()
        .map(|(i, a)| values(i, a).to_vec())
        .collect();
    let row = |value: &str| [vec![value.to_owned()]];
    let categories = vec![
        category("_exptl", &["method"], &row("X-RAY DIFFRACTION"), how),
        category("_refine", &["ls_d_res_high"], &row("1.5"), how),
        category("_atom_site", &ITEMS, &rows, how),
    ];
    let block = map([
        ("header", "MADE".into()),
        ("categories", Value::Array(categories)),
    ]);
    let document = map([
        ("encoder", "test".into()),
        ("version", "0.3.0".into()),
        ("dataBlocks", Value::Array(vec![block])),
    ]);
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &document).unwrap();
    bytes
}

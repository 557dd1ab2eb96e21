//! Datasets.

use crate::{
    subject::DatasetSubject,
    verdict::{Stop, Verdict, fail, skip},
};
use equivbench_abi::descriptor::DatasetRequest;
use equivbench_core::{Batch, Dataset, FieldKind, Rows, Values};
use equivbench_host::LoadedDataset;
use std::collections::{HashMap, HashSet};

/// Samples of a split that are looked at, and how many are loaded at once.
const LOOKED_AT: u64 = 256;
const AT_ONCE: usize = 32;
/// Groups that are asked for at once.
const GROUPS_AT_ONCE: usize = 1 << 16;

/// Splits that hold samples, with their sizes.
fn splits(dataset: &LoadedDataset) -> Vec<(String, u64)> {
    dataset
        .descriptor()
        .splits
        .iter()
        .filter(|s| s.samples > 0)
        .map(|s| (s.name.clone(), s.samples))
        .collect()
}

/// Evenly spaced indices of a split, the first and the last among them.
fn spread(samples: u64, count: u64) -> Vec<u64> {
    let count = count.min(samples);
    (0..count)
        .map(|i| {
            if count == 1 {
                0
            } else {
                i * (samples - 1) / (count - 1)
            }
        })
        .collect()
}

/// Looks at many samples of every split.
fn each_batch(
    dataset: &mut LoadedDataset,
    mut look: impl FnMut(&str, &Batch) -> Result<(), Stop>,
) -> Result<u64, Stop> {
    let mut seen = 0;
    for (split, samples) in splits(dataset) {
        for indices in spread(samples, LOOKED_AT).chunks(AT_ONCE) {
            let batch = dataset.load(&split, indices)?;
            if batch.samples() != indices.len() {
                return fail(format!(
                    "split \"{split}\": {} samples for {} indices",
                    batch.samples(),
                    indices.len()
                ));
            }
            look(&split, &batch)?;
            seen += indices.len() as u64;
        }
    }
    if seen == 0 {
        fail("every split is empty")
    } else {
        Ok(seen)
    }
}

/// Descriptions repeat and make sense.
pub(crate) fn describe(subject: &DatasetSubject<'_>) -> Verdict {
    let dataset = subject.open()?;
    let descriptor = dataset.descriptor();
    // Compared as text: a figure that is not a number differs from itself.
    let text = |d: &_| serde_json::to_string(d).unwrap_or_default();
    if text(&dataset.describe()?) != text(descriptor) {
        return fail("two descriptions differ");
    }
    if descriptor.name.is_empty() || descriptor.fields.is_empty() {
        return fail("the description has no name or no fields");
    }
    if splits(&dataset).is_empty() {
        return fail("every split is empty");
    }
    if let Some(split) = descriptor.splits.iter().find(|s| s.groups > s.samples) {
        return fail(format!(
            "split \"{}\" has more groups ({}) than samples ({})",
            split.name, split.groups, split.samples
        ));
    }
    for (name, normaliser) in &descriptor.normalisers {
        let Some(field) = descriptor.fields.iter().find(|f| f.name == *name) else {
            return fail(format!(
                "there is a normaliser for \"{name}\", which is no field"
            ));
        };
        if !(normaliser.mean.is_finite() && normaliser.scale.is_finite() && normaliser.scale > 0.0)
        {
            return fail(format!(
                "the normaliser of \"{name}\" is mean {}, scale {}",
                normaliser.mean, normaliser.scale
            ));
        }
        if field.kind == "vector" && normaliser.mean != 0.0 {
            return fail(format!(
                "the normaliser of the vector \"{name}\" subtracts {}, which no rotation respects",
                normaliser.mean
            ));
        }
    }
    let sizes: Vec<String> = splits(&dataset)
        .into_iter()
        .map(|(name, samples)| format!("{name} {samples}"))
        .collect();
    Ok(format!("{}: {}", descriptor.name, sizes.join(", ")))
}

/// The hash depends on the content alone.
pub(crate) fn content_hash(subject: &DatasetSubject<'_>) -> Verdict {
    let (first, second) = (subject.open()?, subject.open()?);
    let hash = &first.descriptor().content_hash;
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return fail(format!(
            "the content hash \"{hash}\" is no hexadecimal SHA-256"
        ));
    }
    if second.descriptor().content_hash != *hash {
        return fail("the content hash changes each time the dataset is opened");
    }
    Ok(hash[..12].to_owned())
}

/// What the dataset says about itself.
pub(crate) fn self_report(subject: &DatasetSubject<'_>) -> Verdict {
    let dataset = subject.open()?;
    let checks = &dataset.descriptor().checks;
    if checks.is_empty() {
        return skip("it checks nothing about itself");
    }
    match checks.iter().find(|c| !c.passed) {
        Some(c) => fail(format!("{}: {} {}. {}", c.name, c.value, c.unit, c.about)),
        None => Ok(format!("{} of its own checks", checks.len())),
    }
}

/// Every number is finite; the host's loading checks it and names the sample.
pub(crate) fn finite(subject: &DatasetSubject<'_>) -> Verdict {
    let seen = each_batch(&mut subject.open()?, |_, _| Ok(()))?;
    Ok(format!("{seen} samples"))
}

/// Fields that the harness computes with have the shape it expects.
pub(crate) fn shapes(subject: &DatasetSubject<'_>) -> Verdict {
    let mut dataset = subject.open()?;
    let expected = [
        ("positions", FieldKind::Vector, Rows::Point, 3),
        ("forces", FieldKind::Vector, Rows::Point, 3),
        ("energy", FieldKind::Invariant, Rows::Sample, 1),
        ("species", FieldKind::Invariant, Rows::Point, 1),
        ("residue_index", FieldKind::Invariant, Rows::Point, 1),
        ("chain_break", FieldKind::Invariant, Rows::Point, 1),
    ];
    let mut points = 0;
    let samples = each_batch(&mut dataset, |split, batch| {
        points += batch.points();
        if let Some(empty) = batch.offsets.windows(2).position(|w| w[0] == w[1]) {
            return fail(format!(
                "split \"{split}\": sample {empty} of a batch has no points"
            ));
        }
        for (name, kind, rows, width) in expected {
            let Ok(field) = batch.field(name) else {
                continue;
            };
            if field.kind != kind || field.rows != rows || field.width() != width {
                return fail(format!(
                    "field \"{name}\" is {:?} by {:?} with {} numbers in a row",
                    field.kind,
                    field.rows,
                    field.width()
                ));
            }
        }
        match batch
            .fields
            .iter()
            .find(|f| f.kind == FieldKind::Vector && f.shape.last() != Some(&3))
        {
            Some(field) => fail(format!(
                "the vector \"{}\" has shape {:?}; its last axis must have length 3",
                field.name, field.shape
            )),
            None => Ok(()),
        }
    })?;
    Ok(format!("{samples} samples, {points} points"))
}

/// Atomic numbers.
pub(crate) fn species(subject: &DatasetSubject<'_>) -> Verdict {
    let mut dataset = subject.open()?;
    if !dataset
        .descriptor()
        .fields
        .iter()
        .any(|f| f.name == "species")
    {
        return skip("it has no field \"species\"");
    }
    let mut found = std::collections::BTreeSet::new();
    each_batch(&mut dataset, |split, batch| {
        let Values::Index(species) = &batch.field("species")?.values else {
            return fail("species are not integers");
        };
        match species.iter().find(|z| !(1..=118).contains(*z)) {
            Some(z) => fail(format!(
                "split \"{split}\": species {z} is no atomic number"
            )),
            None => {
                found.extend(species.iter().copied());
                Ok(())
            }
        }
    })?;
    Ok(format!("{} elements", found.len()))
}

/// The same request, the same bytes.
pub(crate) fn repeatable(subject: &DatasetSubject<'_>) -> Verdict {
    let (mut dataset, mut again) = (subject.open()?, subject.open()?);
    for (split, samples) in splits(&dataset) {
        let indices = spread(samples, AT_ONCE as u64);
        let first = dataset.load(&split, &indices)?;
        // Other samples in between show a state that is carried along.
        dataset.load(&split, &spread(samples, 3))?;
        if dataset.load(&split, &indices)? != first {
            return fail(format!(
                "split \"{split}\": the same indices give other samples the second time"
            ));
        }
        if again.load(&split, &indices)? != first {
            return fail(format!(
                "split \"{split}\": opened again with the same seed it holds other samples"
            ));
        }
    }
    Ok(format!(
        "{} splits, twice in one and once in another",
        splits(&dataset).len()
    ))
}

/// Batches are their samples, one after the other.
pub(crate) fn order(subject: &DatasetSubject<'_>) -> Verdict {
    let mut dataset = subject.open()?;
    for (split, samples) in splits(&dataset) {
        let mut indices = spread(samples, 5);
        indices.reverse();
        let turn = 1.min(indices.len() - 1);
        indices.rotate_left(turn);
        let together = dataset.load(&split, &indices)?;
        let mut apart = Vec::new();
        for index in &indices {
            apart.push(dataset.load(&split, &[*index])?);
        }
        if joined(&apart) != together {
            return fail(format!(
                "split \"{split}\": samples {indices:?} together differ from the same samples one by one"
            ));
        }
    }
    Ok(format!("{} splits", splits(&dataset).len()))
}

/// Batches one after the other.
fn joined(batches: &[Batch]) -> Batch {
    let mut whole = batches[0].clone();
    for batch in &batches[1..] {
        let end = whole.points();
        whole
            .offsets
            .extend(batch.offsets[1..].iter().map(|o| o + end));
        for (field, more) in whole.fields.iter_mut().zip(&batch.fields) {
            field.shape[0] += more.shape[0];
            match (&mut field.values, &more.values) {
                (Values::Real(a), Values::Real(b)) => a.extend(b),
                (Values::Index(a), Values::Index(b)) => a.extend(b),
                _ => {}
            }
        }
    }
    whole
}

/// Groups of a whole split, asked for in pieces.
fn groups_of_split(
    dataset: &LoadedDataset,
    split: &str,
    samples: u64,
) -> Result<Option<Vec<u64>>, Stop> {
    let indices: Vec<u64> = (0..samples).collect();
    let mut groups = Vec::new();
    for indices in indices.chunks(GROUPS_AT_ONCE) {
        match dataset.groups_of(split, indices)? {
            Some(more) => groups.extend(more),
            None if groups.is_empty() => return Ok(None),
            None => return fail(format!("split \"{split}\": only some samples have groups")),
        }
    }
    Ok(Some(groups))
}

/// Every sample has a group, always the same one, whatever else is asked for.
fn groups_repeat(dataset: &LoadedDataset, split: &str, groups: &[u64]) -> Result<(), Stop> {
    let mut indices = spread(groups.len() as u64, LOOKED_AT);
    indices.reverse();
    let turn = indices.len() / 3;
    indices.rotate_left(turn);
    let expected: Vec<u64> = indices.iter().map(|&i| groups[i as usize]).collect();
    for _ in 0..2 {
        let Some(found) = dataset.groups_of(split, &indices)? else {
            return fail(format!(
                "split \"{split}\": asked again, it does not know groups"
            ));
        };
        if let Some(at) = (0..found.len()).find(|&at| found[at] != expected[at]) {
            return fail(format!(
                "split \"{split}\": sample {} is in group {} among all samples in order, and in group {} among others in another order",
                indices[at], expected[at], found[at]
            ));
        }
    }
    Ok(())
}

/// Groups are complete, repeat, add up, and lie in one split each.
pub(crate) fn groups(subject: &DatasetSubject<'_>) -> Verdict {
    let (dataset, again) = (subject.open()?, subject.open()?);
    let mut home: HashMap<u64, (String, usize)> = HashMap::new();
    let (mut counts, mut silent) = (Vec::new(), Vec::new());
    for (split, samples) in splits(&dataset) {
        let Some(groups) = groups_of_split(&dataset, &split, samples)? else {
            silent.push(split);
            continue;
        };
        groups_repeat(&dataset, &split, &groups)?;
        groups_repeat(&again, &split, &groups)?;
        for (sample, &group) in groups.iter().enumerate() {
            let (other, of) = home.entry(group).or_insert_with(|| (split.clone(), sample));
            if *other != split {
                return fail(format!(
                    "group {group} lies in two splits: sample {of} of \"{other}\" and sample {sample} of \"{split}\". A model is \
                     then tested on what it was trained on"
                ));
            }
        }
        let found = groups.iter().collect::<HashSet<_>>().len() as u64;
        let described = dataset.descriptor().splits.iter().find(|s| s.name == split);
        match described.map(|s| s.groups) {
            Some(said) if said != found => {
                return fail(format!(
                    "split \"{split}\" has {found} groups, its description says {said}"
                ));
            }
            _ => counts.push(format!("{split} {found}")),
        }
    }
    match (counts.is_empty(), silent.first()) {
        (true, _) => skip("it does not say which group a sample belongs to"),
        (false, Some(split)) => fail(format!(
            "split \"{split}\" has no groups, others have: {}",
            counts.join(", ")
        )),
        (false, None) => Ok(counts.join(", ")),
    }
}

/// Indices beyond the end.
pub(crate) fn range(subject: &DatasetSubject<'_>) -> Verdict {
    let mut dataset = subject.open()?;
    for (split, samples) in splits(&dataset) {
        for index in [samples, samples + 1000, u64::MAX] {
            if dataset.points(&split, &[0, index]).is_ok() {
                return fail(format!(
                    "split \"{split}\" has {samples} samples, and the size of sample {index} was given without an error"
                ));
            }
            let mut nothing: [equivbench_abi::FieldMut<'_>; 0] = [];
            let answer = dataset.raw().samples_into(
                split.as_str().into(),
                (&[0, index][..]).into(),
                (&mut nothing[..]).into(),
            );
            if answer.into_result().is_ok() {
                return fail(format!(
                    "split \"{split}\" has {samples} samples, and sample {index} was read without an error"
                ));
            }
            if let Ok(Some(_)) = dataset.groups_of(&split, &[0, index]) {
                return fail(format!(
                    "split \"{split}\" has {samples} samples, and the group of sample {index} was given without an error"
                ));
            }
        }
        dataset.load(&split, &[samples - 1])?;
    }
    Ok(format!("{} splits", splits(&dataset).len()))
}

/// Names that are not known.
pub(crate) fn names(subject: &DatasetSubject<'_>) -> Verdict {
    let mut dataset = subject.open()?;
    if dataset.load("no-such-split", &[0]).is_ok() {
        return fail("an unknown split was accepted; it must be an error");
    }
    let unknown = DatasetRequest {
        options: r#"{"no_such_option":1}"#.into(),
        ..subject.request()
    };
    if subject.open_with(&unknown).is_ok() {
        return fail("an unknown option was accepted; it must be an error");
    }
    Ok("splits and options".into())
}

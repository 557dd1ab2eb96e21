//! Greedy clustering by sequence identity: the stand-in for MMseqs2 where no cluster file is given.
//!
//! Sequences are taken from the longest to the shortest. Each joins the first representative, among those that share 4-mers with it on
//! one diagonal, that aligns with it well enough; else it becomes a representative. Equal sequences are one. The result depends on the sequences and their
//! order only, not on the number of threads: a block of sequences is compared with the representatives before it in parallel, and
//! then its remaining members with each other's one by one.

use super::align::{Aligner, UNKNOWN, encode};
use equivbench_plugin::Progress;
use rayon::prelude::*;
use std::collections::HashMap;

/// How similar two members of a cluster are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    /// Identical columns over all columns of the alignment.
    pub(crate) identity: f64,
    /// Aligned residues of the shorter sequence over its length (coverage mode 1 of MMseqs2: of the target).
    pub(crate) coverage: f64,
}

/// Length of the words that candidates share. Two sequences of 150 residues and identity 0.5 share 9 words of 4 on average, two that have
/// nothing to do with each other 0.14.
const WORD: usize = 4;
/// Number of words.
const WORDS: usize = 20_usize.pow(WORD as u32);
/// Words that a candidate must share on neighbouring diagonals of the alignment.
const FEWEST_SHARED: usize = 2;
/// Diagonals that count as neighbours: gaps move an alignment from one to another.
const BAND: u32 = 16;
/// Share of equal residues of two unrelated sequences.
const CHANCE: f64 = 0.06;
/// Standard deviations by which the equal residues on the best diagonal must exceed those of chance. Identity 0.5 exceeds it fourfold without a gap,
/// and still with three of them.
const EXCESS: f64 = 3.5;
/// Candidates that are aligned, those with most equal residues on their best diagonal first.
const MOST_CANDIDATES: usize = 32;
/// Sequences that are compared with the representatives at once.
const BLOCK: usize = 1024;

/// For each sequence the place of its representative; a representative is its own.
pub(crate) fn cluster(sequences: &[&str], thresholds: Thresholds) -> Vec<u32> {
    let (unique, place) = distinct(sequences);
    let encoded: Vec<Vec<u8>> = unique
        .par_iter()
        .map(|&i| encode(sequences[i as usize]))
        .collect();
    let mut order: Vec<u32> = (0..unique.len() as u32).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(encoded[i as usize].len()), i));
    let mut search = Search {
        encoded: &encoded,
        representatives: Vec::new(),
        words: vec![Vec::new(); WORDS],
        thresholds,
    };
    let mut joined: Vec<Option<u32>> = vec![None; unique.len()];
    let progress = Progress::new("clustering sequences", order.len() as u64);
    for block in order.chunks(BLOCK) {
        let known = search.representatives.len() as u32;
        let found: Vec<Option<u32>> = block
            .par_iter()
            .map_init(Scratch::default, |s, &i| search.find(i, 0, s))
            .collect();
        let mut scratch = Scratch::default();
        for (&i, found) in block.iter().zip(found) {
            let found = found.or_else(|| search.find(i, known, &mut scratch));
            joined[i as usize] = Some(found.unwrap_or_else(|| search.add(i)));
        }
        progress.add(block.len() as u64);
    }
    place
        .iter()
        .map(|&p| joined[p as usize].map_or(u32::MAX, |r| unique[r as usize]))
        .collect()
}

/// First place of each sequence, and for each its place among these.
fn distinct(sequences: &[&str]) -> (Vec<u32>, Vec<u32>) {
    let (mut unique, mut known) = (Vec::new(), HashMap::new());
    let number = |(i, sequence)| {
        *known.entry(sequence).or_insert_with(|| {
            unique.push(i as u32);
            unique.len() as u32 - 1
        })
    };
    let place = sequences.iter().copied().enumerate().map(number).collect();
    (unique, place)
}

struct Search<'a> {
    encoded: &'a [Vec<u8>],
    /// Numbers of the sequences that are representatives, in the order in which they became it.
    representatives: Vec<u32>,
    /// For each word where it occurs: the representative by its place in the list, in ascending order, and the residue.
    words: Vec<Vec<(u32, u32)>>,
    thresholds: Thresholds,
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// Shared words: representative by its place, diagonal.
    hits: Vec<(u32, u32)>,
    /// Equal residues on the best diagonal, and the representative by its place.
    candidates: Vec<(usize, u32)>,
    aligner: Aligner,
}

impl Search<'_> {
    /// The representative that a sequence joins, among those from place `from` on.
    fn find(&self, sequence: u32, from: u32, scratch: &mut Scratch) -> Option<u32> {
        let member = &self.encoded[sequence as usize];
        self.candidates(member, from, scratch);
        let Scratch {
            candidates,
            aligner,
            ..
        } = scratch;
        let found = candidates.iter().find(|(_, place)| {
            self.joins(
                &self.encoded[self.representatives[*place as usize] as usize],
                member,
                aligner,
            )
        });
        found.map(|(_, place)| self.representatives[*place as usize])
    }

    /// Representatives that share words with a sequence, the best first; of equal ones the oldest.
    fn candidates(&self, member: &[u8], from: u32, scratch: &mut Scratch) {
        let Scratch {
            hits, candidates, ..
        } = scratch;
        hits.clear();
        candidates.clear();
        for (position, word) in words(member) {
            let list = &self.words[word];
            let fresh = &list[list.partition_point(|occurrence| occurrence.0 < from)..];
            // Diagonals are counted from the one on which the member ends before the representative begins.
            hits.extend(
                fresh
                    .iter()
                    .map(|&(place, at)| (place, at + member.len() as u32 - position)),
            );
        }
        hits.sort_unstable();
        for of_one in hits
            .chunk_by(|a, b| a.0 == b.0)
            .filter(|h| h.len() >= FEWEST_SHARED)
        {
            let Some(diagonal) = best_diagonal(of_one) else {
                continue;
            };
            let representative = &self.encoded[self.representatives[of_one[0].0 as usize] as usize];
            let (equal, overlap) = equal_on(representative, member, diagonal as usize);
            let chance = CHANCE * overlap as f64;
            if equal as f64 >= chance + EXCESS * chance.sqrt() {
                candidates.push((equal, of_one[0].0));
            }
        }
        candidates.sort_unstable_by_key(|&(equal, place)| (std::cmp::Reverse(equal), place));
        candidates.truncate(MOST_CANDIDATES);
    }

    fn joins(&self, representative: &[u8], member: &[u8], aligner: &mut Aligner) -> bool {
        let found = aligner.align(representative, member);
        found.identical as f64 >= self.thresholds.identity * found.columns as f64
            && found.spans.1 as f64 >= self.thresholds.coverage * member.len() as f64
            && found.columns > 0
    }

    fn add(&mut self, sequence: u32) -> u32 {
        let place = self.representatives.len() as u32;
        self.representatives.push(sequence);
        for (position, word) in words(&self.encoded[sequence as usize]) {
            self.words[word].push((place, position));
        }
        sequence
    }
}

/// The diagonal with most of the hits of one representative, sorted by diagonal; `None` if no band holds enough.
fn best_diagonal(hits: &[(u32, u32)]) -> Option<u32> {
    let in_band = |i: usize| {
        hits[i..]
            .iter()
            .take_while(|h| h.1 < hits[i].1 + BAND)
            .count()
    };
    if !(0..hits.len()).any(|i| in_band(i) >= FEWEST_SHARED) {
        return None;
    }
    hits.chunk_by(|a, b| a.1 == b.1)
        .max_by_key(|same| (same.len(), std::cmp::Reverse(same[0].1)))
        .map(|same| same[0].1)
}

/// Equal residues on a diagonal, and its length.
fn equal_on(representative: &[u8], member: &[u8], diagonal: usize) -> (usize, usize) {
    let (a, b) = match diagonal.checked_sub(member.len()) {
        Some(skipped) => (&representative[skipped.min(representative.len())..], member),
        None => (representative, &member[member.len() - diagonal..]),
    };
    (
        a.iter().zip(b).filter(|(x, y)| x == y).count(),
        a.len().min(b.len()),
    )
}

/// The words of a sequence as numbers, with their first residue; words with an unknown residue are passed over.
fn words(sequence: &[u8]) -> impl Iterator<Item = (u32, usize)> + '_ {
    let number = |word: &[u8]| {
        word.iter().try_fold(0, |n, &c| {
            if c == UNKNOWN {
                None
            } else {
                Some(20 * n + usize::from(c))
            }
        })
    };
    sequence
        .windows(WORD)
        .enumerate()
        .filter_map(move |(i, word)| Some((i as u32, number(word)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Thresholds = Thresholds {
        identity: 0.5,
        coverage: 0.8,
    };

    /// Random sequences and relatives of them with a given share of residues kept.
    struct RandomSequences(u64);

    impl RandomSequences {
        fn next(&mut self, below: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % below
        }

        fn sequence(&mut self, length: usize) -> String {
            (0..length)
                .map(|_| char::from(b"ARNDCQEGHILKMFPSTWYV"[self.next(20) as usize]))
                .collect()
        }

        fn relative(&mut self, of: &str, kept_percent: u64) -> String {
            of.chars()
                .map(|c| {
                    if self.next(100) < kept_percent {
                        c
                    } else {
                        self.sequence(1).remove(0)
                    }
                })
                .collect()
        }
    }

    #[test]
    fn diagonals_are_those_of_the_shared_words() {
        let (a, b) = (encode("GGGGMKVLAWCHGG"), encode("PMKVLAWCHP"));
        // b[1..9] lies on a[4..12]: 4 + 10 - 1.
        assert_eq!(equal_on(&a, &b, 13), (8, 10));
        assert_eq!(equal_on(&b, &a, 1 + 14 - 4), (8, 10));
        assert_eq!(
            (equal_on(&a, &b, 0), equal_on(&a, &b, 24)),
            ((0, 0), (0, 0))
        );
        assert_eq!(best_diagonal(&[(0, 5), (0, 9), (0, 9), (0, 40)]), Some(9));
        assert_eq!(best_diagonal(&[(0, 5), (0, 21)]), None);
    }

    #[test]
    fn families_are_found_and_strangers_stay_apart() {
        let mut draw = RandomSequences(3);
        let founders: Vec<String> = (0..60)
            .map(|_| {
                let length = 60 + draw.next(150) as usize;
                draw.sequence(length)
            })
            .collect();
        let mut all = founders.clone();
        for founder in &founders {
            // Kept residues and chance hits: about 72 % identity.
            all.push(draw.relative(founder, 70));
            all.push(founder.clone());
            // Nine tenths of it.
            all.push(founder[..founder.len() * 9 / 10].to_owned());
        }
        let texts: Vec<&str> = all.iter().map(String::as_str).collect();
        let found = cluster(&texts, HALF);
        assert_eq!(found[..60], (0..60).collect::<Vec<u32>>());
        for (i, founder) in (0..60_u32).enumerate() {
            assert_eq!(found[60 + 3 * i..63 + 3 * i], [founder; 3]);
        }
        assert_eq!(found, cluster(&texts, HALF));
    }

    #[test]
    fn identity_and_coverage_are_needed_both() {
        let mut draw = RandomSequences(5);
        let founder = draw.sequence(200);
        let distant = draw.relative(&founder, 25);
        // Half of it is the founder's, the other half is not.
        let partial = format!("{}{}", &founder[..100], draw.sequence(90));
        assert_eq!(cluster(&[&founder, &distant, &partial], HALF), [0, 1, 2]);
        assert_eq!(
            cluster(
                &[&founder, &partial],
                Thresholds {
                    coverage: 0.4,
                    ..HALF
                }
            ),
            [0, 0]
        );
        let near = draw.relative(&founder, 70);
        assert_eq!(
            cluster(
                &[&founder, &near],
                Thresholds {
                    identity: 0.9,
                    ..HALF
                }
            ),
            [0, 1]
        );
        // The shorter one is what has to be covered, whatever the order.
        assert_eq!(cluster(&[&founder[..120], &founder], HALF), [1, 1]);
        assert_eq!(cluster(&[], HALF), [] as [u32; 0]);
        assert_eq!(
            cluster(&["XXXXXXXXXX", "XXXXXXXXXX", "GG"], HALF),
            [0, 0, 2]
        );
    }

    /// Every pair of representatives, aligned: those that are similar enough were missed by the word filter. In the embedded sample
    /// and among real chains.
    #[test]
    fn the_word_filter_misses_hardly_any_relatives() {
        let sample = crate::embedded::sample().unwrap();
        let sequences: Vec<&str> = sample.chains.iter().map(|c| c.sequence.as_str()).collect();
        assert_few_are_missed(&sequences);
        let Some(table) = equivbench_testkit::more_data("real/chains_distinct.csv") else {
            return;
        };
        let text = std::fs::read_to_string(table).unwrap();
        // path, chain, number of residues, rough cluster, sequence.
        let sequences: Vec<&str> = text
            .lines()
            .skip(1)
            .filter_map(|l| l.split(',').nth(4))
            .filter(|s| s.len() < 256)
            .collect();
        assert_few_are_missed(&sequences);
    }

    fn assert_few_are_missed(sequences: &[&str]) {
        let found = cluster(sequences, HALF);
        let mut representatives: Vec<usize> = found.iter().map(|&r| r as usize).collect();
        representatives.sort_unstable_by_key(|&r| (std::cmp::Reverse(sequences[r].len()), r));
        representatives.dedup();
        let encoded: Vec<Vec<u8>> = representatives
            .iter()
            .map(|&r| encode(sequences[r]))
            .collect();
        let search = Search {
            encoded: &encoded,
            representatives: Vec::new(),
            words: Vec::new(),
            thresholds: HALF,
        };
        let missed = |i: usize| {
            let mut aligner = Aligner::default();
            (0..i)
                .filter(|&j| search.joins(&encoded[j], &encoded[i], &mut aligner))
                .count()
        };
        let missed: usize = (0..encoded.len()).into_par_iter().map(missed).sum();
        println!(
            "{} sequences, {} clusters, {missed} similar pairs of representatives were missed",
            sequences.len(),
            encoded.len()
        );
        assert!(
            encoded.len() > 80 && 100 * missed <= encoded.len(),
            "{missed} of {}",
            encoded.len()
        );
    }

    /// Prints how long a set takes that is built like the archive: a third of the chains have a sequence of their own, in families of three.
    /// `EQUIVBENCH_PDB_CHAINS=225000` is its size.
    #[test]
    fn a_large_set_is_clustered_in_reasonable_time() {
        let chains = std::env::var("EQUIVBENCH_PDB_CHAINS")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(2000_usize);
        let mut draw = RandomSequences(11);
        let mut all = Vec::new();
        while all.len() < chains {
            let length = 60 + draw.next(190) as usize;
            let founder = draw.sequence(length);
            for _ in 0..3 {
                // Two relatives share 0.8² of the founder's residues, and chance hits.
                let member = draw.relative(&founder, 80);
                all.extend([member.clone(), member.clone(), member]);
            }
        }
        let texts: Vec<&str> = all.iter().map(String::as_str).collect();
        let start = std::time::Instant::now();
        let found = cluster(&texts, HALF);
        let clusters = found.iter().collect::<std::collections::HashSet<_>>().len();
        println!(
            "{} chains in {clusters} clusters: {:.1} s",
            texts.len(),
            start.elapsed().as_secs_f64()
        );
        // A few short relatives share no two words, or align over less than the coverage.
        let families = texts.len() / 9;
        assert!(
            (families..=families + families / 100 + 1).contains(&clusters),
            "{clusters} clusters of {families} families"
        );
    }

    #[test]
    fn blocks_and_threads_change_nothing() {
        let mut draw = RandomSequences(7);
        let mut all = Vec::new();
        while all.len() < 3000 {
            let founder = draw.sequence(60);
            all.extend((0..3).map(|_| draw.relative(&founder, 75)));
        }
        let texts: Vec<&str> = all.iter().map(String::as_str).collect();
        let alone = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap()
            .install(|| cluster(&texts, HALF));
        let many = rayon::ThreadPoolBuilder::new()
            .num_threads(4)
            .build()
            .unwrap()
            .install(|| cluster(&texts, HALF));
        assert_eq!(alone, many);
        assert!(
            alone
                .iter()
                .enumerate()
                .all(|(i, &r)| alone[r as usize] == r && (r as usize) <= i
                    || all[r as usize].len() >= all[i].len())
        );
    }
}

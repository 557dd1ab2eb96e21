//! Work on many numbers at once, cut into pieces of fixed size: results do not depend on the number of threads.

use rayon::prelude::*;

/// How many digits numbers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32.
    Single,
    /// f64.
    Double,
}

/// Numbers that are taken together: grids have millions.
const CHUNK: usize = 1 << 14;

/// Replaces `to` by the images of `from`.
pub fn map_into<A: Copy + Sync, B: Copy + Default + Send>(
    from: &[A],
    to: &mut Vec<B>,
    map: impl Fn(A) -> B + Sync,
) {
    // All of it is overwritten, so what a reused buffer holds may stay.
    to.resize(from.len(), B::default());
    let convert = |(to, from): (&mut [B], &[A])| {
        to.iter_mut()
            .zip(from)
            .for_each(|(to, &from)| *to = map(from))
    };
    if from.len() <= CHUNK {
        convert((to, from));
    } else {
        to.par_chunks_mut(CHUNK)
            .zip(from.par_chunks(CHUNK))
            .for_each(convert);
    }
}

/// The first number of a kind. On the calling thread: who waits for a pool that makes the next batch waits longer than this takes.
pub fn first_that<A: Copy>(values: &[A], is_it: impl Fn(A) -> bool + Copy) -> Option<usize> {
    // In the widest registers that the machine has.
    let first = CHUNK
        * pulp::Arch::new()
            .dispatch(|| values.chunks(CHUNK).position(|chunk| has_one(chunk, is_it)))?;
    values[first..]
        .iter()
        .position(|&v| is_it(v))
        .map(|at| first + at)
}

/// Without a way out in the middle: a loop that compilers turn into vector instructions.
#[inline(always)]
fn has_one<A: Copy>(chunk: &[A], is_it: impl Fn(A) -> bool) -> bool {
    chunk
        .iter()
        .fold(0_u32, |found, &v| found | u32::from(is_it(v)))
        != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_and_searches_do_not_depend_on_where_work_is_cut() {
        for count in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let from: Vec<f64> = (0..count).map(|i| i as f64 * 0.1).collect();
            let mut to = vec![7.0_f32; 5];
            map_into(&from, &mut to, |v| v as f32);
            assert_eq!(to, from.iter().map(|&v| v as f32).collect::<Vec<_>>());
            assert_eq!(first_that(&from, f64::is_nan), None);
            for at in [0, count / 2, count.saturating_sub(1)]
                .into_iter()
                .filter(|at| *at < count)
            {
                let mut bad = from.clone();
                bad[at..].fill(f64::NAN);
                assert_eq!(first_that(&bad, f64::is_nan), Some(at));
            }
        }
    }
}

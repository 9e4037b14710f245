//! A group as runs: the records of one stream that are written by one call. Pure.

use std::collections::HashMap;

/// A script keeps the server from everything else while it runs: some milliseconds for so many entries. Longer runs
/// are not faster.
const LONGEST: usize = 500;

/// The positions of a group's records, stream by stream, in their order within each. `stream_of` names the stream of a
/// position, `None` what is not to be written.
pub fn runs_of<S: Eq + std::hash::Hash>(
    records: usize,
    mut stream_of: impl FnMut(usize) -> Option<S>,
) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut open: HashMap<S, usize> = HashMap::new();
    for at in 0..records {
        let Some(stream) = stream_of(at) else { continue };
        match open.get(&stream).and_then(|&run| runs.get_mut(run)) {
            Some(run) if run.len() < LONGEST => run.push(at),
            _ => {
                open.insert(stream, runs.len());
                runs.push(vec![at]);
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_apart_and_keep_their_order() {
        let streams = [1, 2, 1, 3, 2, 1];
        let runs = runs_of(streams.len(), |at| (at != 2).then(|| streams[at]));
        assert_eq!(runs, [vec![0, 5], vec![1, 4], vec![3]]);
    }

    #[test]
    fn a_long_run_is_several_in_order() {
        let runs = runs_of(2 * LONGEST + 1, |_| Some(()));
        let lengths: Vec<_> = runs.iter().map(Vec::len).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 1]);
        assert!(runs.concat().is_sorted());
    }
}

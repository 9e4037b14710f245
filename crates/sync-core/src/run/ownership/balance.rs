//! Who should own which bucket: what this member gives up and what it claims, given who else there is. Pure; each
//! member decides for itself alone, by numbers that all of them know, so nobody has to agree on anything first.
//!
//! Every member has a quota, its equal part of all streams. One above its quota gives up whole buckets as long as that
//! leaves it at its quota or above; one below its quota claims free ones until it has reached it. As the quotas add up
//! to all streams, somebody is below its own while a bucket is free; and a bucket that is given up makes the sum of
//! all distances from the quotas smaller, so this comes to rest.
//!
//! Whole databases are shared out in the same way and apart from the streams: one of them may be more work than all
//! streams, so nobody gets streams instead of databases.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::redis::ownership::{Bucket, OF_DATABASES, OF_STREAMS, View};

/// How many streams there are in each bucket that has any; one for each database.
pub(crate) type Weights = BTreeMap<Bucket, u32>;

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) give_up: Vec<Bucket>,
    pub(super) claim: Vec<Bucket>,
}

/// `mine` is what the member `me` owns and does not give up already. `alike`: all members read the same streams. If not
/// (settings changed in some of them), what is free is claimed by whoever has a use for it, and nothing is evened out.
pub(super) fn moves(
    me: &str,
    view: &View,
    weights: &Weights,
    mine: &BTreeSet<Bucket>,
    giving: &BTreeSet<Bucket>,
    alike: bool,
) -> Moves {
    let mut moves = Moves::default();
    for kind in [OF_STREAMS, OF_DATABASES] {
        let Moves { mut give_up, mut claim } = moves_of(kind, me, view, weights, mine, giving, alike);
        moves.give_up.append(&mut give_up);
        moves.claim.append(&mut claim);
    }
    moves
}

/// The same for the buckets of one kind.
fn moves_of(
    kind: RangeInclusive<Bucket>,
    me: &str,
    view: &View,
    weights: &Weights,
    mine: &BTreeSet<Bucket>,
    giving: &BTreeSet<Bucket>,
    alike: bool,
) -> Moves {
    let quota = if alike { quota(&kind, me, view, weights) } else { u64::MAX };
    let weight = |bucket: &Bucket| u64::from(weights.get(bucket).copied().unwrap_or(0));
    let mut load: u64 = mine.range(kind.clone()).map(weight).sum();
    let mut moves = Moves::default();
    for bucket in mine.range(kind.clone()).rev() {
        let weight = weight(bucket);
        // One without streams is of no use here, and may be to a member that reads other streams.
        if weight == 0 || load.saturating_sub(weight) >= quota {
            load -= weight;
            moves.give_up.push(*bucket);
        }
    }
    // Two that claim at once begin at different places.
    let members = view.members.len().max(1);
    let rank = view.members.keys().position(|name| name == me).unwrap_or_default();
    let free: Vec<Bucket> = weights
        .range(kind.clone())
        .map(|(bucket, _)| *bucket)
        .filter(|bucket| {
            // One that is this member's own and not known to be: the answer to its claim was lost.
            let free = view.owners.get(bucket).is_none_or(|owner| owner == me);
            free && !mine.contains(bucket) && !giving.contains(bucket)
        })
        .collect();
    let from = free.len() * rank / members;
    for bucket in free[from..].iter().chain(&free[..from]) {
        if load >= quota {
            break;
        }
        load += weight(bucket);
        moves.claim.push(*bucket);
    }
    // Owned without this member knowing, as above, and more than it should have: nobody else can claim them.
    let unknown = view.owners.iter().filter(|(bucket, owner)| {
        *owner == me
            && kind.contains(bucket)
            && !mine.contains(bucket)
            && !giving.contains(bucket)
            && !moves.claim.contains(bucket)
    });
    let mut unknown: Vec<Bucket> = unknown.map(|(bucket, _)| *bucket).collect();
    moves.give_up.append(&mut unknown);
    moves
}

/// How much of them this member should have: what does not divide goes to the first ones.
fn quota(kind: &RangeInclusive<Bucket>, me: &str, view: &View, weights: &Weights) -> u64 {
    let all: u64 = weights.range(kind.clone()).map(|(_, weight)| u64::from(*weight)).sum();
    let members = view.members.len().max(1) as u64;
    let rank = view.members.keys().position(|name| name == me).unwrap_or_default() as u64;
    all / members + u64::from(rank < all % members)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::redis::ownership::Member;

    fn member() -> Member {
        Member {
            bridge: "redis2x".into(),
            sink: "x".into(),
            reads: "1".into(),
            consumer: "c".into(),
            host: "h".into(),
            machine: "m".into(),
            pid: 1,
            started: 1,
            version: "1".into(),
        }
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("member-{i}")).collect()
    }

    /// Lets every member act in turn, as often as any of them still wants to, and returns each one's load.
    fn settle(names: &[String], weights: &Weights, owners: &mut HashMap<Bucket, String>) -> Vec<u64> {
        for round in 0.. {
            assert!(round < 50, "it comes to rest");
            let mut moved = false;
            for name in names {
                let members = names.iter().map(|name| (name.clone(), member())).collect();
                let view = View { version: 1, members, owners: owners.clone(), dropped: Vec::new() };
                let mine = owners.iter().filter(|(_, owner)| *owner == name).map(|(b, _)| *b).collect();
                let Moves { give_up, claim } = moves(name, &view, weights, &mine, &BTreeSet::new(), true);
                moved |= !give_up.is_empty() || !claim.is_empty();
                give_up.iter().for_each(|bucket| drop(owners.remove(bucket)));
                for bucket in claim {
                    assert!(owners.insert(bucket, name.clone()).is_none(), "claimed what has an owner");
                }
            }
            if !moved {
                break;
            }
        }
        let load = |name: &String| {
            let owned = owners.iter().filter(|(_, owner)| *owner == name);
            owned.map(|(bucket, _)| u64::from(weights.get(bucket).copied().unwrap_or(0))).sum()
        };
        names.iter().map(load).collect()
    }

    proptest! {
        #[test]
        fn all_is_owned_and_shared_out_whoever_comes_and_goes(
            weights in proptest::collection::btree_map(0u16..1024, 1u32..4, 0..300),
            counts in proptest::collection::vec(1usize..6, 1..4),
        ) {
            let mut owners = HashMap::new();
            for count in counts {
                let names = names(count);
                owners.retain(|_, owner| names.contains(owner));
                let loads = settle(&names, &weights, &mut owners);
                prop_assert!(weights.keys().all(|bucket| owners.contains_key(bucket)));
                let heaviest = u64::from(weights.values().copied().max().unwrap_or(0));
                let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
                prop_assert!(most - least <= 2 * heaviest, "{loads:?}");
            }
        }
    }

    proptest! {
        /// However uneven the streams are.
        #[test]
        fn databases_are_shared_out_evenly_beside_the_streams(
            streams in proptest::collection::btree_map(0u16..1024, 1u32..4, 0..100),
            databases in proptest::collection::btree_set(OF_DATABASES, 0..40),
            counts in proptest::collection::vec(1usize..6, 1..4),
        ) {
            let mut weights = streams.clone();
            weights.extend(databases.iter().map(|bucket| (*bucket, 1)));
            let mut owners = HashMap::new();
            let mut without = HashMap::new();
            for count in counts {
                let names = names(count);
                owners.retain(|_, owner| names.contains(owner));
                without.retain(|_, owner| names.contains(owner));
                settle(&names, &weights, &mut owners);
                settle(&names, &streams, &mut without);
                let owned = |name: &String| {
                    owners.iter().filter(|(b, owner)| OF_DATABASES.contains(*b) && *owner == name).count()
                };
                let owned: Vec<usize> = names.iter().map(owned).collect();
                prop_assert_eq!(owned.iter().sum::<usize>(), databases.len());
                prop_assert!(owned.iter().max().unwrap() - owned.iter().min().unwrap() <= 1, "{:?}", owned);
                let mut of_streams = owners.clone();
                of_streams.retain(|bucket, _| OF_STREAMS.contains(bucket));
                prop_assert_eq!(&of_streams, &without, "streams are where they would be without databases");
            }
        }
    }

    #[test]
    fn few_streams_are_shared_out_evenly() {
        let weights: Weights = [(7, 1), (9, 1), (400, 1), (1000, 1), (1001, 1)].into();
        let mut owners = HashMap::new();
        assert_eq!(settle(&names(1), &weights, &mut owners), [5]);
        assert_eq!(settle(&names(3), &weights, &mut owners), [2, 2, 1]);
        let before = owners.clone();
        assert_eq!(settle(&names(3), &weights, &mut owners), [2, 2, 1]);
        assert_eq!(before, owners, "nothing moves without a reason");
    }

    #[test]
    fn what_is_given_up_is_not_claimed_again_and_empty_buckets_go() {
        let weights: Weights = [(1, 1), (2, 1)].into();
        let mut view = View { members: [("a".to_owned(), member())].into(), ..View::default() };
        let check = |view: &View, mine: &[Bucket], giving: &[Bucket], alike| {
            let (mine, giving) = (mine.iter().copied().collect(), giving.iter().copied().collect());
            moves("a", view, &weights, &mine, &giving, alike)
        };
        assert_eq!(check(&view, &[], &[1], true), Moves { give_up: vec![], claim: vec![2] });
        assert_eq!(check(&view, &[1, 2, 3], &[], true), Moves { give_up: vec![3], claim: vec![] });
        view.members.insert("b".into(), member());
        assert_eq!(check(&view, &[1, 2], &[], true), Moves { give_up: vec![2], claim: vec![] });
        assert_eq!(check(&view, &[1], &[], true), Moves::default());
        // The answer to a claim was lost.
        view.owners = [(1, "a".to_owned()), (2, "b".to_owned())].into();
        assert_eq!(check(&view, &[], &[], true), Moves { give_up: vec![], claim: vec![1] });
        // And meanwhile its quota became smaller, or the stream went.
        view.owners = [(1, "a".to_owned()), (2, "a".to_owned())].into();
        assert_eq!(check(&view, &[1], &[], true), Moves { give_up: vec![2], claim: vec![] });
        assert_eq!(check(&view, &[1], &[2], true), Moves::default());
        view.owners = [(1, "a".to_owned()), (9, "a".to_owned())].into();
        assert_eq!(check(&view, &[1], &[], true), Moves { give_up: vec![9], claim: vec![] });
        view.owners.clear();
        // The other one reads other streams: it may have no use for bucket 2.
        assert_eq!(check(&view, &[1], &[], false), Moves { give_up: vec![], claim: vec![2] });
        assert_eq!(check(&view, &[1, 2], &[], false), Moves::default());
    }
}

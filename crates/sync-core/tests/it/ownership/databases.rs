//! Replicas that share whole databases beside the streams: each has one owner, whoever comes, goes, dies or is cut off,
//! and nobody gets one that is still being worked on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use sync_core::run::{Beside, Databases, Tenure};
use tokio::sync::watch;
use tokio::time::sleep;

use super::*;

/// Longer than streams may take to be let go of.
const LONG: Duration = Duration::from_secs(6);
/// How long the work takes to let go.
const LETTING_GO: Duration = Duration::from_millis(200);

/// Who works on which database, for all replicas of one test.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<Names>>);

#[derive(Default)]
struct Names {
    /// Database to replica, as long as it may still write there.
    at_work: BTreeMap<u16, (usize, Tenure)>,
    conflicts: Vec<String>,
    /// What `owned` said last, by replica.
    told: BTreeMap<usize, BTreeSet<u16>>,
    for_ever: bool,
}

/// One replica at work on one database.
struct Work {
    board: Board,
    replica: usize,
    db: u16,
}

impl Board {
    fn begin(&self, replica: usize, db: u16, tenure: Tenure) -> Work {
        let mut names = self.0.lock().unwrap();
        names.for_ever |= tenure.remaining().is_none();
        if let Some((other, others)) = names.at_work.insert(db, (replica, tenure))
            && others.remaining() != Some(Duration::ZERO)
        {
            names.conflicts.push(format!("{replica} begins on {db} while {other} is at work"));
        }
        Work { board: self.clone(), replica, db }
    }

    /// Databases by replica, of those that are at work and may be.
    fn at_work(&self) -> BTreeMap<usize, BTreeSet<u16>> {
        let names = self.0.lock().unwrap();
        assert!(names.conflicts.is_empty(), "{:?}", names.conflicts);
        let mut found: BTreeMap<usize, BTreeSet<u16>> = BTreeMap::new();
        for (db, (replica, tenure)) in &names.at_work {
            if tenure.remaining() != Some(Duration::ZERO) {
                found.entry(*replica).or_default().insert(*db);
            }
        }
        found
    }

    fn told(&self, replica: usize) -> BTreeSet<u16> {
        self.0.lock().unwrap().told.get(&replica).cloned().unwrap_or_default()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut names = self.board.0.lock().unwrap();
        if names.at_work.get(&self.db).is_some_and(|(replica, _)| *replica == self.replica) {
            names.at_work.remove(&self.db);
        }
    }
}

/// Works on what is owned, and lets go when the gate is open, and a little later than it is told to.
async fn work(board: Board, replica: usize, mut databases: Databases, mut gate: watch::Receiver<bool>) {
    let stop = databases.stop.clone();
    let mut under_way: BTreeMap<u16, Work> = BTreeMap::new();
    loop {
        let owned = databases.owned();
        board.0.lock().unwrap().told.insert(replica, owned.clone());
        for db in &owned {
            under_way.entry(*db).or_insert_with(|| board.begin(replica, *db, databases.tenure()));
        }
        if under_way.keys().any(|db| !owned.contains(db)) {
            sleep(LETTING_GO).await;
            let _ = gate.wait_for(|open| *open).await;
            under_way.retain(|db, _| owned.contains(db));
        }
        databases.settled();
        tokio::select! {
            () = databases.changed() => {}
            () = stop.requested() => break,
        }
    }
    sleep(LETTING_GO).await;
    let _ = gate.wait_for(|open| *open).await;
    if databases.remaining() == Some(Duration::ZERO) {
        board.0.lock().unwrap().conflicts.push(format!("{replica} left before its work had ended"));
    }
}

/// `count` replicas that work on these databases, and the gates of their work.
async fn working(
    db: u16,
    name: &str,
    board: &Board,
    count: usize,
    dbs: &[u16],
) -> (Vec<Bridge>, Vec<watch::Sender<bool>>) {
    let script = Script::new(|_| Fate::Delivered);
    let replicas = replicas(db, name, &script, count).await.into_iter().enumerate();
    replicas
        .map(|(number, bridge)| {
            let (open, gate) = watch::channel(true);
            let board = board.clone();
            let beside = move || -> Beside {
                let (board, gate) = (board.clone(), gate.clone());
                Box::new(move |databases| Box::pin(work(board, number, databases, gate)))
            };
            (bridge.with(|settings| settings.dbs = dbs.to_vec()).beside(beside), open)
        })
        .unzip()
}

/// Waits until these replicas, and nobody else, have these databases among them, each its part.
async fn divided(board: &Board, replicas: &[usize], dbs: &[u16]) -> BTreeMap<usize, BTreeSet<u16>> {
    until("databases are shared out", async || {
        let at_work = board.at_work();
        let all: BTreeSet<u16> = at_work.values().flatten().copied().collect();
        let counts: Vec<usize> =
            replicas.iter().map(|replica| at_work.get(replica).map_or(0, BTreeSet::len)).collect();
        let even = counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1;
        let complete = counts.iter().sum::<usize>() == dbs.len() && all == dbs.iter().copied().collect();
        (even && complete && at_work.len() <= replicas.len(), at_work)
    })
    .await
}

#[tokio::test]
async fn each_has_one_owner_and_goes_to_another_once_it_is_let_go_of() {
    let board = Board::default();
    // No server of ours has the last two.
    let (mut bridges, _gates) = working(4, "kv-share", &board, 3, &[0, 1, 2, 3, 4, 5, 255, 300]).await;
    let dbs = [0, 1, 2, 3, 4, 5];
    let streams = names(12);
    for stream in &streams {
        bridges[0].add(stream, 1..=3).await;
    }
    bridges[0].start();
    divided(&board, &[0], &dbs).await;
    shared_out(&[&bridges[0]], 12).await;
    bridges[1].start();
    bridges[2].start();
    divided(&board, &[0, 1, 2], &dbs).await;
    shared_out(&bridges.iter().collect::<Vec<_>>(), 12).await;
    let owned = bridges[1].metrics.gauge("databases_owned", "").get();
    assert_eq!((owned, board.told(1).len()), (2, 2));

    let begun = Instant::now();
    bridges[1].stop().await;
    divided(&board, &[0, 2], &dbs).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "it left: nobody waits for its lease");
    bridges[0].stop().await;
    divided(&board, &[2], &dbs).await;
    bridges[2].stop().await;
    assert!(board.at_work().is_empty());
    let left = keys_of_ours(&bridges[0].redis, &bridges[0].group).await;
    assert!(left.is_empty(), "the last one leaves nothing behind: {left:?}");
}

#[tokio::test]
async fn they_are_shared_where_no_stream_is_read_and_follow_the_settings() {
    let board = Board::default();
    let (bridges, _gates) = working(5, "kv-only", &board, 2, &[0, 1, 2, 3]).await;
    let mut bridges: Vec<Bridge> =
        bridges.into_iter().map(|bridge| bridge.with(|settings| settings.enabled = false)).collect();
    bridges.iter_mut().for_each(Bridge::start);
    divided(&board, &[0, 1], &[0, 1, 2, 3]).await;
    for bridge in &mut bridges {
        bridge.change(|settings| settings.dbs = vec![2, 3, 4, 5, 6, 7]);
        bridge.hang_up();
    }
    divided(&board, &[0, 1], &[2, 3, 4, 5, 6, 7]).await;
    // A replica with other settings takes what only it has a use for, and keeps what it has.
    bridges[0].change(|settings| settings.dbs = vec![2, 3, 4, 5, 6, 7, 8]);
    bridges[0].hang_up();
    until("it has one more", async || {
        let at_work = board.at_work();
        (at_work.get(&0).is_some_and(|dbs| dbs.contains(&8)), at_work)
    })
    .await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
    board.at_work();
}

#[tokio::test]
async fn what_a_dead_replica_had_is_taken_over() {
    let board = Board::default();
    let (mut bridges, _gates) = working(6, "kv-dead", &board, 2, &[0, 1, 2, 3]).await;
    bridges.iter_mut().for_each(Bridge::start);
    divided(&board, &[0, 1], &[0, 1, 2, 3]).await;
    bridges[1].crash().await;
    let begun = Instant::now();
    divided(&board, &[0], &[0, 1, 2, 3]).await;
    assert!(begun.elapsed() < TAKEN_OVER, "{:?}", begun.elapsed());
    bridges[0].stop().await;
}

#[tokio::test]
async fn what_is_not_let_go_of_is_handed_to_nobody() {
    let board = Board::default();
    let (mut bridges, gates) = working(7, "kv-held", &board, 2, &[0, 1, 2, 3]).await;
    bridges[0].start();
    divided(&board, &[0], &[0, 1, 2, 3]).await;
    gates[0].send_replace(false);
    bridges[1].start();
    until("it is told to give up its half", async || {
        let told = board.told(0);
        (told.len() == 2, told)
    })
    .await;
    sleep(LONG).await;
    assert!(board.told(1).is_empty(), "not even after the time that streams have");
    gates[0].send_replace(true);
    divided(&board, &[0, 1], &[0, 1, 2, 3]).await;

    // At the stop it has the time that the settings give it, and is then given up for good.
    gates[0].send_replace(false);
    let begun = Instant::now();
    bridges[0].stop().await;
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    divided(&board, &[1], &[0, 1, 2, 3]).await;
    bridges[1].stop().await;
}

#[tokio::test]
async fn one_that_was_cut_off_for_longer_than_its_lease_has_nothing_left() {
    let board = Board::default();
    let (mut bridges, _gates) = working(8, "kv-cut", &board, 2, &[0, 1, 2, 3]).await;
    let proxy = Proxy::start(&redis_url(), b"never").await;
    let second = bridges.pop().unwrap().through(&proxy.url);
    bridges.push(second);
    bridges.iter_mut().for_each(Bridge::start);
    divided(&board, &[0, 1], &[0, 1, 2, 3]).await;
    proxy.cut_off(true);
    let taken = divided(&board, &[0], &[0, 1, 2, 3]).await;
    assert!(!taken.contains_key(&1), "its lease was over before");
    proxy.cut_off(false);
    until("it learns so", async || (lost(&bridges[1]) == 1, ())).await;
    divided(&board, &[0, 1], &[0, 1, 2, 3]).await;
    for bridge in &mut bridges {
        bridge.stop().await;
    }
}

#[tokio::test]
async fn alone_it_has_all_and_keeps_no_books() {
    let board = Board::default();
    let (bridges, _gates) = working(9, "kv-alone", &board, 1, &[0, 1, 2, 99]).await;
    let mut bridge = bridges.into_iter().next().unwrap().with(|settings| {
        settings.ownership = Ownership::Exclusive;
        settings.enabled = false;
    });
    bridge.start();
    divided(&board, &[0], &[0, 1, 2]).await;
    assert!(board.0.lock().unwrap().for_ever);
    assert!(keys_of_ours(&bridge.redis, &bridge.group).await.is_empty());
    bridge.change(|settings| settings.dbs = vec![1, 3]);
    bridge.hang_up();
    divided(&board, &[0], &[1, 3]).await;
    bridge.stop().await;
}

#[tokio::test]
async fn who_does_nothing_beside_the_streams_waits_for_nobody_who_does() {
    let board = Board::default();
    let (mut bridges, _gates) = working(10, "kv-unlike", &board, 1, &[0, 1, 2, 3]).await;
    let script = Script::new(|_| Fate::Delivered);
    let streams = names(10);
    let mut other = replicas(10, "kv-unlike", &script, 1).await.remove(0);
    for stream in &streams {
        other.add(stream, 1..=3).await;
    }
    other.start();
    shared_out(&[&other], 10).await;
    bridges[0].start();
    divided(&board, &[0], &[0, 1, 2, 3]).await;
    other.stop().await;
    shared_out(&[&bridges[0]], 10).await;
    all_arrived(&script, &streams, &other, 1..=3).await;
    bridges[0].stop().await;
}

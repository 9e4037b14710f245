use super::*;
use crate::record::StreamName;
use crate::settings::RetrySettings;

const SHARE: usize = 1 << 20;
const BLOCK: Duration = Duration::from_secs(1);

fn streams(count: usize) -> Streams {
    let mut streams = Streams::new(100, BLOCK);
    for number in 0..count {
        let name = StreamName::new(0, format!("s{number}"));
        let spelled = name.spell(0);
        let (metrics, progress) = Default::default();
        streams.add(Arc::new(Stream { name, spelled, metrics, progress }));
    }
    streams
}

/// All recovered with nothing pending, and entries of `size` bytes seen.
fn live(count: usize, size: usize) -> Streams {
    let mut streams = streams(count);
    streams.begin_restarts(Instant::now());
    for slot in 0..count {
        streams.recovered(slot, None);
        streams.saw(slot, size);
    }
    streams
}

fn step(streams: &mut Streams) -> Step {
    streams.next_step(SHARE, Instant::now()).expect("something to ask for")
}

fn read(streams: &mut Streams) -> (Vec<usize>, u32, Option<Duration>) {
    match step(streams) {
        Step::Read { streams, count, block } => {
            (streams.iter().map(|asked| asked.slot).collect(), count, block)
        }
        other => panic!("{other:?}"),
    }
}

fn recover(streams: &mut Streams) -> (Vec<Asked>, u32) {
    match step(streams) {
        Step::Recover { pages, count } => (pages.into_iter().map(|(asked, _)| asked).collect(), count),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_about_the_stream_that_had_the_slot_before_is_not_used() {
    let mut streams = streams(1);
    let (asked, _) = recover(&mut streams);
    assert!(streams.is_current(asked[0]));
    streams.remove(&Bytes::from("s0"));
    streams.sweep();
    let (name, spelled) = (StreamName::new(0, "other"), "other".into());
    let (metrics, progress) = Default::default();
    streams.add(Arc::new(Stream { name, spelled, metrics, progress }));
    assert_eq!(streams.slot_of(b"other"), Some(asked[0].slot), "it is used again");
    assert!(!streams.is_current(asked[0]));
}

#[test]
fn what_is_pending_comes_before_what_is_new() {
    let mut streams = live(1, 1000);
    streams.add(Arc::new(Stream {
        name: StreamName::new(0, "late"),
        spelled: "late".into(),
        metrics: Arc::default(),
        progress: Default::default(),
    }));
    let (pages, _) = recover(&mut streams);
    assert_eq!(pages.iter().map(|asked| asked.slot).collect::<Vec<_>>(), [1]);
    // Its next page waits its turn, and is not read for new entries before its last.
    streams.recovered(1, Some(EntryId { ms: 7, seq: 0 }));
    assert_eq!(read(&mut streams), (vec![0], 100, None));
    assert_eq!(recover(&mut streams).0.len(), 1);
    streams.recovered(1, None);
    assert_eq!(read(&mut streams).0, [0, 1]);
}

#[test]
fn a_restart_waits_for_its_time_and_for_all_in_flight() {
    let mut streams = live(1, 1000);
    let (now, later) = (Instant::now(), Instant::now() + BLOCK);
    streams[0].in_flight = 1;
    streams.restart(0, later);
    assert_eq!((streams.next_step(SHARE, later), streams.wake_at()), (None, None));
    streams[0].in_flight = 0;
    assert_eq!((streams.next_step(SHARE, now), streams.wake_at()), (None, Some(later)));
    assert!(matches!(streams.next_step(SHARE, later), Some(Step::Recover { .. })));
}

#[test]
fn an_answer_to_what_was_asked_before_a_restart_is_not_current() {
    let mut streams = live(2, 1000);
    let Step::Read { streams: asked, .. } = step(&mut streams) else { panic!("a read") };
    streams.restart(1, Instant::now());
    assert_eq!(asked.iter().map(|asked| streams.is_current(*asked)).collect::<Vec<_>>(), [true, false]);
    streams.restart_all();
    assert!(!streams.is_current(asked[0]));
}

#[test]
fn a_stream_on_hold_is_tried_with_one_record_at_a_time() {
    let mut streams = live(2, 1000);
    let retry = RetrySettings { max_retries: 1, base: BLOCK, cap: BLOCK };
    streams[0].hold = Some(Hold { backoff: Backoff::new(retry), told: true });
    streams.restart(0, Instant::now());
    assert_eq!(recover(&mut streams).1, 1);
    streams.recovered(0, Some(EntryId { ms: 2, seq: 0 }));
    streams[0].waiting = 1;
    assert_eq!(read(&mut streams).0, [1], "nothing more of it while one is on its way");
    (streams[0].waiting, streams[0].in_flight) = (0, 1);
    assert_eq!(read(&mut streams).0, [1]);
    streams[0].in_flight = 0;
    assert_eq!(recover(&mut streams).1, 1);
}

#[test]
fn counts_and_keys_shrink_to_the_share() {
    let check = |streams: usize, size: usize, keys: usize, count: u32| {
        let (slots, asked, _) = read(&mut live(streams, size));
        assert_eq!((slots.len(), asked), (keys, count), "{streams} streams with entries of {size} bytes");
    };
    check(1, 1000, 1, 100);
    check(1, SHARE / 10, 1, 10);
    check(1, SHARE * 10, 1, 1);
    check(50, SHARE / 100, 50, 2);
    check(50, SHARE / 10, 10, 1);
}

#[test]
fn of_what_was_never_seen_little_is_asked() {
    let mut streams = streams(20);
    let (pages, count) = recover(&mut streams);
    assert_eq!((pages.len(), count), (1, 1), "nothing was seen in this lane yet");
    streams.saw(0, 100);
    assert_eq!(recover(&mut streams).0.len(), SHARE / UNSEEN, "the one that was seen, and as many as fit");
    streams.saw(0, SHARE);
    streams.recovered(0, None);
    streams.recovered_last = false;
    assert_eq!(recover(&mut streams).0.len(), 1, "others may be as large");
}

#[test]
fn streams_that_do_not_fit_take_turns() {
    let mut streams = live(50, SHARE / 10);
    let mut named: Vec<usize> = (0..5).flat_map(|_| read(&mut streams).0).collect();
    named.sort_unstable();
    assert_eq!(named, (0..50).collect::<Vec<_>>());
    assert_eq!(read(&mut streams).2, Some(BLOCK / 5), "each part blocks for its part of the time");
}

#[test]
fn a_busy_wide_lane_names_the_busy_ones_and_all_of_them_now_and_then() {
    let mut streams = live(NARROW + 10, 100);
    let now = Instant::now();
    let named = |streams: &mut Streams, at: Instant| match streams.next_step(SHARE, at) {
        Some(Step::Read { streams, block, .. }) => (streams.len(), block.is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!(named(&mut streams, now), (NARROW + 10, true));
    streams.had_entries(vec![3, 5]);
    assert_eq!(named(&mut streams, now), (2, false));
    assert_eq!(named(&mut streams, now + WIDE_EVERY), (NARROW + 10, false));
    streams.had_entries(Vec::new());
    assert_eq!(named(&mut streams, now + WIDE_EVERY), (NARROW + 10, true));
}

#[test]
fn what_left_is_forgotten_once_it_has_settled_unless_it_returned() {
    let mut streams = live(2, 100);
    streams[1].in_flight = 1;
    streams.remove(&Bytes::from("s1"));
    assert!(streams.sweep().is_empty());
    assert!(streams.has_returned(&Bytes::from("s1")));
    streams[1].in_flight = 0;
    assert!(streams.sweep().is_empty());
    streams.remove(&Bytes::from("s1"));
    assert_eq!(streams.sweep().iter().map(|stream| stream.spelled.as_str()).collect::<Vec<_>>(), ["s1"]);
    assert!(!streams.has_returned(&Bytes::from("s1")) && streams.len() == 1);
}

#[test]
fn where_reads_do_not_block_idle_streams_rest_between_two_looks() {
    let mut streams = live(2, 100);
    let now = Instant::now();
    let later = now + BLOCK;
    assert!(streams.next_step(SHARE, now).is_some());
    streams.rest_until(later);
    assert_eq!((streams.next_step(SHARE, now), streams.wake_at_after(now)), (None, Some(later)));
    streams.had_entries(vec![1]);
    assert!(streams.next_step(SHARE, now).is_some(), "what had something is read at once");
    streams.had_entries(Vec::new());
    assert_eq!(streams.next_step(SHARE, now), None);
    streams.restart(0, now);
    assert!(
        matches!(streams.next_step(SHARE, now), Some(Step::Recover { .. })),
        "what is pending does not wait"
    );
    streams.recovered(0, None);
    assert!(
        matches!(streams.next_step(SHARE, now), Some(Step::Read { .. })),
        "nor do streams that are new here"
    );
    streams.rest_until(later);
    assert!(streams.next_step(SHARE, later).is_some());
}

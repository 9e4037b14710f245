//! The bucket and its self-adjustment, on a clock that the tests move.

use futures_util::FutureExt as _;
use tokio::time::advance;
use tracing::level_filters::LevelFilter;

use super::*;
use crate::telemetry::log::capture::capture;

/// Milliseconds until so many takes were through.
async fn takes(limiter: &RateLimiter, count: u32) -> u128 {
    let start = Instant::now();
    for _ in 0..count {
        limiter.take().await;
    }
    start.elapsed().as_millis()
}

#[tokio::test(start_paused = true)]
async fn so_many_in_so_long() {
    let check = async |rate: u32, count: u32, expected: u128| {
        let took = takes(&RateLimiter::new(rate), count).await;
        // The clock ticks in milliseconds.
        assert!((expected..=expected + 2).contains(&took), "{count} at {rate}/s took {took} ms");
    };
    check(0, 100_000, 0).await;
    check(1, 4, 3000).await;
    check(10, 21, 2000).await;
    check(100, 10, 0).await;
    check(100, 210, 2000).await;
    check(1000, 100, 0).await;
    check(1000, 3100, 3000).await;
    check(50_000, 105_000, 2000).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_saves_no_more_than_a_burst() {
    let limiter = RateLimiter::new(100);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(takes(&limiter, 10).await, 0);
    assert_eq!(takes(&limiter, 1).await, 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_spent_is_owed_up_to_a_second() {
    let limiter = RateLimiter::new(100);
    limiter.spend(10);
    assert_eq!(takes(&limiter, 1).await, 10);
    limiter.spend(50);
    assert_eq!(takes(&limiter, 1).await, 510);
    limiter.spend(1_000_000);
    assert_eq!(takes(&limiter, 1).await, 1010);
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let limiter = RateLimiter::new(10);
    limiter.take().await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..5)
        .map(|number| {
            let (limiter, served) = (limiter.clone(), Arc::clone(&served));
            tokio::spawn(async move {
                limiter.take().await;
                served.lock().unwrap().push(number);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_those_who_wait() {
    let limiter = RateLimiter::new(10);
    limiter.take().await;
    let mut waiting = Box::pin(limiter.take());
    assert!(waiting.as_mut().now_or_never().is_none());
    advance(Duration::from_millis(100)).await;
    // There is a token now, and it is the other one's.
    assert!(limiter.take().now_or_never().is_none());
    assert!(waiting.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_take_that_is_dropped_costs_nothing() {
    let limiter = RateLimiter::new(10);
    limiter.take().await;
    assert!(limiter.take().now_or_never().is_none());
    assert_eq!(takes(&limiter, 1).await, 100);
}

#[tokio::test(start_paused = true)]
async fn the_setting_changes_while_somebody_waits() {
    let limiter = RateLimiter::new(1);
    limiter.take().await;
    limiter.spend(1);
    let start = Instant::now();
    let waiting = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.take().await }
    });
    tokio::task::yield_now().await;
    limiter.set_rate(1000);
    waiting.await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 2);
    limiter.set_rate(0);
    assert_eq!(takes(&limiter, 10_000).await, 0);
    assert_eq!(limiter.rate(), None);
}

/// Answers of so many milliseconds each, for so many seconds.
async fn answers(limiter: &RateLimiter, milliseconds: u64, seconds: u64) {
    for _ in 0..seconds * 100 {
        limiter.observe(Duration::from_millis(milliseconds));
        advance(Duration::from_millis(10)).await;
    }
}

fn rate(limiter: &RateLimiter) -> f64 {
    limiter.rate().unwrap()
}

#[tokio::test(start_paused = true)]
async fn slow_answers_throttle_and_fast_ones_restore() {
    let log = capture(LevelFilter::INFO);
    let limiter = RateLimiter::new(1000);
    answers(&limiter, 1, 5).await;
    answers(&limiter, 5, 5).await;
    assert_eq!(
        (rate(&limiter), log.take()),
        (1000.0, vec![]),
        "five times the baseline is not more than that"
    );

    answers(&limiter, 20, 2).await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("WARNING Redis is overloaded (median round trip 20.0 ms, usually 1."),
        "{lines:?}"
    );
    assert!(
        lines[0].ends_with("): slowing down from 1000 operations per second to 500 or less"),
        "{lines:?}"
    );
    assert!((200.0..=500.0).contains(&rate(&limiter)), "{}", rate(&limiter));
    answers(&limiter, 20, 8).await;
    assert!((10.0..=12.0).contains(&rate(&limiter)), "the floor is 1%: {}", rate(&limiter));

    let low = rate(&limiter);
    answers(&limiter, 1, 10).await;
    let share = rate(&limiter) / low;
    assert!((1.1f64.powi(9)..=1.1f64.powi(10) * 1.001).contains(&share), "10% a second: {share}");
    answers(&limiter, 1, 60).await;
    assert_eq!(rate(&limiter), 1000.0);
    assert_eq!(log.take(), ["INFO Redis has recovered: back to 1000 operations per second"]);
}

#[tokio::test(start_paused = true)]
async fn jitter_of_a_fast_server_is_no_overload() {
    let limiter = RateLimiter::new(1000);
    let micros = async |micros: u64| {
        for _ in 0..200 {
            limiter.observe(Duration::from_micros(micros));
            advance(Duration::from_millis(10)).await;
        }
        rate(&limiter)
    };
    assert_eq!(micros(50).await, 1000.0);
    assert_eq!(micros(1900).await, 1000.0);
    assert!(micros(2100).await < 1000.0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_moved_away_becomes_usual() {
    let limiter = RateLimiter::new(1000);
    answers(&limiter, 1, 5).await;
    answers(&limiter, 20, 10).await;
    assert!(rate(&limiter) < 100.0);
    answers(&limiter, 20, 600).await;
    assert_eq!(rate(&limiter), 1000.0);
}

#[tokio::test(start_paused = true)]
async fn the_server_says_that_it_is_busy() {
    let log = capture(LevelFilter::INFO);
    let limiter = RateLimiter::new(8);
    for _ in 0..20 {
        limiter.overloaded("BUSY");
    }
    assert_eq!(rate(&limiter), 4.0, "at most once a second");
    advance(Duration::from_millis(999)).await;
    limiter.overloaded("LOADING");
    assert_eq!(rate(&limiter), 4.0);
    advance(Duration::from_millis(1)).await;
    limiter.overloaded("LOADING");
    assert_eq!(rate(&limiter), 2.0);
    for expected in [1.0, 1.0] {
        advance(Duration::from_secs(1)).await;
        limiter.overloaded("BUSY");
        assert!((expected..expected * 1.11).contains(&rate(&limiter)), "{}", rate(&limiter));
    }
    assert_eq!(
        log.take(),
        ["WARNING Redis is overloaded (BUSY): slowing down from 8 operations per second to 4 or less"]
    );
    limiter.set_rate(2);
    advance(Duration::from_secs(10)).await;
    assert_eq!(rate(&limiter), 2.0);
    assert_eq!(log.take(), ["INFO Redis has recovered: back to 2 operations per second"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_the_observed_rate_is_halved() {
    let log = capture(LevelFilter::INFO);
    let limiter = RateLimiter::new(0);
    for _ in 0..300 {
        limiter.take().await;
        limiter.spend(1);
        advance(Duration::from_millis(10)).await;
    }
    limiter.overloaded("BUSY");
    assert!((95.0..=105.0).contains(&rate(&limiter)), "200 a second were sent: {}", rate(&limiter));
    assert!((180..=200).contains(&takes(&limiter, 20).await));
    advance(Duration::from_secs(10)).await;
    assert_eq!(limiter.rate(), None);
    assert_eq!(takes(&limiter, 10_000).await, 0);
    assert_eq!(log.take().last().unwrap(), "INFO Redis has recovered: no limit any more");
}

//! Whether the buffer as a whole takes messages: it is full, or does not write at all. That is told once, of the buffer, and
//! not of each stream; and so is a server that may throw messages away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sync_core::telemetry::health::{Health, Severity};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::server::Memory;
use crate::settings::BufferSettings;

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct Intake(Arc<Inner>);

struct Inner {
    health: Option<Health>,
    /// The parts of the process's health that these are.
    room: String,
    keeping: String,
    /// All streams that wait have tried again by then.
    quiet: Duration,
    refuses: AtomicBool,
    notify: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    refusal: Option<Refusal>,
    /// Health has heard of it.
    told: bool,
    throws_away: bool,
}

struct Refusal {
    reason: String,
    at: Instant,
    /// Something was stored since.
    took: bool,
}

impl Intake {
    /// Of the buffer at that address. Where health is not told, nobody looks: then the log is, once.
    pub(super) fn new(address: &str, settings: &BufferSettings, health: Option<Health>) -> Self {
        Self(Arc::new(Inner {
            health,
            room: format!("room in the buffer Redis at {address}"),
            keeping: format!("what the buffer Redis at {address} keeps"),
            quiet: settings.redis.retry.cap * 2,
            refuses: AtomicBool::new(false),
            notify: Notify::new(),
            state: Mutex::default(),
        }))
    }

    /// It does not store, and says why.
    pub(super) fn refuses(&self, reason: &str) {
        let Inner { health, room, state, refuses, notify, .. } = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.refusal.is_none();
        state.refusal = Some(Refusal { reason: reason.to_owned(), at: Instant::now(), took: false });
        refuses.store(true, Ordering::Relaxed);
        drop(state);
        match health {
            Some(_) if first => notify.notify_one(),
            None if first => tracing::warn!("{room}: {}", why(reason, &Memory::default())),
            _ => {}
        }
    }

    /// It has stored something.
    pub(super) fn takes(&self) {
        if self.0.refuses.load(Ordering::Relaxed)
            && let Some(refusal) = &mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner).refusal
        {
            refusal.took = true;
        }
    }

    /// Returns when it refuses for the first time: it is to be looked at.
    pub(super) async fn refused(&self) {
        self.0.notify.notified().await;
    }

    /// Its memory was looked at, since then.
    pub(super) fn looked(&self, memory: &Memory, begun: Instant) {
        let Inner { health, room, keeping, quiet, state, refuses, .. } = &*self.0;
        let Some(health) = health else { return };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match &memory.throws_away {
            Some(reason) => {
                state.throws_away = true;
                health.down(keeping, &reason.to_string(), Severity::Error);
            }
            None if std::mem::take(&mut state.throws_away) => {
                health.up(keeping);
                health.forget(keeping);
            }
            None => {}
        }
        let Some(refusal) = &state.refusal else { return };
        let is_full = refusal.reason.starts_with("OOM");
        let over = refusal.at < begun && if is_full { memory.has_room() } else { refusal.took };
        if over || refusal.at.elapsed() >= *quiet && !memory.is_full() {
            state.refusal = None;
            refuses.store(false, Ordering::Relaxed);
            if std::mem::take(&mut state.told) {
                health.up(room);
                health.forget(room);
            }
        } else {
            health.down(room, &why(&refusal.reason, memory), Severity::Warn);
            state.told = true;
        }
    }
}

/// As it is told, with what to do about it.
fn why(reason: &str, memory: &Memory) -> String {
    if !reason.starts_with("OOM") {
        return format!("the buffer takes nothing, and entries stay at the source: {reason}");
    }
    let mut text = "the buffer is full, and entries stay at the source: raise its maxmemory".to_owned();
    if let Some(most) = memory.most.filter(|most| *most > 0) {
        text += &format!(" ({} MiB)", most.div_ceil(1 << 20));
    }
    if let Some((keys, expiring)) = memory.keys
        && expiring > keys / 2
        && !memory.evicts
    {
        text += &format!(
            ". {expiring} of its {keys} keys are of messages that Kafka has: maxmemory-policy volatile-ttl, or a shorter \
             TARGET_REDIS_TIME_TO_LIVE and TARGET_REDIS_SYNC_TTL, lets them make room"
        );
    }
    text
}

impl Memory {
    /// Nothing more goes in.
    fn is_full(&self) -> bool {
        self.uses().is_some_and(|(used, most)| used >= most)
    }

    /// Enough that it is not full again at once; what evicts has no more than it needs.
    fn has_room(&self) -> bool {
        self.most == Some(0) || self.uses().is_some_and(|(used, most)| used < most / 16 * 15)
    }

    fn uses(&self) -> Option<(u64, u64)> {
        self.used.zip(self.most.filter(|most| *most > 0))
    }
}

#[cfg(test)]
mod tests {
    use sync_core::program::BridgeSettings as _;
    use sync_core::settings::Inputs;
    use tokio::time::advance;

    use super::*;
    use crate::settings::Settings;

    fn intake() -> (Intake, Health) {
        let inputs = Inputs::new::<&str, &str>([], "none").set("TARGET_REDIS_HOST", "h");
        let settings = Settings::load(&inputs).unwrap().settings.buffer.expect("it is set");
        let health = Health::default();
        health.started();
        (Intake::new("h:1", &settings, Some(health.clone())), health)
    }

    fn memory(used: u64, policy: &str) -> Memory {
        Memory::read(
            &format!(
                "used_memory:{used}\r\nmem_not_counted_for_evict:5\r\nmaxmemory:1000\r\nmaxmemory_policy:{policy}\r\n\
                 db0:keys=10,expires=9,avg_ttl=5\r\n"
            ),
            0,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn full_until_there_is_room_again() {
        let (intake, health) = intake();
        let looked = async |memory: &Memory| {
            advance(Duration::from_millis(1)).await;
            intake.looked(memory, Instant::now());
            health.ready().err().map(|reasons| reasons.join("\n")).unwrap_or_default()
        };
        assert_eq!(looked(&memory(1005, "noeviction")).await, "", "nothing was refused");
        intake.refuses("OOM x");
        intake.refused().await;
        let told = looked(&memory(1005, "noeviction")).await;
        for words in
            ["room in the buffer Redis at h:1", "is full", "(1 MiB)", "9 of its 10 keys", "volatile-ttl"]
        {
            assert!(told.contains(words), "{told}");
        }
        assert!(!looked(&memory(1005, "volatile-ttl")).await.contains("volatile-ttl"));
        intake.takes();
        assert!(
            looked(&memory(1000, "noeviction")).await.contains("is full"),
            "for one message there was room"
        );
        assert_eq!(looked(&memory(900, "noeviction")).await, "");
        // So soon that it is not told.
        intake.refuses("OOM x");
        assert_eq!(looked(&memory(900, "noeviction")).await, "");
        // While there is hardly any room, but enough for whatever comes.
        intake.refuses("OOM x");
        assert!(!looked(&memory(990, "noeviction")).await.is_empty());
        advance(intake.0.quiet).await;
        assert!(!looked(&memory(1005, "noeviction")).await.is_empty());
        assert_eq!(looked(&memory(990, "noeviction")).await, "");
        // Whoever may not ask how it stands.
        intake.refuses("OOM x");
        assert!(!looked(&Memory::default()).await.is_empty());
        advance(intake.0.quiet).await;
        assert_eq!(looked(&Memory::default()).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_write_until_it_does() {
        let (intake, health) = intake();
        intake.refuses("MISCONF x");
        advance(Duration::from_millis(1)).await;
        intake.looked(&memory(5, "noeviction"), Instant::now());
        assert!(health.ready().unwrap_err()[0].ends_with("stay at the source: MISCONF x"), "{health:?}");
        intake.takes();
        intake.looked(&memory(5, "noeviction"), Instant::now());
        assert_eq!(health.ready(), Ok(()));
    }

    #[tokio::test]
    async fn a_policy_that_throws_away_until_it_is_another_one() {
        let (intake, health) = intake();
        intake.looked(&memory(5, "allkeys-lru"), Instant::now());
        assert!(health.ready().unwrap_err()[0].contains("its maxmemory-policy is allkeys-lru"), "{health:?}");
        intake.looked(&memory(5, "volatile-lru"), Instant::now());
        assert_eq!(health.ready(), Ok(()));
    }
}

//! What other processes have stored, as they tell it: so it does not wait for the next look. Nothing depends on it: what is
//! missed (no permission, no connection, too much at once) is found at the next look.

use fred::interfaces::{EventInterface as _, PubsubInterface as _};
use sync_core::redis::Fault;
use sync_core::redis::connection::Connector;
use sync_core::retry::Backoff;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::keys::Queue;
use super::wake::Wake;
use crate::settings::BufferSettings;

/// The channel: `PROCESS QUEUE`.
pub(super) const CHANNEL: &str = "unsynced_queues";
/// Messages that may wait between two turns of this process.
const WAITING: usize = 1024;

/// For ever.
pub(super) async fn listen(connector: Connector, settings: BufferSettings, wake: Wake) {
    let mut backoff = Backoff::new(settings.redis.retry);
    loop {
        let lost = hear(&connector, settings.redis.db, &wake, &mut backoff).await;
        tracing::debug!("does not hear what others store in the buffer: {lost:?}");
        sleep(backoff.next_delay()).await;
    }
}

async fn hear(connector: &Connector, db: u16, wake: &Wake, backoff: &mut Backoff) -> Result<(), Fault> {
    let mut connection = connector.listener(db, WAITING).await?;
    let mut messages = connection.client().message_rx();
    connection.run(async |client| Ok(client.subscribe(CHANNEL).await?)).await?;
    backoff.reset();
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            reason = connection.ended() => return Err(Fault::Lost(reason)),
        };
        match message {
            Ok(message) => {
                let text = message.value.as_string().unwrap_or_default();
                let queue = text.split_once(' ').filter(|(process, _)| *process != wake.process());
                if let Some(queue) = queue.and_then(|(_, queue)| Queue::parse(queue)) {
                    wake.stored(&queue);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

//! Scripts on one key each, called by their names: many calls in one round trip.

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use sha1::{Digest as _, Sha1};

use super::Fault;

/// What the client is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// A server that has all keys.
    Server,
    /// One node of a Cluster.
    Node,
}

/// See the module.
pub(crate) struct Script {
    text: &'static str,
    sha: String,
}

impl Script {
    /// With this text.
    pub(crate) fn new(text: &'static str) -> Self {
        let sha = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, sha }
    }

    /// One call for each key, in one round trip; in a second one for a server that does not know the script (yet, or no
    /// more), and so has not carried it out.
    pub(crate) async fn call(
        &self,
        client: &Client,
        at: At,
        calls: Vec<(&Bytes, Vec<Value>)>,
    ) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let by_name = self.send(client, fred::cmd!("EVALSHA", blocking: false), &self.sha, &calls).await?;
        let is_unknown = |reply: &Result<Value, Fault>| matches!(reply, Err(Fault::Other(words)) if words.starts_with("NOSCRIPT"));
        if !by_name.iter().any(is_unknown) {
            return Ok(by_name);
        }
        // Where one is unknown all are, but for those that another node has to answer: it says so again. A single one may
        // have come after an ASKING, which counted for the call that was not carried out.
        if at == At::Node && calls.len() == 1 {
            let _: Value = client.custom(fred::cmd!("ASKING", blocking: false), Vec::<Value>::new()).await?;
        }
        self.send(client, fred::cmd!("EVAL", blocking: false), self.text, &calls).await
    }

    async fn send(
        &self,
        client: &Client,
        command: fred::types::CustomCommand,
        script: &str,
        calls: &[(&Bytes, Vec<Value>)],
    ) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let pipeline = client.pipeline();
        for (key, arguments) in calls {
            let mut all = vec![Value::from(script), 1.into(), Value::Bytes((*key).clone())];
            all.extend(arguments.iter().cloned());
            let _: () = pipeline.custom(command.clone(), all).await?;
        }
        let replies = pipeline.try_all::<Value>().await;
        if replies.len() != calls.len() {
            let reason = replies.into_iter().find_map(Result::err).map(Fault::from);
            return Err(reason.unwrap_or_else(|| Fault::Lost("a pipeline's answers are missing".into())));
        }
        Ok(replies.into_iter().map(|reply| reply.map_err(Fault::from)).collect())
    }
}

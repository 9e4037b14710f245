//! A command that is on its way: in the order of calls, without anybody waiting for an answer yet.

use super::Fault;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{CustomCommand, Value};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

/// See the module.
pub enum Call {
    /// For its answer.
    Waiting(BoxFuture<'static, Result<Value, Fault>>),
    /// And nobody has taken the answer yet.
    Answered(Result<Value, Fault>),
}

impl Call {
    /// Sends the command. The client queues it when its future is first polled, so that is done here: what is sent
    /// later goes behind it.
    pub fn send(client: &Client, command: CustomCommand, arguments: Vec<Value>) -> Self {
        let client = client.clone();
        let answer = async move { Ok(client.custom::<Value, Value>(command, arguments).await?) };
        let mut answer = answer.boxed();
        match (&mut answer).now_or_never() {
            Some(answer) => Self::Answered(answer),
            None => Self::Waiting(answer),
        }
    }

    /// Waits for the answer. May be dropped at any time: an answer that came is kept.
    pub async fn answered(&mut self) {
        if let Self::Waiting(answer) = self {
            *self = Self::Answered(answer.await);
        }
    }

    /// The answer, if there is one by now.
    pub fn answer(self) -> Option<Result<Value, Fault>> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Waiting(_) => None,
        }
    }
}

//! The scripts, and how they are sent. What each does stands at its head, in `lua/`.

use std::sync::LazyLock;

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use fred::util::sha1_hash;
use sync_core::redis::Fault;

/// One script.
pub(super) struct Script {
    source: &'static str,
    hash: LazyLock<String>,
}

macro_rules! script {
    ($name:literal) => {
        Script {
            source: include_str!(concat!("lua/", $name, ".lua")),
            hash: LazyLock::new(|| sha1_hash(include_str!(concat!("lua/", $name, ".lua")))),
        }
    };
}

pub(super) static STORE: Script = script!("store");
pub(super) static AGREE: Script = script!("agree");
pub(super) static DIRECT: Script = script!("direct");
pub(super) static HEADS: Script = script!("heads");
pub(super) static SETTLE: Script = script!("settle");
pub(super) static LOOK: Script = script!("look");
pub(super) static SEEK: Script = script!("seek");
pub(super) static RESTORE: Script = script!("restore");
pub(super) static RESEND: Script = script!("resend");

impl Script {
    /// The command that runs it. `known` is whether the server has it: else its text goes along, and then it has.
    pub(super) fn command(&self, known: bool, arguments: Vec<Value>) -> (CustomCommand, Vec<Value>) {
        let name = if known { "EVALSHA" } else { "EVAL" };
        let script =
            if known { Value::from(self.hash.as_str()) } else { Value::from_static_str(self.source) };
        let all = [script, 0.into()].into_iter().chain(arguments).collect();
        (CustomCommand::new(name, ClusterHash::Random, false), all)
    }

    /// Runs it, and waits for the answer.
    pub(super) async fn run(&self, client: &Client, arguments: Vec<Value>) -> Result<Value, Fault> {
        let (command, known) = self.command(true, arguments.clone());
        match client.custom::<Value, Value>(command, known).await.map_err(Fault::from) {
            Err(Fault::Other(text)) if text.starts_with("NOSCRIPT") => {
                let (command, unknown) = self.command(false, arguments);
                client.custom::<Value, Value>(command, unknown).await.map_err(|error| said(error.into()))
            }
            answer => answer.map_err(said),
        }
    }
}

/// What a fault in a script means: Redis 6 puts the place in the script before the server's own words.
fn said(fault: Fault) -> Fault {
    let Fault::Other(text) = fault else { return fault };
    answered(&text)
}

/// The same of an error that a script has returned.
pub(super) fn answered(text: &str) -> Fault {
    let own = text.rsplit_once(": -").map_or(text, |(_, own)| own);
    Fault::answered(own.trim_end().to_owned())
}

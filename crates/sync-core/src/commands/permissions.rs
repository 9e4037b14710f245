//! What the source's user may do, by ACL DRYRUN (Redis 7.0): it answers without doing. It needs a right of its own,
//! which a careful user does not have; then nothing can be said.

use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Value;

use super::source::Source;
use crate::record::StreamName;
use crate::redis::Fault;
use crate::redis::ownership::Books;
use crate::settings::{Cleanup, Ownership};

/// What STREAM_OWNERSHIP=exclusive does without.
const SHARING: &str = "sharing streams with other replicas (keys redis-sync:*)";
/// Questions sent at once.
const PAGE: usize = 500;

/// What was found out.
pub(super) enum Permissions {
    /// Nothing, and why.
    Unknown(String),
    /// Of this user, right by right.
    Of(String, Vec<Right>),
}

/// One thing that the bridge does.
pub(super) struct Right {
    /// The command, and what for.
    pub(super) what: &'static str,
    /// How often it was asked about: once for each stream, or once.
    pub(super) asked: usize,
    /// The streams for which it is denied (none for what concerns no stream), and the server's words.
    pub(super) denied: Vec<(Option<StreamName>, String)>,
}

/// What is done to each stream, as arguments of ACL DRYRUN.
fn on_stream(source: &Source, key: &Bytes) -> Vec<(&'static str, Vec<Value>)> {
    let settings = &source.settings;
    let (group, consumer) = (settings.group.as_str(), settings.consumer.as_str());
    let of = |words: &[&str]| words.iter().map(|word| Value::from(*word)).collect::<Vec<_>>();
    let key = || Value::Bytes(key.clone());
    let dead_letters =
        [key().as_bytes().unwrap_or_default(), settings.dead_letter_suffix.as_bytes()].concat();
    let dead_letters = Value::Bytes(dead_letters.into());
    let mut asked = vec![
        (
            "XREADGROUP",
            [of(&["XREADGROUP", "GROUP", group, consumer, "STREAMS"]), vec![key()], of(&[">"])].concat(),
        ),
        ("XAUTOCLAIM", [of(&["XAUTOCLAIM"]), vec![key()], of(&[group, consumer, "0", "0-0"])].concat()),
        ("XACK", [of(&["XACK"]), vec![key()], of(&[group, "0-1"])].concat()),
        ("XADD (dead letters)", [of(&["XADD"]), vec![dead_letters], of(&["*", "field", "value"])].concat()),
        ("XINFO GROUPS", [of(&["XINFO", "GROUPS"]), vec![key()]].concat()),
        ("XRANGE", [of(&["XRANGE"]), vec![key()], of(&["-", "+"])].concat()),
    ];
    if settings.auto_create_groups {
        asked.push(("XGROUP CREATE", [of(&["XGROUP", "CREATE"]), vec![key()], of(&[group, "0"])].concat()));
    }
    if settings.cleanup != Cleanup::Ack {
        asked.push(("XPENDING (clean-up)", [of(&["XPENDING"]), vec![key()], of(&[group])].concat()));
        asked.push(("XLEN (clean-up)", [of(&["XLEN"]), vec![key()]].concat()));
        asked.push(("XTRIM (clean-up)", [of(&["XTRIM"]), vec![key()], of(&["MINID", "0"])].concat()));
    }
    if settings.cleanup == Cleanup::Delete {
        asked.push(("XDEL (clean-up)", [of(&["XDEL"]), vec![key()], of(&["0-1"])].concat()));
    }
    asked
}

/// Asks for everything that the bridge would do, on these streams.
pub(super) async fn find_out(source: &mut Source, streams: &[StreamName]) -> Result<Permissions, Fault> {
    let default_db = source.default_db;
    let ask = async |client: Client| {
        let command = fred::cmd!("ACL", blocking: false);
        Ok(client.custom::<String, _>(command, vec!["WHOAMI"]).await?)
    };
    let user = match source.in_database(default_db, ask).await {
        Ok(user) => user,
        Err(fault @ Fault::Lost(_)) => return Err(fault),
        Err(fault) => return Ok(Permissions::Unknown(fault.to_string())),
    };
    let mut questions: Vec<(&'static str, Option<&StreamName>, Vec<Value>)> = Vec::new();
    if source.settings.discovery.is_some() {
        questions.push(("SCAN", None, ["SCAN", "0", "TYPE", "stream"].map(Value::from).into()));
    }
    let of = |words: &[&str]| words.iter().map(|word| Value::from(*word)).collect();
    if source.is_cluster {
        questions.push(("CLUSTER SLOTS", None, of(&["CLUSTER", "SLOTS"])));
        questions.push(("ASKING", None, of(&["ASKING"])));
    }
    if source.is_cluster || source.settings.cleanup != Cleanup::Ack {
        questions.push(("EVAL", None, of(&["EVAL", "return", "0"])));
        questions.push(("EVALSHA", None, of(&["EVALSHA", "sha", "0"])));
    }
    let named_in_settings = source.settings.named.clone();
    for named in &named_in_settings {
        questions.push(("TYPE", Some(named), vec!["TYPE".into(), Value::Bytes(named.key.clone())]));
    }
    if source.settings.ownership == Ownership::Shared {
        let books = Books::new(&source.settings.group, default_db, Duration::ZERO);
        let question = |words: Vec<String>| words.into_iter().map(Value::from).collect();
        questions.extend(books.commands().into_iter().map(|words| (SHARING, None, question(words))));
    }
    for stream in streams {
        let on_stream = on_stream(source, &stream.key);
        questions.extend(on_stream.into_iter().map(|(what, arguments)| (what, Some(stream), arguments)));
    }
    let mut rights: Vec<Right> = Vec::new();
    for page in questions.chunks(PAGE) {
        let arguments = page.iter().map(|(.., arguments)| arguments.clone()).collect();
        source.limiter.take().await;
        let answers = source.in_database(default_db, |client| dry_run(client, &user, arguments)).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(fault @ Fault::Lost(_)) => return Err(fault),
            Err(fault) => return Ok(Permissions::Unknown(fault.to_string())),
        };
        for ((what, stream, _), answer) in page.iter().zip(answers) {
            let at = rights.iter().position(|right| right.what == *what).unwrap_or_else(|| {
                rights.push(Right { what, asked: 0, denied: Vec::new() });
                rights.len() - 1
            });
            rights[at].asked += 1;
            if answer != "OK" {
                rights[at].denied.push(((*stream).cloned(), answer));
            }
        }
    }
    Ok(Permissions::Of(user, rights))
}

async fn dry_run(client: Client, user: &str, questions: Vec<Vec<Value>>) -> Result<Vec<String>, Fault> {
    let pipeline = client.pipeline();
    for question in questions {
        let command = fred::cmd!("ACL", blocking: false);
        let arguments = [vec!["DRYRUN".into(), user.into()], question].concat();
        let _: () = pipeline.custom(command, arguments).await?;
    }
    let answers = pipeline.try_all::<String>().await;
    Ok(answers.into_iter().collect::<Result<_, _>>()?)
}

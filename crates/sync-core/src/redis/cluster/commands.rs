//! What is done to streams on a Cluster, each at the node that owns it.
//!
//! **Reading without a fence of its own.** A Cluster has no read across slots, and none that blocks may stand in a
//! script; so streams are polled, one script call for each, pipelined to each node. The call says which entry it
//! expects to be the last that the group was handed. If the group says otherwise, nothing is read (`TAKEN`): somebody
//! else read in between, or an earlier command of ours whose answer was lost or came late, or an operator set the
//! group. The lane then takes what is pending, in ID order, before it goes on: so entries that anybody else took are
//! seen before any later one, which puts the owners of a stream one after the other without a lease. What is expected
//! is learned with the last page of what is pending, in one script call: no entry can be handed out between the two.
//!
//! One call for each stream rather than for each slot: what two streams of one slot would save is little, and a call
//! with one key never gets TRYAGAIN, which a call with several gets for as long as its slot is half moved.

use std::sync::LazyLock;

use bytes::Bytes;
use fred::types::Value;

use super::Cluster;
use crate::record::EntryId;
use crate::redis::Fault;
use crate::redis::cleanup::{self, Deleted, Swept};
use crate::redis::groups::{self, Settled};
use crate::redis::script::{At, Script};
use crate::settings::StartId;

/// The group's last delivered ID; an error reply where there is none. The words of errors are ours: the server's name
/// the key, and the client library never returns an error reply that is not UTF-8.
macro_rules! with_delivered {
    ($script:literal) => {
        concat!(
            "local function delivered() \
               local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1]) \
               if groups.err then \
                 if string.find(groups.err, 'no such key', 1, true) then groups = {} else return groups end end \
               for _, group in ipairs(groups) do \
                 if group[2] == ARGV[1] then \
                   for i = 1, #group, 2 do \
                     if group[i] == 'last-delivered-id' then return group[i + 1] end end end end \
               return redis.error_reply('NOGROUP no such key or consumer group') end ",
            $script
        )
    };
}

/// Group, consumer, count, what was delivered last.
static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(with_delivered!(
        "local last = delivered() \
         if type(last) == 'table' then return last end \
         if last ~= ARGV[4] then return redis.error_reply('TAKEN the group was handed other entries') end \
         local read = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], '>') \
         if not read then return {} end \
         if read.err then return read end \
         return read[1][2]"
    ))
});

/// Group, consumer, where the page begins, count. The last page says what was delivered last, as a fourth element.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(with_delivered!(
        "local page = redis.pcall('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'COUNT', ARGV[4]) \
         if page.err then \
           if string.find(page.err, 'NOGROUP', 1, true) then return delivered() end \
           return page end \
         if page[1] == '0-0' then \
           page[3] = page[3] or {} \
           page[4] = delivered() end \
         return page"
    ))
});

impl Cluster {
    /// New entries of each stream, if the entry named with it is the last that the group was handed; [`Fault::Taken`]
    /// if not. Each a list of entries. May be given up at any time, see the module.
    pub(crate) async fn read_new(
        &mut self,
        group: &str,
        consumer: &str,
        streams: &[(Bytes, EntryId)],
        count: u32,
    ) -> Vec<Result<Value, Fault>> {
        let arguments = |expected: EntryId| {
            [group, consumer, &count.to_string(), &expected.to_string()].map(Value::from).to_vec()
        };
        self.call(&READ, streams, |expected| arguments(*expected)).await
    }

    /// One page per stream of what is pending in the group, whoever read it, claimed for this consumer; with the last
    /// page, what the group was handed last.
    pub(crate) async fn claim_pending(
        &mut self,
        group: &str,
        consumer: &str,
        pages: &[(Bytes, EntryId)],
        count: u32,
    ) -> Vec<Result<Value, Fault>> {
        let arguments = |from: EntryId| {
            [group, consumer, &from.to_string(), &count.to_string()].map(Value::from).to_vec()
        };
        self.call(&CLAIM, pages, |from| arguments(*from)).await
    }

    async fn call(
        &mut self,
        script: &Script,
        streams: &[(Bytes, EntryId)],
        arguments: impl Fn(&EntryId) -> Vec<Value>,
    ) -> Vec<Result<Value, Fault>> {
        let keys: Vec<Bytes> = streams.iter().map(|(key, _)| key.clone()).collect();
        let arguments = &arguments;
        self.at_owners(&keys, |client, part| async move {
            let calls: Vec<_> = part.iter().map(|at| (&streams[*at].0, arguments(&streams[*at].1))).collect();
            script.call(&client, At::Node, calls).await
        })
        .await
    }

    /// [`groups::acknowledge`], each at its node.
    pub(crate) async fn acknowledge(&mut self, group: &str, settled: &[Settled]) -> Vec<Result<(), Fault>> {
        let keys: Vec<Bytes> = settled.iter().map(|(key, _)| key.clone()).collect();
        self.at_owners(&keys, |client, part| async move {
            let settled: Vec<&Settled> = part.iter().map(|at| &settled[*at]).collect();
            groups::acknowledge(&client, group, &settled).await
        })
        .await
    }

    /// [`cleanup::acknowledge`], each at its node.
    pub(crate) async fn acknowledge_and_delete(
        &mut self,
        group: &str,
        settled: &[Settled],
    ) -> Vec<Result<Deleted, Fault>> {
        let keys: Vec<Bytes> = settled.iter().map(|(key, _)| key.clone()).collect();
        self.at_owners(&keys, |client, part| async move {
            let settled: Vec<&Settled> = part.iter().map(|at| &settled[*at]).collect();
            cleanup::acknowledge(&client, At::Node, group, &settled).await
        })
        .await
    }

    /// [`cleanup::sweep`], each at its node.
    pub(crate) async fn sweep(&mut self, group: &str, keys: &[Bytes]) -> Vec<Result<Swept, Fault>> {
        self.at_owners(keys, |client, part| async move {
            let keys: Vec<&Bytes> = part.iter().map(|at| &keys[*at]).collect();
            cleanup::sweep(&client, At::Node, group, &keys).await
        })
        .await
    }

    /// [`groups::create`], each at its node.
    pub(crate) async fn create(
        &mut self,
        streams: &[(Bytes, StartId)],
        group: &str,
    ) -> Vec<Result<bool, Fault>> {
        let keys: Vec<Bytes> = streams.iter().map(|(key, _)| key.clone()).collect();
        self.at_owners(&keys, |client, part| async move {
            let streams: Vec<_> = part.iter().map(|at| streams[*at].clone()).collect();
            groups::create(&client, &streams, group).await
        })
        .await
    }
}

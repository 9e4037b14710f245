//! Batches of one stream may be written at the same time, on several connections; they take effect in their order. A
//! batch commits only when those that were handed over before it, and have a stream in common with it, are done; and if
//! one of these left an entry of such a stream undone, the batch is rolled back.
//!
//! One is written while the one before it is, and a third one waits until the first is done: the more are written at the
//! same time, the longer they stand written and wait for their turns, and with four the whole is slower by a twelfth.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use sync_core::record::StreamName;
use tokio::sync::watch;

/// The last batch of each stream that has one under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order(Arc<Mutex<HashMap<StreamName, Last>>>);

#[derive(Debug)]
struct Last {
    batch: Watch,
    /// Those before it.
    before: Arc<[Watch]>,
}

type Undone = Arc<HashSet<StreamName>>;
/// `None` while the batch is under way, then the streams of which something is undone.
type Watch = watch::Receiver<Option<Undone>>;

/// A batch's place, from its handing over until whoever handed it over has been told what became of it: only then is no
/// batch sent after it that does not know of it. Unless told otherwise, everything of it is undone.
#[derive(Debug)]
pub(crate) struct Place {
    order: Order,
    streams: HashSet<StreamName>,
    before: Arc<[Watch]>,
    /// Those before the ones before it.
    long_before: Vec<Arc<[Watch]>>,
    tell: watch::Sender<Option<Undone>>,
}

impl Order {
    /// A batch of these streams takes its place behind all that took theirs before.
    pub(crate) fn take_place(&self, streams: HashSet<StreamName>) -> Place {
        let (tell, watch) = watch::channel(None);
        let mut last = self.last();
        let (mut before, mut long_before) = (Vec::<Watch>::new(), Vec::new());
        for stream in &streams {
            let Some(known) = last.get(stream) else { continue };
            if !before.iter().any(|batch| batch.same_channel(&known.batch)) {
                before.push(known.batch.clone());
                long_before.push(known.before.clone());
            }
        }
        let before: Arc<[Watch]> = before.into();
        for stream in &streams {
            last.insert(stream.clone(), Last { batch: watch.clone(), before: before.clone() });
        }
        drop(last);
        Place { order: self.clone(), streams, before, long_before, tell }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, HashMap<StreamName, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether any batch before it is still under way.
    pub(crate) fn must_wait(&self) -> bool {
        self.before.iter().any(|batch| batch.borrow().is_none())
    }

    /// Once the ones before it are the only ones before it.
    pub(crate) async fn may_begin(&self) {
        for batch in self.long_before.iter().flat_map(|batches| batches.iter()) {
            // One that is gone without a word is done, too.
            let _ = batch.clone().wait_for(Option::is_some).await;
        }
    }

    /// Once all before it are done: whether they left nothing undone that comes before an entry of this batch.
    pub(crate) async fn may_take_effect(&self) -> bool {
        for batch in self.before.iter() {
            let mut batch = batch.clone();
            let done = batch.wait_for(Option::is_some).await;
            let clear = done
                .is_ok_and(|undone| undone.as_ref().is_some_and(|undone| undone.is_disjoint(&self.streams)));
            if !clear {
                return false;
            }
        }
        true
    }

    /// It has taken effect, but for something of these streams. Those behind it may go on; the place stays taken.
    pub(crate) fn done(&mut self, undone: HashSet<StreamName>) {
        self.tell.send_replace(Some(Arc::new(undone)));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.tell.borrow().is_none() {
            self.tell.send_replace(Some(Arc::new(self.streams.clone())));
        }
        let mut last = self.order.last();
        for stream in &self.streams {
            if last.get(stream).is_some_and(|last| last.batch.same_channel(&self.tell.subscribe())) {
                last.remove(stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn streams(names: &[&'static str]) -> HashSet<StreamName> {
        names.iter().map(|name| StreamName::new(0, *name)).collect()
    }

    #[test]
    fn only_batches_with_a_stream_in_common_wait_for_each_other() {
        let order = Order::default();
        let mut first = order.take_place(streams(&["a", "b"]));
        let mut other = order.take_place(streams(&["c"]));
        let second = order.take_place(streams(&["b", "c"]));
        assert!(!first.must_wait() && !other.must_wait() && second.must_wait());
        assert_eq!(other.may_take_effect().now_or_never(), Some(true));
        assert_eq!(second.may_take_effect().now_or_never(), None);
        first.done(streams(&["a"]));
        assert_eq!(second.may_take_effect().now_or_never(), None);
        other.done(HashSet::new());
        assert!(!second.must_wait());
        assert_eq!(second.may_take_effect().now_or_never(), Some(true));
        drop((first, other, second));
        assert!(order.last().is_empty());
    }

    #[test]
    fn a_batch_begins_while_the_one_before_it_is_under_way_and_not_earlier() {
        let order = Order::default();
        let mut first = order.take_place(streams(&["a"]));
        let mut second = order.take_place(streams(&["a", "b"]));
        let third = order.take_place(streams(&["b"]));
        let other = order.take_place(streams(&["c"]));
        let fourth = order.take_place(streams(&["b", "c"]));
        let begins = |place: &Place| place.may_begin().now_or_never().is_some();
        assert!(begins(&first) && begins(&second) && !begins(&third) && begins(&other) && !begins(&fourth));
        first.done(streams(&["a"]));
        assert!(begins(&third) && !begins(&fourth));
        second.done(HashSet::new());
        assert!(begins(&fourth));
    }

    #[test]
    fn what_is_undone_holds_back_what_comes_after_it_and_nothing_else() {
        let order = Order::default();
        let mut first = order.take_place(streams(&["a", "b"]));
        let same = order.take_place(streams(&["a"]));
        let mut other = order.take_place(streams(&["b"]));
        first.done(streams(&["a"]));
        assert_eq!(same.may_take_effect().now_or_never(), Some(false));
        assert_eq!(other.may_take_effect().now_or_never(), Some(true));
        // It was not done either: what follows it is held back, too.
        let next = order.take_place(streams(&["a", "b"]));
        other.done(HashSet::new());
        drop(same);
        assert_eq!(next.may_take_effect().now_or_never(), Some(false));
    }

    #[test]
    fn what_is_undone_is_known_until_it_was_told() {
        let order = Order::default();
        let mut first = order.take_place(streams(&["a"]));
        first.done(streams(&["a"]));
        // Handed over by somebody who has not heard of it yet.
        let second = order.take_place(streams(&["a"]));
        assert_eq!(second.may_take_effect().now_or_never(), Some(false));
        drop((first, second));
        assert_eq!(order.take_place(streams(&["a"])).may_take_effect().now_or_never(), Some(true));
    }

    #[test]
    fn a_batch_that_ends_without_a_word_has_done_nothing() {
        let order = Order::default();
        let first = order.take_place(streams(&["a"]));
        let second = order.take_place(streams(&["a"]));
        drop(first);
        assert_eq!(second.may_take_effect().now_or_never(), Some(false));
        drop(second);
        assert!(!order.take_place(streams(&["a"])).must_wait());
    }
}

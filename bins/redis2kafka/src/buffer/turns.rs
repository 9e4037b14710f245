//! Whose turn it is to be read. A queue that was asked for and not reached, since those before it filled the batch, keeps its
//! place; one that was read goes behind all others. So however busy some are, each is read after at most as many batches
//! as there are queues before it.

use std::collections::VecDeque;

use super::keys::Queue;

/// Queues that are to be read, in this order.
#[derive(Debug, Default)]
pub(super) struct Turns(VecDeque<Queue>);

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// It has something: behind all others.
    pub(super) fn join(&mut self, queue: Queue) {
        self.0.push_back(queue);
    }

    /// The first ones, at most so many.
    pub(super) fn take(&mut self, most: usize) -> Vec<Queue> {
        self.0.drain(..self.0.len().min(most)).collect()
    }

    /// These were taken, in this order, and not reached: before all others.
    pub(super) fn give_back(&mut self, queues: Vec<Queue>) {
        queues.into_iter().rev().for_each(|queue| self.0.push_front(queue));
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Queue) -> bool) {
        self.0.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Kind;
    use super::*;

    /// Busy ones always have more, and so many of them fill a batch; quiet ones, behind them, are read all the same.
    #[test]
    fn none_starves_behind_busy_ones() {
        const BUSY: usize = 60;
        const FILL: usize = 40;
        const QUIET: usize = 10;
        let queue = |number: usize| Queue::new(Kind::Stream, "t", &number.to_string());
        let mut turns = Turns::default();
        (0..BUSY + QUIET).for_each(|number| turns.join(queue(number)));
        let mut read = Vec::new();
        for _ in 0..4 {
            let mut taken = turns.take(500);
            let passed_over = taken.split_off(FILL.min(taken.len()));
            taken
                .iter()
                .filter(|queue| queue.name().parse::<usize>().unwrap() < BUSY)
                .cloned()
                .for_each(|queue| turns.join(queue));
            read.extend(taken);
            turns.give_back(passed_over);
        }
        for number in 0..BUSY + QUIET {
            assert!(read.contains(&queue(number)), "{number}");
        }
        assert!(
            read[FILL..][..BUSY + QUIET - FILL]
                .iter()
                .eq((FILL..BUSY + QUIET).map(queue).collect::<Vec<_>>().iter())
        );
    }
}

//! How an owner and its worker hand things to each other without a lock.
//!
//! The worker may be stopped for long between any two instructions, so neither
//! side may ever wait for the other: adding is one exchange that is tried again
//! only when somebody else has just added, or taken, something; taking takes
//! everything at once.

#![expect(unsafe_code, reason = "nodes pass from the thread that adds to the one that takes")]

use std::marker::PhantomData;
use std::ptr;

use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicPtr, Ordering};

/// Values on their way between threads, in the order in which they were added.
/// Any thread adds and takes.
pub(super) struct Handover<T> {
    /// The node that was added last, or null.
    last: AtomicPtr<Node<T>>,
    /// To be `Sync` where a lock around the values would be.
    _values: PhantomData<Mutex<T>>,
}

struct Node<T> {
    value: T,
    /// The one added before, or null.
    before: *mut Node<T>,
}

impl<T> Handover<T> {
    pub(super) fn new() -> Self {
        Self { last: AtomicPtr::new(ptr::null_mut()), _values: PhantomData }
    }

    pub(super) fn push(&self, value: T) {
        let mut last = self.last.load(Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node { value, before: last }));
        // That another node of the same address came and went meanwhile does
        // no harm: the new node goes before whatever is the last one now.
        while let Err(now) =
            self.last.compare_exchange_weak(last, node, Ordering::Release, Ordering::Relaxed)
        {
            last = now;
            // SAFETY: the node was made above, and no other thread knows it
            // before the exchange succeeds.
            unsafe { (*node).before = last };
        }
    }

    /// Takes all that was added, the oldest first.
    pub(super) fn take_all(&self) -> Vec<T> {
        let mut values = Vec::new();
        if self.last.load(Ordering::Relaxed).is_null() {
            return values;
        }
        let mut next = self.last.swap(ptr::null_mut(), Ordering::Acquire);
        while !next.is_null() {
            // SAFETY: each node was made by `Box::into_raw` in `push`, whose
            // Release this thread's Acquire has seen. The exchange gave the
            // whole list to this call alone, and each node is visited once.
            let node = unsafe { Box::from_raw(next) };
            next = node.before;
            values.push(node.value);
        }
        values.reverse();
        values
    }
}

impl<T> Drop for Handover<T> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

#[cfg(test)]
mod tests {
    use crate::base::sync::atomic::AtomicBool;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn values_come_in_order_and_are_dropped_with_it() {
        let handover = Handover::new();
        assert!(handover.take_all().is_empty());
        for i in 0..5 {
            handover.push(i);
        }
        assert_eq!(handover.take_all(), [0, 1, 2, 3, 4]);
        assert!(handover.take_all().is_empty());
        let kept = Arc::new(());
        let handover = Handover::new();
        handover.push(Arc::clone(&kept));
        handover.push(Arc::clone(&kept));
        drop(handover);
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[test]
    fn several_threads_add_and_take_and_each_value_arrives_once() {
        const EACH: u32 = 5000;
        let handover = Handover::new();
        let over = AtomicBool::new(false);
        let mut taken: Vec<(u32, u32)> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut taken = Vec::new();
                        loop {
                            let was_over = over.load(Ordering::Acquire);
                            let some = handover.take_all();
                            for from in 0..2 {
                                let of_one = some.iter().filter(|(thread, _)| *thread == from);
                                assert!(of_one.is_sorted(), "in the order of their adding");
                            }
                            taken.extend(some);
                            if was_over {
                                return taken;
                            }
                        }
                    })
                })
                .collect();
            let adders: Vec<_> = (0..2)
                .map(|from| {
                    let handover = &handover;
                    scope.spawn(move || (0..EACH).for_each(|i| handover.push((from, i))))
                })
                .collect();
            for adder in adders {
                adder.join().unwrap();
            }
            over.store(true, Ordering::Release);
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        taken.sort_unstable();
        let all: Vec<_> = (0..2).flat_map(|from| (0..EACH).map(move |i| (from, i))).collect();
        assert_eq!(taken, all);
    }
}

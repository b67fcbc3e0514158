//! What a panic said, and where, without printing it: a seed that panics is a
//! result.

use std::any::Any;
use std::cell::RefCell;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From here on panics are noted in place of being printed.
pub(crate) fn catch() {
    std::panic::set_hook(Box::new(|info| {
        LAST.with_borrow_mut(|last| {
            // The first one is the cause of others.
            last.get_or_insert_with(|| info.to_string());
        });
    }));
}

/// What the panic that was caught on this thread said.
pub(crate) fn describe(panic: &(dyn Any + Send)) -> String {
    LAST.take().unwrap_or_else(|| match panic.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => "a panic without words".to_owned(),
    })
}

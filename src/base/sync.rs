//! The locks of the engine.
//!
//! One place, so that tests can put another implementation under the whole
//! engine. A thread that panics while it holds a lock leaves the state behind
//! it half changed: everybody who comes after panics too, rather than work on.

/// A mutual exclusion lock; see the module's text about panics.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

/// What [`Mutex::lock`] returns.
pub(crate) type MutexGuard<'a, T> = std::sync::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(_) => panic!("another thread panicked while it held this lock"),
        }
    }
}

//! Ctrl-C and SIGTERM: a run ends between two steps of its work, and leaves
//! nothing behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether a run is to end.
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    /// The signal that says so.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// From here on, neither signal ends the process.
    pub(crate) fn install() -> io::Result<Self> {
        let (requested, signal) = (Arc::default(), Arc::default());
        for number in [SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
            signal_hook::flag::register(number, Arc::clone(&requested))?;
        }
        Ok(Self { requested, signal })
    }

    pub(crate) fn requested(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }

    /// What is set then.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.requested
    }

    /// The exit code: 128 and the number of the signal.
    pub(crate) fn exit_code(&self) -> u8 {
        128 + self.signal.load(Ordering::Relaxed) as u8
    }
}

//! Ctrl-C and SIGTERM: a run ends with the seeds it is at, and a second signal ends
//! it at once.

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
    /// From here on, the first signal does not end the process.
    pub(crate) fn install() -> io::Result<Self> {
        let (requested, signal) = (Arc::<AtomicBool>::default(), Arc::default());
        for number in [SIGINT, SIGTERM] {
            let seen = Arc::clone(&requested);
            signal_hook::flag::register_conditional_shutdown(number, 128 + number, seen)?;
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
            signal_hook::flag::register(number, Arc::clone(&requested))?;
        }
        Ok(Self { requested, signal })
    }

    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// The exit code: 128 and the number of the signal.
    pub(crate) fn exit_code(&self) -> u8 {
        128 + self.signal.load(Ordering::Relaxed) as u8
    }
}

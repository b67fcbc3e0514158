//! Ctrl-C and SIGTERM: a run ends with the seeds it is at, and a second signal ends
//! it at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether a run is to end.
pub(crate) struct Interrupt {
    /// The signal that says so; 0 before.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// From here on, the first signal does not end the process.
    pub(crate) fn install() -> io::Result<Self> {
        let (seen, signal) = (Arc::<AtomicBool>::default(), Arc::default());
        for number in [SIGINT, SIGTERM] {
            // First: none is lost that comes between these.
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
            let ends = Arc::clone(&seen);
            signal_hook::flag::register_conditional_shutdown(number, 128 + number, ends)?;
            signal_hook::flag::register(number, Arc::clone(&seen))?;
        }
        Ok(Self { signal })
    }

    pub(crate) fn requested(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }

    /// The exit code: 128 and the number of the signal.
    pub(crate) fn exit_code(&self) -> u8 {
        128 + self.signal.load(Ordering::Relaxed) as u8
    }
}

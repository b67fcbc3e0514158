//! Which requests fail, and how; and what that explains.

use std::fmt;

use clap::ValueEnum;
use ourodb::ErrorKind;
use ourodb::sim::{FaultKind, Faults, Injected, Sim};

use super::play::Call;

/// A way in which a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The device fails it
    Io,
    /// There is no space left
    NoSpace,
    /// A sync finds no space for what it is to write
    SyncNoSpace,
    /// It moves fewer bytes than asked for
    Short,
    /// It is refused for now
    Again,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Io, Self::NoSpace, Self::Short, Self::Again, Self::SyncNoSpace];

    pub(crate) fn fault(self) -> FaultKind {
        match self {
            Self::Io => FaultKind::Io,
            Self::NoSpace => FaultKind::NoSpace,
            Self::SyncNoSpace => FaultKind::SyncNoSpace,
            Self::Short => FaultKind::Short,
            Self::Again => FaultKind::Again,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.to_possible_value().map(|kind| kind.get_name().to_owned());
        f.write_str(&kind.unwrap_or_default())
    }
}

/// One request that fails, of those that can fail so; or all from that one on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) k: u64,
    pub(crate) kind: Kind,
    pub(crate) for_ever: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--k {} --kind {}", self.k, self.kind)?;
        if self.for_ever { write!(f, " --for-ever") } else { Ok(()) }
    }
}

/// All that fails in one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variant {
    pub(crate) faults: Vec<Fault>,
}

impl Variant {
    pub(crate) fn of(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }

    /// What the machine is told.
    pub(crate) fn faults(&self) -> Faults {
        let add = |faults: Faults, fault: &Fault| {
            faults.fail_kth(fault.k, fault.kind.fault(), fault.for_ever)
        };
        self.faults.iter().fold(Faults::default(), add)
    }

    pub(crate) fn is_for_ever(&self) -> bool {
        self.faults.iter().any(|fault| fault.for_ever)
    }

    /// How many calls fail at most, if it is not for ever.
    pub(crate) fn faults_max(&self) -> usize {
        self.faults.len()
    }

    /// Whether what befell the machine so far explains that such a call fails so.
    pub(crate) fn explains(&self, call: Call, error: ErrorKind, sim: &Sim) -> bool {
        let befell = Befell::of(sim, self);
        match error {
            // What is full can be read.
            ErrorKind::NoSpace => {
                let is_full = |kind| befell.kind(kind);
                call != Call::Read
                    && [FaultKind::NoSpace, FaultKind::SyncNoSpace].into_iter().any(is_full)
            }
            // A read of a table or a value is tried once more; so it takes two.
            ErrorKind::Io if call == Call::Read => befell.can_fail_reads(),
            // Whoever writes may have to open a file, but does not depend on a read.
            ErrorKind::Io if call == Call::Write => {
                befell.kind(FaultKind::Io) && !befell.are_reads()
            }
            ErrorKind::Io => befell.kind(FaultKind::Io),
            ErrorKind::Poisoned => call != Call::Read && befell.poisons(),
            _ => false,
        }
    }
}

/// What befell the machine since it was told what fails.
pub(crate) struct Befell {
    pub(crate) count: u64,
    /// The first ones.
    pub(crate) injected: Vec<Injected>,
    /// How it was to fail.
    kinds: Vec<FaultKind>,
}

impl Befell {
    pub(crate) fn of(sim: &Sim, variant: &Variant) -> Self {
        let kinds = variant.faults.iter().map(|fault| fault.kind.fault()).collect();
        Self { count: sim.faults_injected(), injected: sim.injected(), kinds }
    }

    /// Of those that nobody remembers anything may be true.
    fn had(&self, is_one: impl Fn(&Injected) -> bool) -> bool {
        self.count > self.injected.len() as u64 || self.injected.iter().any(is_one)
    }

    fn kind(&self, kind: FaultKind) -> bool {
        self.kinds.contains(&kind) && self.had(|fault| fault.kind == kind)
    }

    /// A write of a log or a manifest failed in the device, or a sync of one for
    /// whatever reason: what poisons.
    pub(crate) fn poisons(&self) -> bool {
        let poisons = |fault: &Injected| {
            let name = fault.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match fault.request {
                // With the names of manifests in it.
                "sync directory" => name != "wal",
                "write" | "sync" if name.ends_with(".wal") => true,
                _ => name.starts_with("MANIFEST-") && !is_look(fault),
            }
        };
        let is_fatal = |kind| matches!(kind, FaultKind::Io | FaultKind::SyncNoSpace);
        self.kinds.iter().any(|&kind| is_fatal(kind))
            && self.had(|fault| is_fatal(fault.kind) && poisons(fault))
    }

    /// Nothing but reads failed.
    fn are_reads(&self) -> bool {
        !self.had(|fault| fault.request != "read")
    }

    fn can_fail_reads(&self) -> bool {
        let looks = self.injected.iter().filter(|fault| fault.kind == FaultKind::Io);
        let looks = looks.filter(|fault| is_look(fault)).count();
        let opens = |fault: &Injected| is_look(fault) && fault.request != "read";
        self.kind(FaultKind::Io) && (looks > 1 || self.had(opens))
    }
}

/// Nothing changes by this request. A manifest is opened as a part of making it count.
fn is_look(fault: &Injected) -> bool {
    let name = fault.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_making = fault.request == "open" && name.starts_with("MANIFEST-");
    matches!(fault.request, "read" | "open" | "inspect" | "list" | "lock") && !is_making
}

//! Who is told what a salvage comes upon.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, ErrorKind};
use crate::base::fault::{Fault, Finding};
use crate::base::keys::KeyBounds;
use crate::base::salvaged::{Loss, Salvaged, Salvaging};
use crate::io::Halt;
use crate::sst::Lost;

/// What a fault that an inspection finds means for the copy.
#[derive(Clone, Copy)]
pub(super) enum Meaning {
    /// Something may be lost; in what way.
    Lost(&'static str),
    /// Nothing is lost; why.
    Spared(&'static str),
    /// Not known yet: [`Reporter::held`] has it.
    Held,
    /// It was told, or will be; but for what the device did not give.
    Silent,
}

/// What it means that the device does not give something.
const UNREAD: &str =
    "what is there is lost: keys may be missing or older, deleted ones may come back";

/// Tells of losses, and counts.
pub(crate) struct Reporter<'a> {
    pub(crate) counts: Salvaged,
    report: &'a mut dyn FnMut(Salvaging<'_>) -> ControlFlow<()>,
    meaning: Meaning,
    /// Faults that wait to be judged.
    held: Vec<Fault>,
    /// Places that the device did not give, and that were told.
    unread: BTreeSet<(PathBuf, u64)>,
    /// What only a newer version can read.
    unsupported: Option<Error>,
}

/// Shared by an inspection and whoever makes it.
pub(crate) type SharedReporter<'a> = RefCell<Reporter<'a>>;

impl<'a> Reporter<'a> {
    pub(crate) fn new(report: &'a mut dyn FnMut(Salvaging<'_>) -> ControlFlow<()>) -> Self {
        let (counts, meaning) = (Salvaged::default(), Meaning::Silent);
        let (held, unread) = (Vec::new(), BTreeSet::new());
        Self { counts, report, meaning, held, unread, unsupported: None }
    }

    /// Says what the faults mean that an inspection finds from now on.
    pub(super) fn faults_mean(&mut self, meaning: Meaning) {
        self.meaning = meaning;
    }

    /// What an inspection tells.
    pub(super) fn finding(&mut self, finding: Finding<'_>) -> ControlFlow<()> {
        let fault = match finding {
            Finding::Fault(fault) => fault,
            Finding::Read(bytes) => return (self.report)(Salvaging::Read(bytes)),
            Finding::Orphan(_) => return ControlFlow::Continue(()),
        };
        // Nothing is damaged: who can read it should copy it.
        if fault.kind() == ErrorKind::Unsupported {
            let Fault { file, offset, reason, .. } = fault;
            self.unsupported = Some(Error::unsupported_at(file, *offset, reason));
            return ControlFlow::Break(());
        }
        match self.meaning {
            Meaning::Spared(why) => self.tell_spared(&with(fault, why)),
            // What is read twice may be there once.
            _ if fault.kind() == ErrorKind::Io => {
                match self.unread.insert((fault.file.clone(), fault.offset)) {
                    true => self.tell_lost(with(fault, UNREAD), None),
                    false => ControlFlow::Continue(()),
                }
            }
            Meaning::Lost(how) => self.tell_lost(with(fault, how), None),
            Meaning::Held => {
                self.held.push(fault.clone());
                ControlFlow::Continue(())
            }
            Meaning::Silent => ControlFlow::Continue(()),
        }
    }

    fn tell_lost(&mut self, fault: Fault, keys: Option<KeyBounds>) -> ControlFlow<()> {
        self.counts.losses += 1;
        (self.report)(Salvaging::Lost(&Loss { fault, keys }))
    }

    fn tell_spared(&mut self, fault: &Fault) -> ControlFlow<()> {
        self.counts.spared += 1;
        (self.report)(Salvaging::Spared(fault))
    }

    /// Tells of the faults that were held: nothing is lost by those in the files
    /// that `is_spared` names.
    pub(super) fn judge(
        &mut self,
        lost: &str,
        spared: &str,
        is_spared: impl Fn(&Path) -> bool,
    ) -> Result<(), Halt> {
        for fault in std::mem::take(&mut self.held) {
            let told = match is_spared(fault.file()) {
                true => self.tell_spared(&with(&fault, spared)),
                false => self.tell_lost(with(&fault, lost), None),
            };
            halted(told)?;
        }
        Ok(())
    }

    /// Tells of something lost.
    pub(super) fn lost(
        &mut self,
        file: &Path,
        offset: u64,
        reason: impl Into<String>,
        keys: Option<KeyBounds>,
    ) -> Result<(), Halt> {
        halted(self.tell_lost(fault(file, offset, reason.into()), keys))
    }

    /// Tells of something damaged that nothing is lost by.
    pub(super) fn spared(&mut self, file: &Path, reason: &str) -> Result<(), Halt> {
        halted(self.tell_spared(&fault(file, 0, reason.to_owned())))
    }

    /// Tells what a table has lost.
    pub(super) fn lost_of_table(&mut self, path: &Path, lost: Vec<Lost>) -> Result<(), Halt> {
        let mut told = lost.into_iter();
        told.try_for_each(|lost| self.lost(path, lost.offset, lost.reason, Some(lost.keys)))
    }

    /// Why the salvage ended, if it did not come to its end.
    pub(crate) fn failure(&mut self, halt: Halt) -> Option<Error> {
        match halt {
            Halt::Failed(error) => Some(error),
            Halt::Stopped => self.unsupported.take(),
        }
    }
}

fn fault(file: &Path, offset: u64, reason: String) -> Fault {
    Fault { kind: ErrorKind::Corruption, file: file.to_owned(), offset, reason }
}

fn with(fault: &Fault, meaning: &str) -> Fault {
    Fault { reason: format!("{}; {meaning}", fault.reason), ..fault.clone() }
}

fn halted(told: ControlFlow<()>) -> Result<(), Halt> {
    match told {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Halt::Stopped),
    }
}

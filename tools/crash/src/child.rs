//! A worker as its parent sees it: a pipe to read under a time limit, and a
//! process to kill.

use std::io::{self, BufReader, Read, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::protocol::{Content, OPENED};
use crate::worker;

/// A worker; killed when dropped.
pub(crate) struct Child {
    process: process::Child,
    orders: ChildStdin,
    pipe: Pipe,
}

/// A child's stdout, which is read under a time limit.
pub(crate) struct Pipe {
    output: ChildStdout,
    /// When to give up.
    deadline: Instant,
}

impl Pipe {
    /// Gives up after `patience`.
    pub(crate) fn new(output: ChildStdout, patience: Duration) -> Self {
        Self { output, deadline: Instant::now() + patience }
    }

    /// Gives up after `patience` from now on.
    pub(crate) fn renew(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
    }
}

impl Child {
    /// Starts a worker that must do each thing that is waited for within
    /// `patience`.
    pub(crate) fn start(arguments: &worker::Arguments, patience: Duration) -> io::Result<Self> {
        Self::spawn(arguments, patience, Stdio::inherit())
    }

    /// The same, if it is to fail: it says nothing of it on stderr.
    pub(crate) fn start_silent(
        arguments: &worker::Arguments,
        patience: Duration,
    ) -> io::Result<Self> {
        Self::spawn(arguments, patience, Stdio::null())
    }

    fn spawn(arguments: &worker::Arguments, patience: Duration, stderr: Stdio) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg("--dir").arg(&arguments.dir);
        for (flag, value) in arguments.flags() {
            command.arg(flag).arg(value);
        }
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let taken = process.stdin.take().zip(process.stdout.take());
        let (orders, output) = taken.expect("both were asked to be pipes");
        Ok(Self { process, orders, pipe: Pipe::new(output, patience) })
    }

    /// Waits until the database is open, and reads what is in it.
    pub(crate) fn content(&mut self, clients: u8) -> io::Result<Content> {
        let mut input = BufReader::new(&mut self.pipe);
        let mut opened = [0];
        input.read_exact(&mut opened)?;
        assert_eq!(opened[0], OPENED, "a worker first says that it has opened the database");
        let content = Content::read(&mut input, clients)?;
        assert!(input.buffer().is_empty(), "a worker waits for its order");
        Ok(content)
    }

    pub(crate) fn order(&mut self, order: u8) -> io::Result<()> {
        self.orders.write_all(&[order])
    }

    /// Waits up to `wait` for records, and appends what has come, which may end
    /// within one. None when the worker has closed its end.
    pub(crate) fn read(&mut self, records: &mut Vec<u8>, wait: Duration) -> io::Result<Option<()>> {
        self.pipe.renew(wait);
        let mut bytes = [0; 4096];
        match self.pipe.read(&mut bytes) {
            Ok(0) => Ok(None),
            Ok(read) => {
                records.extend_from_slice(&bytes[..read]);
                Ok(Some(()))
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Some(())),
            Err(error) => Err(error),
        }
    }

    /// Whether there is something to read, or the worker has closed its end.
    pub(crate) fn has_spoken(&mut self) -> io::Result<bool> {
        let mut descriptor = [PollFd::new(&self.pipe.output, PollFlags::IN)];
        Ok(poll(&mut descriptor, Some(&Timespec::default()))? > 0)
    }

    /// SIGKILL; what the worker wrote into the pipe before it stays there.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// All that is left in the pipe of a worker that was killed.
    pub(crate) fn drain(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        self.pipe.output.read_to_end(records).map(drop)
    }

    /// Waits for the end of the process, which is near: it was killed, has
    /// closed its end of the pipe, or was told to end.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait()
    }

    /// Waits for the end of a worker that was told to close.
    pub(crate) fn wait_for_close(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.pipe.renew(patience);
        let mut byte = [0];
        match self.pipe.read(&mut byte)? {
            0 => self.wait(),
            _ => Err(io::Error::other("a worker that closes says nothing")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Neither fails for a process that was waited for; for any other there
        // is nothing to be done about it here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Read for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut descriptor = [PollFd::new(&self.output, PollFlags::IN)];
            match poll(&mut descriptor, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return self.output.read(bytes),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

//! Work that runs on an owner's thread.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Waker};

use super::owner::{KINDS, Kind, Owner, executor};
use crate::base::error::ErrorKind;
use crate::base::limits::UNIT;
use crate::io::{Harden, Io, IoBuf};
use crate::runtime::{
    Event, Job, Mailbox, block_on, is_owner_thread, oneshot, run_on_owner, serve, yield_now,
};

#[test]
fn it_runs_there_with_the_owners_io_and_need_not_be_send() {
    for kind in KINDS {
        let owner = Owner::start(kind, 2);
        let file = owner.create("file");
        let result = block_on(run_on_owner(&owner.mailbox, |io| async move {
            let here = Rc::new(is_owner_thread());
            let write = io.write(&file, 0, IoBuf::zeroed(UNIT).into(), Harden::Later).await;
            yield_now().await;
            (*here && is_owner_thread(), write.1.is_ok(), io.len(&file).await.unwrap())
        }));
        assert_eq!(result.unwrap(), (true, true, UNIT as u64), "{kind:?}");
        assert!(!is_owner_thread());
        assert_eq!(owner.mailbox.outstanding(), 0);
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_owner_lives_on() {
    struct PanicsInTheEnd;
    impl Drop for PanicsInTheEnd {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }
    for kind in KINDS {
        let owner = Owner::start(kind, 1);
        let at_once = block_on(run_on_owner(&owner.mailbox, |_| {
            assert!(!is_owner_thread(), "{}", "in the closure");
            async {}
        }));
        let later = block_on(run_on_owner(&owner.mailbox, |_| async {
            yield_now().await;
            panic!("in the future");
        }));
        let at_the_end = block_on(run_on_owner(&owner.mailbox, |_| {
            let panics = PanicsInTheEnd;
            std::future::poll_fn(move |_| {
                let _keep = &panics;
                std::task::Poll::Ready(())
            })
        }));
        let results: [(_, Result<(), _>); 3] =
            [("closure", at_once), ("future", later), ("drop", at_the_end)];
        for (place, result) in results {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(&format!("in the {place}")), "{error}");
        }
        assert_eq!(block_on(run_on_owner(&owner.mailbox, |_| async { 7 })).unwrap(), 7);
        assert_eq!(owner.mailbox.outstanding(), 0);
    }
}

#[test]
fn it_runs_to_its_end_without_its_caller() {
    let owner = Owner::start(Kind::Ring, 1);
    let (gate, ended) = (Arc::new(Event::default()), Arc::new(Event::default()));
    let (waits, ends) = (Arc::clone(&gate), Arc::clone(&ended));
    {
        let mut call = pin!(run_on_owner(&owner.mailbox, |_| async move {
            waits.wait().await;
            ends.set();
        }));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    gate.set();
    block_on(ended.wait());
    owner.is_done();
}

#[test]
fn a_call_that_was_not_sent_is_forgotten() {
    let owner = Owner::start(Kind::Parking, 1);
    let permit = owner.mailbox.try_reserve().unwrap().expect("a free slot");
    let (tell, told) = mpsc::channel::<()>();
    {
        let mut call = pin!(run_on_owner(&owner.mailbox, move |_| async move { drop(tell) }));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    // Nobody has the sender any more.
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    drop(permit);
    assert_eq!(owner.counts().messages, 0);
}

#[test]
fn what_an_owner_does_not_finish_is_closed() {
    struct Tells(Option<oneshot::Sender<bool>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                sender.send(is_owner_thread());
            }
        }
    }
    for kind in KINDS {
        let mut owner = Owner::start(kind, 2);
        let (sender, receiver) = oneshot::channel();
        let tells = Tells(Some(sender));
        let (started, has_started) = mpsc::channel();
        let mailbox = Arc::clone(&owner.mailbox);
        let mut call = pin!(run_on_owner(&mailbox, move |_| async move {
            let _tells = tells;
            started.send(()).unwrap();
            std::future::pending::<()>().await;
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        has_started.recv().unwrap();
        assert!(owner.end());
        // Dropped by its own thread.
        assert_eq!(block_on(receiver), Ok(true));
        assert_eq!(block_on(call).unwrap_err().kind(), ErrorKind::Closed);
        let refused = block_on(run_on_owner(&mailbox, |_| async {}));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[test]
fn an_owner_may_call_itself() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let (mut executor, io) = executor(kind, dir.path(), &Arc::default(), 0);
        let mailbox = Mailbox::new(1);
        let serve = serve(Arc::clone(&mailbox), io, executor.spawner());
        let counters = Arc::clone(executor.counters());
        let main = async move {
            let answer = run_on_owner(&mailbox, |_| async { 3 }).await;
            assert_eq!(answer.unwrap(), 3);
            let counts = counters.counts();
            assert_eq!((counts.messages, counts.unparks), (1, 0));
            mailbox.close();
        };
        executor.run(vec![Job::new("main", main), Job::new("serve", serve)]).unwrap();
    }
}

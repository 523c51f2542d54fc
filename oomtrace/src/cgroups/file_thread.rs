//! A thread that reads the files of cgroups for the loop.
//!
//! While somebody makes and removes cgroups, an open of a cgroup's file can wait in the kernel for milliseconds, for a lock that these
//! changes hold. A kill must not wait as long, so the loop opens none of these files. Each client has one errand at a time, so what
//! waits is bounded.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};

use crate::host::protection;

/// Clients: each has room for its errand.
const CLIENTS_MAX: usize = 4;
/// An errand reads small files. What it keeps is on the heap.
const STACK_BYTES: usize = 128 << 10;

/// Something to read. It carries the room for its result, which the loop made: memory that the loop must free should not be the
/// thread's, whose heap may be locked while the thread waits for a processor.
pub trait Errand: Send + 'static {
    /// Reads. Runs on the thread.
    fn run(&mut self);
}

/// The thread. It ends when the last client is gone.
#[derive(Clone, Debug)]
pub struct FileThread(SyncSender<Box<dyn Sent>>);

/// An errand with the way back to its client.
trait Sent: Send {
    fn run(self: Box<Self>);
}

struct Parcel<T> {
    errand: T,
    back: SyncSender<T>,
    wake: Arc<OwnedFd>,
}

impl<T: Errand> Sent for Parcel<T> {
    fn run(self: Box<Self>) {
        let Self { mut errand, back, wake } = *self;
        errand.run();
        // There is always room. If the client is gone, nobody wants it.
        let _sent = back.try_send(errand);
        // This fails only if the client is woken already.
        let _ignored = rustix::io::write(&*wake, &1u64.to_ne_bytes());
    }
}

impl FileThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start() -> io::Result<Self> {
        let (to, errands) = sync_channel::<Box<dyn Sent>>(CLIENTS_MAX);
        thread::Builder::new().name("oomtrace-cgroup".to_owned()).stack_size(STACK_BYTES).spawn(
            move || {
                protection::ordinary();
                for errand in errands {
                    errand.run();
                }
            },
        )?;
        Ok(Self(to))
    }

    /// A new client.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn client<T: Errand>(&self) -> io::Result<Client<T>> {
        let (back, results) = sync_channel(1);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Client { thread: self.clone(), back, results, wake, busy: false })
    }
}

/// Sends errands of one kind, one at a time.
#[derive(Debug)]
pub struct Client<T> {
    thread: FileThread,
    back: SyncSender<T>,
    results: Receiver<T>,
    wake: Arc<OwnedFd>,
    busy: bool,
}

impl<T: Errand> Client<T> {
    /// Whether an errand is under way.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Sends an errand. Returns false if one is under way.
    pub fn send(&mut self, errand: T) -> bool {
        if self.busy {
            return false;
        }
        let parcel = Parcel { errand, back: self.back.clone(), wake: Arc::clone(&self.wake) };
        self.busy = self.thread.0.try_send(Box::new(parcel)).is_ok();
        self.busy
    }

    /// The errand that is done, if one is.
    pub fn take_back(&mut self) -> Option<T> {
        self.wait(Duration::ZERO)
    }

    /// The errand that is done within this time.
    pub fn wait(&mut self, at_most: Duration) -> Option<T> {
        // First: what is done after this wakes the client again.
        let _may_be_empty = rustix::io::read(&*self.wake, &mut [0; 8]);
        let done = if self.busy { self.results.recv_timeout(at_most).ok() } else { None };
        self.busy &= done.is_none();
        done
    }
}

/// Becomes readable when an errand is done.
impl<T> AsFd for Client<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// Adds one, as soon as it may.
    struct AddOne(u64, Receiver<()>);

    impl Errand for AddOne {
        fn run(&mut self) {
            self.1.recv().unwrap();
            self.0 += 1;
        }
    }

    fn is_readable(client: &Client<AddOne>, wait: bool) -> bool {
        let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(client, PollFlags::IN)];
        poll(&mut polled, (!wait).then_some(&none)).unwrap() == 1
    }

    #[test]
    fn one_errand_of_a_client_at_a_time_comes_back_and_wakes_it() {
        let thread = FileThread::start().unwrap();
        let mut client = thread.client().unwrap();
        for number in [1, 5] {
            let ((go, may), (_, never)) = (sync_channel(1), sync_channel(1));
            assert!(client.send(AddOne(number, may)));
            assert!(client.is_busy() && !client.send(AddOne(7, never)));
            assert!(!is_readable(&client, false) && client.take_back().is_none() && client.is_busy());
            go.send(()).unwrap();
            assert!(is_readable(&client, true));
            assert_eq!(client.take_back().unwrap().0, number + 1);
            assert!(!is_readable(&client, false) && !client.is_busy());
        }
    }

    #[test]
    fn what_is_done_in_time_can_be_waited_for() {
        let thread = FileThread::start().unwrap();
        let mut client = thread.client().unwrap();
        let (go, may) = sync_channel(1);
        assert!(client.wait(Duration::MAX).is_none(), "nothing is under way");
        assert!(client.send(AddOne(1, may)));
        assert!(client.wait(Duration::from_millis(1)).is_none() && client.is_busy());
        go.send(()).unwrap();
        assert_eq!(client.wait(Duration::from_secs(60)).unwrap().0, 2);
    }

    #[test]
    fn an_errand_of_a_client_that_is_gone_does_not_stop_the_others() {
        let thread = FileThread::start().unwrap();
        let (mut gone, mut other) = (thread.client().unwrap(), thread.client().unwrap());
        let ((go, may), (go_too, may_too)) = (sync_channel(1), sync_channel(1));
        assert!(gone.send(AddOne(1, may)) && other.send(AddOne(2, may_too)));
        drop(gone);
        go.send(()).unwrap();
        go_too.send(()).unwrap();
        assert!(is_readable(&other, true));
        assert_eq!(other.take_back().unwrap().0, 3);
    }
}

//! HTTP/2: hyper's connection and the futures of its streams, polled by one green thread.
//!
//! hyper hands the future of each stream to an executor. Here the executor is a list that is polled after the
//! connection. The handlers have green threads of their own; the futures only pass answers on.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, Stream as _};
use hyper::rt::Executor;
use hyper::server::conn::http2;

use crate::drive::Protocol;
use crate::io::Io;
use crate::service::{Requests, Service};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Where hyper puts the futures of new streams.
#[derive(Clone, Default)]
pub(crate) struct Fresh(Rc<RefCell<Vec<Task>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Fresh {
    fn execute(&self, future: F) {
        self.0.borrow_mut().push(Box::pin(future));
    }
}

pub(crate) struct Second {
    connection: http2::Connection<Io, Service, Fresh>,
    fresh: Fresh,
    tasks: FuturesUnordered<Task>,
}

impl Second {
    pub(crate) fn new(io: Io, requests: &Rc<Requests>) -> Self {
        let limits = &requests.shared.limits;
        let fresh = Fresh::default();
        let head_size = u32::try_from(limits.head_size).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(fresh.clone())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(head_size)
            // The answers have a `Date` already (`date.rs`).
            .auto_date_header(false)
            .serve_connection(io, Service(Rc::clone(requests)));
        Self {
            connection,
            fresh,
            tasks: FuturesUnordered::new(),
        }
    }
}

impl Protocol for Second {
    const IS_FIRST: bool = false;

    // `date.rs` tells why.
    #[inline(never)]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let ended = Pin::new(&mut self.connection).poll(context);
        self.tasks.extend(self.fresh.0.borrow_mut().drain(..));
        // Each task that is ready is polled once. A task that has something for the connection wakes it.
        while let Poll::Ready(Some(())) = Pin::new(&mut self.tasks).poll_next(context) {}
        ended
    }

    fn close(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }
}

//! The client's connection: hyper writes final responses to it, and this proxy interim ones.
//!
//! # Invariants
//! - A client that does not take the bytes of its responses fast enough is an error, which ends the connection.
//! - An interim head is written only while hyper has nothing left to write: between two of its messages, never inside one.
//! - hyper's own writes pass unchanged, vectored ones too.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::activity::Activity;
use crate::backlog::Backlog;
use crate::interim::Interims;
use crate::meter;
use crate::pace::{Pace, Slowest};
use crate::report::{Kind, report};

pub struct Wire<T> {
    io: T,
    interims: Arc<Interims>,
    activity: Arc<Activity>,
    backlog: Arc<Backlog>,
    pace: Pace,
    /// The rest of the interim head that is being written.
    unwritten: Bytes,
}

impl<T: Write + Unpin> Wire<T> {
    pub fn new(
        io: T,
        interims: Arc<Interims>,
        activity: Arc<Activity>,
        backlog: Arc<Backlog>,
        slowest: Slowest,
    ) -> Self {
        Self { io, interims, activity, backlog, pace: Pace::new(slowest), unwritten: Bytes::new() }
    }

    /// Watches how fast the client takes bytes: the result of a write goes through here.
    fn paced(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.pace.moved(bytes as u64);
                self.activity.took();
                self.backlog.written(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending if self.pace.poll_late(cx).is_ready() => {
                meter::expired("slow_reader");
                report(Kind::SlowClient, || "it did not take its response".to_owned());
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            other => other,
        }
    }

    /// Completes the interim head that is being written, before anything else is.
    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let written = Pin::new(&mut self.io).poll_write(cx, &self.unwritten);
            let written = ready!(self.paced(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Read + Unpin> Read for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.received();
        }
        read
    }
}

impl<T: Write + Unpin> Write for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(cx))?;
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.paced(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(cx))?;
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.paced(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Writes the queued interim heads.
    ///
    /// hyper flushes each time it is polled, and only after it has written everything it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(cx))?;
        self.backlog.flushed();
        while let Some(head) = self.interims.next() {
            self.unwritten = head;
            ready!(self.poll_unwritten(cx))?;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

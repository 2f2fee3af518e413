//! Bytes between the socket and TLS. They are put in at the end and taken out at the front.
//!
//! A large buffer comes from a small shared pool and goes back when it is empty. So an idle connection costs only its
//! state, and a busy one needs no allocation.

use std::sync::{Mutex, PoisonError};

/// How many bytes a connection reads at once if it is not known to be busy: a page.
pub(super) const SMALL: usize = 4 * 1024;

/// The least number of bytes that is worth an allocation: a few short records. A connection keeps that much.
const LEAST: usize = 1024;

/// The size of a large buffer in bytes: four records of 16 KiB with what TLS adds to them, and some room.
pub(super) const LARGE: usize = 68 * 1024;

/// How many large buffers the pool keeps: about 2 MiB. It is a guess: more than there are workers, as a call that
/// waits for its socket holds one.
const POOLED: usize = 32;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The bytes `start..end` of `bytes` are filled; the others are room.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns the filled bytes.
    pub(super) fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Returns the room behind the filled bytes.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Adds the first `count` bytes of the room to the filled bytes.
    pub(super) fn commit(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "only what had room");
        self.end += count;
    }

    /// Takes the first `count` bytes out.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "only what was there");
        self.start += count;
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Takes everything out.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Makes room for `count` more bytes.
    pub(super) fn reserve(&mut self, count: usize) {
        if self.bytes.len() - self.end >= count {
            return;
        }
        let size = self.len() + count;
        if self.bytes.len() < size {
            let mut larger = take(size);
            larger[..self.len()].copy_from_slice(&self.bytes[self.start..self.end]);
            give(std::mem::replace(&mut self.bytes, larger));
        } else {
            self.bytes.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, self.len());
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.spare()[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
    }

    /// Moves bytes to the front of `target`. Returns how many.
    pub(super) fn take(&mut self, target: &mut [u8]) -> usize {
        let count = self.len().min(target.len());
        target[..count].copy_from_slice(&self.filled()[..count]);
        self.consume(count);
        count
    }

    /// Gives the memory back, unless there are filled bytes or the memory is small.
    pub(super) fn release(&mut self) {
        if self.is_empty() && self.bytes.len() > LEAST {
            give(std::mem::take(&mut self.bytes));
        }
    }

    /// Returns how many bytes it can hold.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.bytes));
    }
}

fn pool() -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(size: usize) -> Vec<u8> {
    if size > SMALL && size <= LARGE {
        return pool().pop().unwrap_or_else(|| vec![0; LARGE]);
    }
    vec![0; size.max(LEAST)]
}

fn give(bytes: Vec<u8>) {
    if bytes.len() == LARGE {
        let mut pool = pool();
        if pool.len() < POOLED {
            pool.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, LARGE, SMALL};

    #[test]
    fn bytes_come_out_in_the_order_they_went_in_while_the_buffer_grows_and_moves() {
        let mut buffer = Buffer::new();
        let mut next_in = 0_u8;
        let mut next_out = 0_u8;
        for round in 0..200_usize {
            let bytes: Vec<u8> = (0..(round * 37) % 1000)
                .map(|_| {
                    next_in = next_in.wrapping_add(1);
                    next_in
                })
                .collect();
            buffer.push(&bytes);
            let mut out = vec![0; (round * 31) % 900];
            let count = buffer.take(&mut out);
            for &byte in &out[..count] {
                next_out = next_out.wrapping_add(1);
                assert_eq!(byte, next_out);
            }
        }
        while !buffer.is_empty() {
            next_out = next_out.wrapping_add(1);
            assert_eq!(buffer.filled()[0], next_out);
            buffer.consume(1);
        }
        assert_eq!(next_in, next_out);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back_and_a_filled_one_keeps_it() {
        let mut buffer = Buffer::new();
        buffer.push(&[1; SMALL + 1]);
        assert_eq!(buffer.size(), LARGE);
        buffer.release();
        assert_eq!(buffer.size(), LARGE);
        buffer.consume(SMALL + 1);
        buffer.release();
        assert_eq!(buffer.size(), 0);
    }
}

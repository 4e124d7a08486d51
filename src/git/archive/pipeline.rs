//! Reads files ahead of the writer on all cores, hands them over in order, and holds a bounded amount.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::form::{Form, Piece, Scratch};
use super::walk::{Item, Walk};
use crate::git::archive::objects::Objects;
use crate::git::{Control, Error};

/// How much may be read and not yet written, in bytes. Each thread may go over it by one small file.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;

/// How many entries may be read and not yet written.
const AHEAD_ENTRIES: usize = 2048;

/// How many entries a thread takes at once.
const RUN: usize = 16;

/// The most threads that read.
const MAX_THREADS: usize = 8;

/// How often the writer looks whether it must stop while it waits.
const LOOK: Duration = Duration::from_millis(100);

/// What the threads share.
struct Shared {
    state: Mutex<State>,
    /// Something is ready for the writer.
    filled: Condvar,
    /// Something was written, so that readers may go on.
    drained: Condvar,
}

struct State {
    walk: Walk,
    /// The number of the next entry that is written.
    first: usize,
    /// Entries from `first` on: those that are taken, and their pieces once they are read.
    pieces: VecDeque<Option<Result<Piece, Error>>>,
    held_bytes: usize,
    /// Readers that wait for room.
    waiting: usize,
    /// No further entry is taken: the walk has ended, or has failed, or the writer is gone.
    has_ended: bool,
    is_stopped: bool,
}

/// Gives every entry of the walk to `take`, in order.
pub(super) fn run(
    walk: Walk,
    objects: &Objects,
    form: &Form,
    control: &Control,
    mut take: impl FnMut(Piece) -> Result<(), Error>,
) -> Result<(), Error> {
    let state = State {
        walk,
        first: 0,
        pieces: VecDeque::new(),
        held_bytes: 0,
        waiting: 0,
        has_ended: false,
        is_stopped: false,
    };
    let shared = Shared { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    std::thread::scope(|scope| {
        let _stop = Stop { shared: &shared, only_in_panic: false };
        for _ in 0..threads {
            let (shared, objects) = (&shared, objects.clone());
            let started = std::thread::Builder::new()
                .name("archive".to_owned())
                .spawn_scoped(scope, move || read(shared, &objects, form, control));
            started.map_err(|error| Error::Internal {
                what: "starting a thread",
                class: 0,
                code: error.raw_os_error().unwrap_or(0),
            })?;
        }
        while let Some(piece) = shared.next(control)? {
            control.check()?;
            take(piece)?;
        }
        Ok(())
    })
}

/// Sets everybody free when the writer ends, however it ends, or when a reader panics.
struct Stop<'a> {
    shared: &'a Shared,
    only_in_panic: bool,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if !self.only_in_panic || std::thread::panicking() {
            self.shared.lock().is_stopped = true;
            self.shared.filled.notify_all();
            self.shared.drained.notify_all();
        }
    }
}

/// What one thread does until there is nothing left.
fn read(shared: &Shared, objects: &Objects, form: &Form, control: &Control) {
    let _stop = Stop { shared, only_in_panic: true };
    let mut scratch = Scratch::default();
    while let Some((number, items)) = shared.claim() {
        for (offset, item) in items.into_iter().enumerate() {
            let number = number + offset;
            if !shared.wait_for_room(number) {
                return;
            }
            let piece = control.check().and_then(|()| form.piece(objects, item, control, &mut scratch));
            shared.put(number, piece);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next entries of the walk, with the number of the first.
    fn claim(&self) -> Option<(usize, Vec<Item>)> {
        let mut state = self.lock();
        while state.pieces.len() >= AHEAD_ENTRIES && !state.is_stopped {
            state = self.wait_for_writer(state);
        }
        if state.is_stopped || state.has_ended {
            return None;
        }
        let number = state.first + state.pieces.len();
        let mut items = Vec::with_capacity(RUN);
        while items.len() < RUN {
            match state.walk.next() {
                Ok(Some(item)) => {
                    items.push(item);
                    state.pieces.push_back(None);
                }
                Ok(None) => {
                    state.has_ended = true;
                    break;
                }
                Err(error) => {
                    state.has_ended = true;
                    state.pieces.push_back(Some(Err(error)));
                    break;
                }
            }
        }
        drop(state);
        self.filled.notify_all();
        Some((number, items))
    }

    /// Waits until an entry may be read: there is room, or the writer waits for this very one. `false` is the end.
    fn wait_for_room(&self, number: usize) -> bool {
        let mut state = self.lock();
        while !state.is_stopped && state.held_bytes > AHEAD_BYTES && state.first != number {
            state = self.wait_for_writer(state);
        }
        !state.is_stopped
    }

    fn wait_for_writer<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn put(&self, number: usize, piece: Result<Piece, Error>) {
        let mut state = self.lock();
        state.held_bytes += piece.as_ref().map_or(0, Piece::held_bytes);
        let is_awaited = number == state.first;
        let position = number - state.first;
        if let Some(slot) = state.pieces.get_mut(position) {
            *slot = Some(piece);
        }
        drop(state);
        if is_awaited {
            self.filled.notify_all();
        }
    }

    /// Waits for the next piece; `None` is the end.
    fn next(&self, control: &Control) -> Result<Option<Piece>, Error> {
        let mut state = self.lock();
        loop {
            match state.pieces.pop_front() {
                Some(Some(piece)) => {
                    state.first += 1;
                    state.held_bytes -= piece.as_ref().map_or(0, Piece::held_bytes);
                    // Not for every entry: to wake readers up costs more than a small file does.
                    let is_half_empty =
                        state.held_bytes <= AHEAD_BYTES / 2 && state.pieces.len() <= AHEAD_ENTRIES / 2;
                    let wakes = is_half_empty && state.waiting > 0;
                    drop(state);
                    if wakes {
                        self.drained.notify_all();
                    }
                    return piece.map(Some);
                }
                Some(None) => {
                    state.pieces.push_front(None);
                    // Whoever reads this one may wait for room, of which it needs none.
                    if state.waiting > 0 {
                        self.drained.notify_all();
                    }
                }
                None if state.has_ended => return Ok(None),
                None => {}
            }
            if state.is_stopped {
                return Err(Error::Internal { what: "a panic", class: 0, code: 0 });
            }
            control.check()?;
            state = self.filled.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

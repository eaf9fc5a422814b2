//! Runs a reader with bounded time and memory, both measured for its own thread, so that other tests beside it change nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Memory that a reader may need at most, in bytes: a constant for its buffers, and a multiple of the input. A report holds a line of a log as
/// structs and strings, its JSON and the same once more, and a page of it, all at the same time.
pub const fn memory(input: usize) -> usize {
    (48 << 20) + 100 * input
}

/// CPU time that a reader may need at most, in a debug build and on a slow machine: a hang takes longer than anything.
pub const fn time(input: usize) -> Duration {
    Duration::from_millis(5000 + (input / 200) as u64)
}

/// Counts the bytes that a thread has allocated.
pub struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn grown(by: usize) -> bool {
    NOW.with(|now| {
        let bytes = now.get().saturating_add(by);
        if bytes > LIMIT.with(Cell::get) {
            return false;
        }
        now.set(bytes);
        PEAK.with(|peak| peak.set(peak.get().max(bytes)));
        true
    })
}

fn shrunk(by: usize) {
    // What another thread allocated may be freed here.
    NOW.with(|now| now.set(now.get().saturating_sub(by)));
}

// SAFETY: everything is the system's allocator; the counters are plain cells that need no memory of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !grown(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !grown(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() && !grown(size - layout.size()) {
            return std::ptr::null_mut();
        }
        if size < layout.size() {
            shrunk(layout.size() - size);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a reader needed.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    pub bytes: usize,
    pub time: Duration,
}

/// Runs a reader on an input. One that takes four times the memory that it may is ended by the allocator, with the whole process: there is no
/// other way to stop it.
///
/// # Panics
/// When it needs more memory or time than it may.
#[track_caller]
pub fn within<T>(input: &[u8], reader: impl FnOnce(&[u8]) -> T) -> T {
    let (result, needed) = measured(input, reader);
    let (bytes, time) = (memory(input.len()), time(input.len()));
    assert!(
        needed.bytes <= bytes && needed.time <= time,
        "{} bytes of input needed {needed:?}, and {bytes} bytes and {time:?} are allowed",
        input.len()
    );
    result
}

/// Runs a reader and measures it.
pub fn measured<T>(input: &[u8], reader: impl FnOnce(&[u8]) -> T) -> (T, Needed) {
    let before = NOW.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    LIMIT.with(|limit| limit.set(before + 4 * memory(input.len())));
    let started = cpu();
    let result = reader(input);
    let time = cpu() - started;
    LIMIT.with(|limit| limit.set(usize::MAX));
    let bytes = PEAK.with(Cell::get) - before;
    (result, Needed { bytes, time })
}

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("the clock of this thread")
        .into()
}

//! The one place that knows threads: a persistent pool that runs the tasks of one region at a time.
//!
//! A region is `parallel(tasks, body)`. Each thread begins with its own share of the task numbers, the same in
//! every region of as many tasks, so that what it wrote is still in its caches; then it helps the others. Who runs
//! a task is not fixed, so a body must not let results depend on it. Nothing is allocated per region. A caller
//! that finds the pool in use (nested or by another thread) runs its tasks itself.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread waits actively: longer than the gaps between the regions of a training step,
/// shorter than a time slice that another process could use.
const SPIN: Duration = Duration::from_micros(100);

/// 0 until it is asked for or set.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sets the number of threads of later regions, the caller included. 0 restores the default.
pub fn set_num_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

thread_local! {
    /// Of the regions that this thread begins; 0 for what all threads go by.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// Sets the number of threads of later regions that the calling thread begins, whatever that of the others; 0
/// goes by that of the others again. Returns what was set before.
pub fn set_own_threads(n: usize) -> usize {
    OWN.replace(n)
}

/// The number of threads that a region of the calling thread uses, the caller included. By default the least of
/// `FERROGRAD_NUM_THREADS`, `OMP_NUM_THREADS` (each where it is a positive number) and the CPUs that the
/// affinity mask and the cgroup quota allow.
#[inline]
pub fn num_threads() -> usize {
    match OWN.get() {
        0 => shared_threads(),
        n => n,
    }
}

fn shared_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let n = default_threads(cores(), |name| std::env::var(name).ok());
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

fn default_threads(cores: usize, variable: impl Fn(&str) -> Option<String>) -> usize {
    ["FERROGRAD_NUM_THREADS", "OMP_NUM_THREADS"]
        .into_iter()
        .filter_map(variable)
        // OMP_NUM_THREADS may list a number for each level of nesting; the first is ours.
        .filter_map(|value| value.split(',').next()?.trim().parse::<usize>().ok())
        .filter(|&n| n > 0)
        .fold(cores, usize::min)
}

/// Runs `body(0)` to `body(tasks - 1)`, each once, on the pool and the calling thread; returns when
/// all are done. A panic in a body reaches the caller after every thread has stopped; tasks that were
/// not begun by then are dropped.
pub fn parallel(tasks: usize, body: &(dyn Fn(usize) + Sync)) {
    let threads = num_threads();
    if tasks > 1
        && threads > 1
        && let Some(mut region) = Region::enter()
    {
        region.pool(threads).run(tasks, body);
    } else {
        (0..tasks).for_each(body);
    }
}

/// Stops and joins the workers; the next region starts new ones. To be called before `fork`. Does
/// nothing while a region runs: a forked child notices by its process id that the pool is not its own.
pub fn shutdown() {
    if let Some(region) = Region::enter() {
        region.take();
    }
}

/// The pool and the process id of the thread that is using it (0: free). An id and not a flag, so
/// that a child that was forked during a region does not wait for a thread that it does not have.
struct Slot {
    user: AtomicU32,
    pool: UnsafeCell<Option<Pool>>,
}

// SAFETY: `pool` is touched only by the thread that changed `user` from free to its own.
unsafe impl Sync for Slot {}

static SLOT: Slot = Slot { user: AtomicU32::new(0), pool: UnsafeCell::new(None) };

/// Exclusive use of the pool, until dropped.
struct Region {
    process: u32,
}

impl Region {
    fn enter() -> Option<Region> {
        let process = std::process::id();
        let user = SLOT.user.load(Ordering::Relaxed);
        let is_free = user != process;
        let enters = is_free
            && SLOT.user.compare_exchange(user, process, Ordering::Acquire, Ordering::Relaxed).is_ok();
        // Made only on success: dropping a `Region` frees the pool.
        enters.then(|| Region { process })
    }

    /// The pool of this process with this many threads, made if there is none.
    fn pool(&mut self, threads: usize) -> &mut Pool {
        // SAFETY: a `Region` has exclusive use.
        let slot = unsafe { &mut *SLOT.pool.get() };
        if slot.as_ref().is_some_and(|pool| pool.process != self.process || pool.threads != threads) {
            self.take();
        }
        slot.get_or_insert_with(|| Pool::new(self.process, threads))
    }

    /// Ends the pool, or forgets it where its threads stayed behind in the parent process.
    fn take(&self) {
        // SAFETY: a `Region` has exclusive use.
        let pool = unsafe { (*SLOT.pool.get()).take() };
        match pool {
            Some(pool) if pool.process != self.process => std::mem::forget(pool),
            other => drop(other),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        SLOT.user.store(0, Ordering::Release);
    }
}

struct Pool {
    process: u32,
    /// What was asked for; fewer workers may have started.
    threads: usize,
    spin: Duration,
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Arc<AtomicBool>)>,
}

/// What the caller and the workers of a pool share. The cursors, the gate and the rest are on cache
/// lines of their own.
struct Shared {
    /// The next task of each thread's share.
    cursors: Box<[Aligned<AtomicUsize>]>,
    /// Epoch in the upper half, `OPEN`, and the number of workers inside.
    gate: Aligned<AtomicU64>,
    region: UnsafeCell<Work>,
    caller_waits: AtomicBool,
    is_over: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[repr(align(128))]
struct Aligned<T>(T);

struct Work {
    tasks: usize,
    body: *const (dyn Fn(usize) + Sync),
    caller: Option<Thread>,
}

// SAFETY: `region` is written while the gate is closed and empty and read by threads inside the gate;
// the body is `Sync` and outlives the region.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

const OPEN: u64 = 1 << 31;
const EPOCH: u64 = 1 << 32;

impl Pool {
    fn new(process: u32, threads: usize) -> Pool {
        let idle: &'static (dyn Fn(usize) + Sync) = &|_| {};
        let shared = Arc::new(Shared {
            cursors: (0..threads).map(|_| Aligned(AtomicUsize::new(0))).collect(),
            gate: Aligned(AtomicU64::new(0)),
            region: UnsafeCell::new(Work { tasks: 0, body: idle, caller: None }),
            caller_waits: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        // More threads than CPUs: a spinning thread would keep one with work from running.
        let spin = if threads > cores() { Duration::ZERO } else { SPIN };
        let workers = (1..threads)
            .map_while(|i| {
                let (shared, sleeps) = (shared.clone(), Arc::new(AtomicBool::new(false)));
                let its_sleeps = sleeps.clone();
                thread::Builder::new()
                    .name(format!("ferrograd-{i}"))
                    .spawn(move || work(&shared, i, &its_sleeps, spin))
                    .ok()
                    .map(|handle| (handle, sleeps))
            })
            .collect();
        Pool { process, threads, spin, shared, workers }
    }

    fn run(&mut self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        let region = shared.region.get();
        // SAFETY: the gate is closed and empty, so no worker reads the region. The lifetime of `body`
        // is erased; this function does not return before the last worker has left.
        unsafe {
            (*region).tasks = tasks;
            (*region).body =
                std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(body);
            (*region).caller = Some(thread::current());
        }
        for (thread, cursor) in shared.cursors.iter().enumerate() {
            cursor.0.store(shared.share(thread, tasks).start, Ordering::Relaxed);
        }
        let epoch = shared.gate.0.load(Ordering::Relaxed) & !(EPOCH - 1);
        shared.gate.0.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        // Pairs with the fence before a worker's last look: it sees the gate or we see it sleep.
        fence(Ordering::SeqCst);
        for (handle, sleeps) in self.workers.iter().take(tasks - 1) {
            if sleeps.load(Ordering::Relaxed) && sleeps.swap(false, Ordering::Relaxed) {
                handle.thread().unpark();
            }
        }
        shared.claim(0, tasks, body);
        // Workers that have not come by now stay out, so a parked one delays nobody.
        let inside = shared.gate.0.fetch_and(!OPEN, Ordering::AcqRel) & (OPEN - 1);
        if inside > 0 {
            self.wait_until_empty();
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    fn wait_until_empty(&self) {
        let shared = &*self.shared;
        let is_empty = || shared.gate.0.load(Ordering::Acquire) & (OPEN - 1) == 0;
        if spin_until(self.spin, is_empty) {
            return;
        }
        shared.caller_waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while !is_empty() {
            thread::park();
        }
        shared.caller_waits.store(false, Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for (handle, _) in &self.workers {
            handle.thread().unpark();
        }
        for (handle, _) in self.workers.drain(..) {
            // A worker does not unwind: panics of bodies are caught in `claim`.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// The tasks that a thread begins with.
    fn share(&self, thread: usize, tasks: usize) -> Range<usize> {
        let threads = self.cursors.len();
        tasks * thread / threads..tasks * (thread + 1) / threads
    }

    /// Runs tasks until none is left, and keeps the first panic for the caller.
    fn claim(&self, thread: usize, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let threads = self.cursors.len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            for other in (thread..threads).chain(0..thread) {
                let (cursor, end) = (&self.cursors[other].0, self.share(other, tasks).end);
                // Looked at first: a counter that is only read stays in every cache.
                while cursor.load(Ordering::Relaxed) < end {
                    let task = cursor.fetch_add(1, Ordering::Relaxed);
                    if task >= end {
                        break;
                    }
                    body(task);
                }
            }
        }));
        if let Err(payload) = result {
            self.cursors.iter().for_each(|cursor| cursor.0.store(tasks, Ordering::Relaxed));
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }

    /// Whether a region is open that is not the one of `epoch`.
    fn is_open_after(&self, epoch: u64) -> bool {
        let gate = self.gate.0.load(Ordering::Acquire);
        gate & OPEN != 0 && gate / EPOCH != epoch
    }

    /// Goes inside if the gate is open; returns the epoch.
    fn enter(&self) -> Option<u64> {
        let add = |gate: u64| (gate & OPEN != 0).then_some(gate + 1);
        self.gate.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, add).ok().map(|gate| gate / EPOCH)
    }

    fn leave(&self, caller: Option<Thread>) {
        let before = self.gate.0.fetch_sub(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if before & (OPEN - 1) == 1
            && self.caller_waits.load(Ordering::Relaxed)
            && let Some(caller) = caller
        {
            caller.unpark();
        }
    }
}

/// A worker's life.
fn work(shared: &Shared, thread: usize, sleeps: &AtomicBool, spin: Duration) {
    let mut epoch = 0;
    loop {
        let is_called = || shared.is_open_after(epoch) || shared.is_over.load(Ordering::Relaxed);
        if !spin_until(spin, is_called) {
            sleeps.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            while !is_called() {
                thread::park();
                sleeps.store(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
            }
            sleeps.store(false, Ordering::Relaxed);
        }
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        if let Some(entered) = shared.enter() {
            epoch = entered;
            // SAFETY: inside the gate the region is not written and its body is alive. The caller's
            // handle is cloned now because it may be replaced once we have left.
            let (tasks, body, caller) = unsafe {
                let region = &*shared.region.get();
                (region.tasks, &*region.body, region.caller.clone())
            };
            shared.claim(thread, tasks, body);
            shared.leave(caller);
        }
    }
}

/// Waits actively for `is_done`, at most for `limit`; returns whether it came.
fn spin_until(limit: Duration, is_done: impl Fn() -> bool) -> bool {
    if is_done() {
        return true;
    }
    if limit.is_zero() {
        return false;
    }
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            if is_done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > limit {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_the_least_of_the_valid_limits() {
        let threads = |ours: &str, omp: &str| {
            default_threads(8, |name| Some(if name == "OMP_NUM_THREADS" { omp } else { ours }.to_owned()))
        };
        assert_eq!(default_threads(8, |_| None), 8);
        assert_eq!(threads("3", "5"), 3);
        assert_eq!(threads("64", "4,2"), 4);
        assert_eq!(threads("64", ""), 8);
        for invalid in ["", "0", "-1", "two", "1e3", "99999999999999999999999"] {
            assert_eq!(threads(invalid, "6"), 6, "{invalid:?}");
        }
    }
}

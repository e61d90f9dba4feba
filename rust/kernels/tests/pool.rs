//! The thread pool: every task once, whoever calls, whatever fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use ferrograd_kernels::pool::{num_threads, parallel, set_num_threads, set_own_threads, shutdown};

/// The thread count belongs to the process: one test at a time.
static SETTINGS: Mutex<()> = Mutex::new(());

fn with_threads(counts: &[usize], check: impl Fn()) {
    let _settings = SETTINGS.lock().unwrap_or_else(|e| e.into_inner());
    for &threads in counts {
        set_num_threads(threads);
        check();
    }
    set_num_threads(0);
}

fn assert_each_task_runs_once(tasks: usize) {
    let runs: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    parallel(tasks, &|task| {
        runs[task].fetch_add(1, Ordering::Relaxed);
    });
    assert!(runs.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{runs:?}");
}

#[test]
fn every_task_runs_exactly_once() {
    with_threads(&[1, 2, 3, 7], || {
        for round in 0..300 {
            assert_each_task_runs_once(round % 20);
        }
        // Long enough that the workers have parked.
        std::thread::sleep(Duration::from_millis(2));
        assert_each_task_runs_once(1000);
    });
}

#[test]
fn tasks_run_on_several_threads() {
    with_threads(&[2, 3], || {
        // Only two threads at once can pass the barrier.
        let barrier = Barrier::new(2);
        parallel(2, &|_| {
            barrier.wait();
        });
    });
}

#[test]
fn nested_regions_run_inline() {
    with_threads(&[1, 2, 7], || {
        let runs = AtomicUsize::new(0);
        parallel(5, &|_| {
            parallel(4, &|_| {
                runs.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(runs.into_inner(), 20);
    });
}

#[test]
fn concurrent_callers_all_finish() {
    with_threads(&[2, 3], || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|round| assert_each_task_runs_once(round % 9)));
            }
        });
    });
}

#[test]
fn panic_reaches_the_caller_and_the_pool_works_afterwards() {
    with_threads(&[1, 2, 3], || {
        for round in 0..50 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                parallel(16, &|task| assert!(task != round % 16, "task {task} failed"));
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("task {} failed", round % 16));
            assert_each_task_runs_once(16);
        }
    });
}

#[test]
fn pool_is_rebuilt_after_shutdown() {
    with_threads(&[2, 3], || {
        for _ in 0..20 {
            assert_each_task_runs_once(8);
            shutdown();
            shutdown();
        }
        parallel(2, &|_| shutdown());
        assert_each_task_runs_once(8);
    });
}

#[test]
fn a_thread_may_have_a_number_of_its_own() {
    with_threads(&[3], || {
        assert_eq!(set_own_threads(1), 0);
        let caller = std::thread::current().id();
        // Long enough that others would come.
        parallel(8, &|_| {
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(std::thread::current().id(), caller);
        });
        let of_others = std::thread::spawn(num_threads).join().unwrap();
        assert_eq!((num_threads(), of_others), (1, 3));
        assert_eq!(set_own_threads(0), 1);
        assert_eq!(num_threads(), 3);
    });
}

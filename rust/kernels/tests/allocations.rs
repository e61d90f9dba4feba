//! Regions of the pool and matrix products allocate nothing once they are warm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrograd_kernels::gemm::{Bias, MatRef, gemm};
use ferrograd_kernels::pool::{parallel, set_num_threads};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on from the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on from the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test: another one in this process would be counted too.
#[test]
fn steady_loop_does_not_allocate() {
    set_num_threads(2);
    let (m, n, k) = (96, 130, 300);
    let (a, b, bias) = (vec![1.0f32; m * k], vec![1.0; n * k], vec![1.0; n]);
    let mut c = vec![0.0; m * n];
    let mut step = || {
        parallel(8, &|task| {
            black_box(task);
        });
        let b = MatRef::rows(&b, k).transposed();
        gemm(m, n, k, MatRef::rows(&a, k), b, &mut c, n, false, &Bias(&bias));
        gemm(3, n, 5, MatRef::rows(&a, 5), MatRef::rows(&bias, 0), &mut c, n, true, &Bias(&bias));
    };
    // Both threads must have met the largest unit once, which one of them may miss in a few rounds.
    let mut quiet = 0;
    for _ in 0..100 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..50).for_each(|_| step());
        quiet = if ALLOCATIONS.load(Ordering::Relaxed) == before { quiet + 1 } else { 0 };
        if quiet == 10 {
            return;
        }
    }
    panic!("500 steps never ran without an allocation");
}

//! Small eager ops: what they allocate, and that a linear layer in one pass has the bits of its three ops.
//!
//! One test counts allocations: the counter is per thread, so the others do not disturb it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ferrograd_core::backward::grad;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::op::{Generator, Op};
use ferrograd_core::plan::Tracing;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::{Tensor, with_grad_mode};

struct Counting;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn normal(seed: u64, shape: &[usize], requires_grad: bool) -> Tensor {
    let values = Generator::new(seed).normal(DType::F32, Dims::from_slice(shape), 0.0, 1.0).unwrap();
    Tensor::leaf(values, requires_grad)
}

fn allocations(op: impl Fn() -> Tensor) -> usize {
    // The first result leaves its block behind for the second.
    drop(op());
    let before = ALLOCATIONS.get();
    drop(op());
    ALLOCATIONS.get() - before
}

#[test]
fn a_small_op_allocates_its_handles_only() {
    // Block, storage, view and node; the elements' memory comes back from the op before.
    const HANDLES: usize = 4;
    let (x, y) = (normal(1, &[8, 8], true), normal(2, &[8, 8], false));
    let bias = normal(3, &[8], true);
    for recorded in [false, true] {
        with_grad_mode(recorded, || {
            assert_eq!(allocations(|| x.add(&y).unwrap()), HANDLES);
            assert_eq!(allocations(|| x.mul_scalar(2.0).unwrap()), HANDLES);
            assert_eq!(allocations(|| x.unary(ferrograd_core::op::Unary::Relu).unwrap()), HANDLES);
            assert_eq!(allocations(|| x.matmul(&y).unwrap()), HANDLES);
            assert_eq!(allocations(|| x.sum(&[], false).unwrap()), HANDLES);
            // One more: the view of the weight as a transposed matrix.
            assert_eq!(allocations(|| y.linear(&x, Some(&bias)).unwrap()), HANDLES + 1);
            // A view shares block and storage.
            assert_eq!(allocations(|| x.t().unwrap()), 2);
            assert_eq!(allocations(|| x.reshape(&Dims::from_slice(&[4, 16])).unwrap()), 2);
        });
    }
}

#[test]
fn a_linear_layer_in_one_pass_has_the_bits_of_product_and_sum() {
    for (rows, inputs, outputs) in [(1, 64, 64), (64, 64, 10), (7, 13, 17), (3, 0, 4), (0, 3, 4)] {
        let x = normal(1, &[rows, inputs], true);
        let (weight, bias) = (normal(2, &[outputs, inputs], true), normal(3, &[outputs], true));
        let upstream = normal(4, &[rows, outputs], false);
        let one = x.linear(&weight, Some(&bias)).unwrap();
        assert_eq!(one.node().op().map(Op::name), Some("linear"));
        let three = x.matmul(&weight.t().unwrap()).unwrap().add(&bias).unwrap();
        assert_eq!(one.to_vec::<f32>(), three.to_vec::<f32>());
        let gradients = |y: &Tensor| -> Vec<Vec<f32>> {
            let inputs = [x.clone(), weight.clone(), bias.clone()];
            let found =
                grad(std::slice::from_ref(y), &inputs, &[Some(upstream.clone())], false, false).unwrap();
            found.iter().map(|g| g.as_ref().unwrap().to_vec::<f32>()).collect()
        };
        assert_eq!(gradients(&one), gradients(&three), "{rows} rows, {inputs} to {outputs}");
        let bare = x.linear(&weight, None).unwrap();
        assert_eq!(bare.to_vec::<f32>(), x.matmul(&weight.t().unwrap()).unwrap().to_vec::<f32>());
    }
}

#[test]
fn a_trace_keeps_product_and_sum_apart() {
    let (x, weight, bias) = (normal(1, &[2, 3], false), normal(2, &[4, 3], true), normal(3, &[4], true));
    let _tracing = Tracing::start();
    let y = x.linear(&weight, Some(&bias)).unwrap();
    assert_eq!(y.node().op().map(Op::name), Some("add"));
    assert_eq!(y.node().parents()[0].op().map(Op::name), Some("matmul"));
}

#[test]
fn a_gradient_never_shares_memory_with_what_the_user_holds() {
    let (x, y) = (normal(1, &[3, 3], true), normal(2, &[3, 3], true));
    let seed = normal(3, &[3, 3], false);
    x.add(&y).unwrap().backward(Some(&seed), false, false).unwrap();
    let (dx, dy) = (x.grad().unwrap(), y.grad().unwrap());
    assert!(!dx.array().shares_storage(dy.array()) && !dx.array().shares_storage(seed.array()));
    assert!(!dy.array().shares_storage(seed.array()));
    // A result that retains its gradient passes it on, too.
    let z = x.add_scalar(1.0).unwrap();
    z.retain_grad();
    z.sum(&[], false).unwrap().backward(None, false, false).unwrap();
    assert!(!z.grad().unwrap().array().shares_storage(x.grad().unwrap().array()));
    assert!(z.grad().unwrap().array().is_contiguous());
}

#[test]
fn saved_values_that_change_in_place_are_still_found_out() {
    let (x, weight) = (normal(1, &[2, 3], true), normal(2, &[4, 3], true));
    let y = x.linear(&weight, None).unwrap().sum(&[], false).unwrap();
    let zeros = Tensor::constant(Array::zeros(DType::F32, Dims::from_slice(&[4, 3])).unwrap());
    with_grad_mode(false, || weight.copy_(&zeros)).unwrap();
    assert!(y.backward(None, false, false).unwrap_err().to_string().contains("linear"));
}

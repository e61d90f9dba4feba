//! Memory: aligned storages with a read/write flag, and strided arrays over them. The only `unsafe`
//! of this crate besides the blocks they lie in.
//!
//! Who reads or writes a storage holds a guard for the length of one kernel. Guards never wait for
//! Python, so waiting for one cannot deadlock with the interpreter lock.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

pub use crate::block::ALIGNMENT;
use crate::block::Block;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::shape::Dims;

/// A run of bytes inside a block, with its own flag and version.
pub struct Storage {
    block: Arc<Block>,
    offset: usize,
    bytes: usize,
    /// Number of readers, or -1 while written.
    flag: AtomicI32,
    /// Counts in-place writes, so that backward notices when a saved value has changed.
    version: AtomicU32,
    /// Counts write guards, so that a packed copy notices when its original has changed.
    writes: AtomicU32,
}

impl Storage {
    /// The number of in-place writes so far.
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of write guards so far.
    pub fn writes(&self) -> u32 {
        self.writes.load(Ordering::Acquire)
    }

    /// Counts an in-place write that the user made.
    pub fn bump_version(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    fn start_read(&self) {
        let mut spins = 0;
        loop {
            let readers = self.flag.load(Ordering::Relaxed);
            if readers >= 0
                && self
                    .flag
                    .compare_exchange_weak(readers, readers + 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            pause(&mut spins);
        }
    }

    fn start_write(&self) {
        let mut spins = 0;
        while self.flag.compare_exchange_weak(0, -1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            pause(&mut spins);
        }
        // Only the thread that holds the flag counts.
        self.writes.store(self.writes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

fn pause(spins: &mut u32) {
    *spins += 1;
    if *spins < 64 { std::hint::spin_loop() } else { std::thread::yield_now() }
}

/// A block that a plan cuts into storages whose lifetimes do not overlap.
#[derive(Clone)]
pub struct Arena {
    block: Arc<Block>,
}

impl Arena {
    /// `bytes` of zeroed memory.
    ///
    /// # Errors
    /// `Memory` when the allocator refuses.
    pub fn new(bytes: usize) -> Result<Arena> {
        let shape = Dims::from_slice(&[bytes]);
        Ok(Arena { block: Arc::new(Block::zeroed(bytes).ok_or(Error::Memory { bytes, shape })?) })
    }

    /// A contiguous array at a byte offset, with a storage of its own. Arrays of an arena may share bytes:
    /// the plan sees to it that nothing uses one while another is written.
    pub fn array(&self, offset: usize, dtype: DType, shape: Dims) -> Array {
        let bytes = shape.elements() * dtype.size();
        assert!(offset.is_multiple_of(dtype.size()) && offset + bytes <= self.block.size());
        Array::over(Storage::new(self.block.clone(), offset, bytes), dtype, shape)
    }
}

impl Storage {
    fn new(block: Arc<Block>, offset: usize, bytes: usize) -> Storage {
        let (flag, version, writes) = (AtomicI32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        Storage { block, offset, bytes, flag, version, writes }
    }
}

/// A strided view of a storage. Cloning shares it.
#[derive(Clone)]
pub struct Array(Arc<View>);

/// A handle that does not keep the values alive.
pub type WeakArray = std::sync::Weak<View>;

/// What an [`Array`] points to.
pub struct View {
    storage: Arc<Storage>,
    dtype: DType,
    shape: Dims,
    strides: Dims,
    /// In elements.
    offset: usize,
    /// One past the last element, counted from the first: kernels ask for it at every run.
    extent: usize,
}

impl Array {
    fn over(storage: Storage, dtype: DType, shape: Dims) -> Array {
        Array(Arc::new(View {
            storage: Arc::new(storage),
            dtype,
            shape,
            strides: shape.contiguous_strides(),
            offset: 0,
            extent: shape.elements(),
        }))
    }

    /// A new array of zeros, contiguous.
    ///
    /// # Errors
    /// `Memory` when the allocator refuses.
    pub fn zeros(dtype: DType, shape: Dims) -> Result<Array> {
        Array::in_block(dtype, shape, Block::zeroed)
    }

    /// A new array, contiguous, for who writes every element before it is read: it holds zeros or what
    /// a freed array has left. In debug builds it holds NaN, so that an element left out shows.
    ///
    /// # Errors
    /// `Memory` when the allocator refuses.
    pub fn stale(dtype: DType, shape: Dims) -> Result<Array> {
        Array::in_block(dtype, shape, Block::stale)
    }

    fn in_block(dtype: DType, shape: Dims, make: fn(usize) -> Option<Block>) -> Result<Array> {
        let bytes = shape.elements() * dtype.size();
        let block = make(bytes).ok_or(Error::Memory { bytes, shape })?;
        Ok(Array::over(Storage::new(Arc::new(block), 0, bytes), dtype, shape))
    }

    /// A new contiguous array with the given values.
    ///
    /// # Errors
    /// `Memory` when the allocator refuses.
    pub fn from_slice<T: Element>(dtype: DType, shape: Dims, values: &[T]) -> Result<Array> {
        let array = Array::stale(dtype, shape)?;
        array.write::<T>().copy_from_slice(values);
        Ok(array)
    }

    /// A scalar of rank 0.
    ///
    /// # Errors
    /// `Memory` when the allocator refuses.
    pub fn scalar(dtype: DType, value: f64) -> Result<Array> {
        Array::full(dtype, Dims::scalar(), value)
    }

    /// One value everywhere.
    ///
    /// # Errors
    /// `Memory` when the allocator refuses.
    pub fn full(dtype: DType, shape: Dims, value: f64) -> Result<Array> {
        let array = Array::stale(dtype, shape)?;
        crate::for_any!(dtype, T => array.write::<T>().fill(T::from_f64(value)));
        Ok(array)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &Dims {
        &self.0.shape
    }

    /// Strides in elements.
    pub fn strides(&self) -> &Dims {
        &self.0.strides
    }

    /// First element's position in the storage, in elements.
    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// Where the first element lies; for prefetching.
    pub fn address(&self) -> usize {
        let storage = &self.0.storage;
        storage.block.start().as_ptr() as usize + storage.offset + self.0.offset * self.0.dtype.size()
    }

    /// The storage behind the view.
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// What tells this array's storage from all others that live.
    pub(crate) fn storage_key(&self) -> usize {
        Arc::as_ptr(&self.0.storage) as usize
    }

    /// Whether two arrays look at the same storage.
    pub fn shares_storage(&self, other: &Array) -> bool {
        Arc::ptr_eq(&self.0.storage, &other.0.storage)
    }

    /// Whether no other array, and no other view, looks at the values.
    pub fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && Arc::strong_count(&self.0.storage) == 1
    }

    /// A handle that lets the values go.
    pub fn downgrade(&self) -> WeakArray {
        Arc::downgrade(&self.0)
    }

    /// The array behind a weak handle, if its values still exist.
    pub fn upgrade(weak: &WeakArray) -> Option<Array> {
        weak.upgrade().map(Array)
    }

    /// Whether elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        for i in (0..self.0.shape.rank()).rev() {
            if self.0.shape[i] != 1 && self.0.strides[i] != step {
                return self.0.shape.elements() == 0;
            }
            step *= self.0.shape[i];
        }
        true
    }

    /// Elements from a row to the next, where a row is all but the first dimension and lies in one run.
    pub fn row_stride(&self) -> usize {
        match self.0.shape.first() {
            // The stride of a single row may be anything.
            Some(&rows) if rows > 1 => self.0.strides[0],
            Some(_) => self.0.shape[1..].iter().product(),
            None => 1,
        }
    }

    /// Another view of the same storage.
    pub fn view(&self, shape: Dims, strides: Dims, offset: usize) -> Array {
        let extent = match shape.elements() {
            0 => 0,
            _ => 1 + shape.iter().zip(strides.iter()).map(|(&d, &s)| (d - 1) * s).sum::<usize>(),
        };
        assert!(offset + extent <= self.0.storage.bytes / self.0.dtype.size());
        let storage = self.0.storage.clone();
        Array(Arc::new(View { storage, dtype: self.0.dtype, shape, strides, offset, extent }))
    }

    /// The same bytes under another dtype of the same size and meaning (`bool` and `uint8`).
    pub fn with_dtype(&self, dtype: DType) -> Array {
        assert_eq!(dtype.size(), self.0.dtype.size());
        let View { storage, shape, strides, offset, extent, .. } = &*self.0;
        Array(Arc::new(View {
            storage: storage.clone(),
            dtype,
            shape: *shape,
            strides: *strides,
            offset: *offset,
            extent: *extent,
        }))
    }

    /// The elements from the view's first to its last, for reading.
    ///
    /// # Panics
    /// When `T` is not the dtype's type: a bug in the caller.
    pub fn read<T: Element>(&self) -> Read<'_, T> {
        let (start, extent) = self.span::<T>();
        self.0.storage.start_read();
        Read { start, extent, flag: &self.0.storage.flag, values: PhantomData }
    }

    /// The elements from the view's first to its last, for writing.
    ///
    /// # Panics
    /// When `T` is not the dtype's type: a bug in the caller.
    pub fn write<T: Element>(&self) -> Write<'_, T> {
        let (start, extent) = self.span::<T>();
        self.0.storage.start_write();
        Write { start, extent, flag: &self.0.storage.flag, values: PhantomData }
    }

    fn span<T: Element>(&self) -> (NonNull<T>, usize) {
        assert!(T::matches(self.0.dtype), "array of {} read as another type", self.0.dtype);
        let storage = &self.0.storage;
        // SAFETY: the storage lies inside its block; `view` and `over` keep offset + extent inside the storage.
        let start = unsafe {
            storage
                .block
                .start()
                .add(storage.offset + self.0.offset.min(storage.bytes / size_of::<T>()) * size_of::<T>())
        };
        (start.cast(), self.0.extent)
    }
}

/// Shared access to an array's elements for the length of a kernel.
pub struct Read<'a, T> {
    start: NonNull<T>,
    extent: usize,
    flag: &'a AtomicI32,
    values: PhantomData<&'a T>,
}

impl<T> Deref for Read<'_, T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: in bounds (see `span`), initialised (blocks are, and every bit pattern is a value of
        // an `Element`), and no writer exists while the flag counts this reader.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.extent) }
    }
}

impl<T> Drop for Read<'_, T> {
    fn drop(&mut self) {
        self.flag.fetch_sub(1, Ordering::Release);
    }
}

/// Exclusive access to an array's elements for the length of a kernel.
pub struct Write<'a, T> {
    start: NonNull<T>,
    extent: usize,
    flag: &'a AtomicI32,
    values: PhantomData<&'a mut T>,
}

impl<T> Deref for Write<'_, T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: as for `Read`; the flag is -1, so this guard is alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.extent) }
    }
}

impl<T> DerefMut for Write<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.extent) }
    }
}

impl<T> Drop for Write<'_, T> {
    fn drop(&mut self) {
        self.flag.store(0, Ordering::Release);
    }
}

/// Start of a slice that tasks share.
struct Shared<T>(*mut T, usize);

// SAFETY: each task gets its own range only (see `parallel_chunks`).
unsafe impl<T: Send> Sync for Shared<T> {}

/// Calls `body` on ranges of `chunk` elements, spread over the threads, with that range of every slice.
/// A slice may be empty, and then gives empty parts.
///
/// # Panics
/// When a slice that is not empty has another length than the first.
pub fn parallel_chunks<T: Send, const N: usize>(
    slices: [&mut [T]; N],
    chunk: usize,
    body: impl Fn(Range<usize>, [&mut [T]; N]) + Sync,
) {
    let length = slices[0].len();
    assert!(slices.iter().all(|s| s.len() == length || s.is_empty()), "slices of one length");
    let shared = slices.map(|s| Shared(s.as_mut_ptr(), s.len()));
    let shared = &shared;
    ferrograd_kernels::pool::parallel(length.div_ceil(chunk), &|task| {
        let range = task * chunk..length.min((task + 1) * chunk);
        let parts = std::array::from_fn(|i| {
            let Shared(start, length) = shared[i];
            let range = if length == 0 { 0..0 } else { range.clone() };
            // SAFETY: in bounds; the pool runs each task once, and tasks have disjoint ranges of slices
            // that were borrowed mutably for the whole call.
            unsafe { std::slice::from_raw_parts_mut(start.add(range.start), range.len()) }
        });
        body(range, parts);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storages_start_on_cache_lines_and_are_zero() {
        let array = Array::zeros(DType::F32, Dims::from_slice(&[3, 5])).unwrap();
        let values = array.read::<f32>();
        assert_eq!(values.as_ptr() as usize % ALIGNMENT, 0);
        assert!(values.iter().all(|&v| v == 0.0) && values.len() == 15);
    }

    #[test]
    fn views_see_writes_and_empty_views_are_empty() {
        let array = Array::zeros(DType::I64, Dims::from_slice(&[2, 3])).unwrap();
        array.write::<i64>()[4] = 7;
        let column = array.view(Dims::from_slice(&[2]), Dims::from_slice(&[3]), 1);
        assert_eq!(&column.read::<i64>()[..], &[0, 0, 0, 7]);
        let none = array.view(Dims::from_slice(&[0]), Dims::from_slice(&[3]), 6);
        assert!(none.read::<i64>().is_empty());
    }

    #[test]
    fn a_huge_allocation_is_an_error() {
        assert!(matches!(Array::zeros(DType::F64, Dims::from_slice(&[1 << 47])), Err(Error::Memory { .. })));
    }
}

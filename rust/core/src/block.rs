//! Aligned memory. A thread keeps the small blocks that it frees and hands them out again.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ptr::NonNull;

/// One cache line: the start of every block, so that lane arrays never straddle two.
pub const ALIGNMENT: usize = 64;

/// Sizes of kept blocks: powers of two from one cache line to 1 MiB. What the allocator gives back to the system
/// comes again page by page, which takes longer than the arithmetic of most ops.
const CLASSES: usize = 15;

/// A thread keeps at most so many blocks of a class, and no more than these bytes, but for a few large ones: 16 MiB
/// of all classes.
const MAX_KEPT: usize = 64;
const MAX_KEPT_BYTES: usize = 512 * 1024;
const MAX_LARGE: usize = 8;

/// Blocks from this size on begin on a page of it and ask for such pages: walking a weight of many megabytes then
/// misses the table of pages far less often.
const HUGE_PAGE: usize = 2 << 20;

thread_local! {
    static FREE: RefCell<FreeList> = const { RefCell::new(FreeList([const { Vec::new() }; CLASSES])) };
}

/// Freed blocks by class.
struct FreeList([Vec<NonNull<u8>>; CLASSES]);

impl Drop for FreeList {
    fn drop(&mut self) {
        for (class, blocks) in self.0.iter_mut().enumerate() {
            for start in blocks.drain(..) {
                // SAFETY: `Block::drop` puts a block into the class of its layout.
                unsafe { dealloc(start.as_ptr(), layout_of(class)) }
            }
        }
    }
}

/// The class that holds blocks of so many bytes.
fn class_of(bytes: usize) -> Option<usize> {
    let class = bytes.div_ceil(ALIGNMENT).next_power_of_two().trailing_zeros() as usize;
    (class < CLASSES).then_some(class)
}

fn layout_of(class: usize) -> Layout {
    Layout::from_size_align(ALIGNMENT << class, ALIGNMENT).expect("small and a power of two")
}

/// Aligned memory in which every byte is initialised.
pub(crate) struct Block {
    start: NonNull<u8>,
    /// What the allocator gave; a kept block begins there.
    allocated: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is plain memory that is owned by one `Block`; access goes through storage flags.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// At least `bytes` zeros; `None` where the allocator refuses.
    pub(crate) fn zeroed(bytes: usize) -> Option<Block> {
        match Block::kept(bytes) {
            Some(block) => {
                // SAFETY: the block is ours and has at least `bytes` bytes.
                unsafe { block.start.as_ptr().write_bytes(0, bytes) };
                Some(block)
            }
            None => Block::fresh(bytes),
        }
    }

    /// At least `bytes` bytes, zeros or what was in a freed block: for who writes all of them.
    pub(crate) fn stale(bytes: usize) -> Option<Block> {
        let block = Block::kept(bytes).or_else(|| Block::fresh(bytes))?;
        if cfg!(debug_assertions) {
            // NaN as a float: an element that is left out shows in every test.
            // SAFETY: the block is ours and has at least `bytes` bytes.
            unsafe { block.start.as_ptr().write_bytes(0xff, bytes) };
        }
        Some(block)
    }

    /// A block that this thread has freed. What it holds was initialised by `fresh`.
    fn kept(bytes: usize) -> Option<Block> {
        let class = class_of(bytes)?;
        // The list is gone while the thread ends.
        let start = FREE.try_with(|free| free.borrow_mut().0[class].pop()).ok().flatten()?;
        Some(Block { start, allocated: start, layout: layout_of(class) })
    }

    fn fresh(bytes: usize) -> Option<Block> {
        if let Some(class) = class_of(bytes) {
            let layout = layout_of(class);
            // SAFETY: the layout's size is not zero: the smallest class is a cache line.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            return Some(Block { start, allocated: start, layout });
        }
        let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        // Aligned here, because allocators clear memory of a large alignment by hand, while plain zeroed memory
        // comes from the system untouched.
        let layout = Layout::from_size_align(bytes.checked_add(alignment)?, align_of::<usize>()).ok()?;
        // SAFETY: the layout's size is not zero.
        let allocated = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the layout has room for the alignment.
        let start = unsafe { allocated.add(allocated.as_ptr().align_offset(alignment)) };
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE {
            // SAFETY: the range is ours, and the advice changes no contents. Where it is refused, pages are small.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Some(Block { start, allocated, layout })
    }

    /// The first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes in the block, at least those asked for.
    pub(crate) fn size(&self) -> usize {
        self.layout.size() - (self.start.as_ptr() as usize - self.allocated.as_ptr() as usize)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let keep = |class: usize| {
            FREE.try_with(|free| {
                let kept = &mut free.borrow_mut().0[class];
                let has_room =
                    kept.len() < MAX_KEPT.min((MAX_KEPT_BYTES / self.layout.size()).max(MAX_LARGE));
                if has_room {
                    kept.push(self.start);
                }
                has_room
            })
        };
        // Whichever thread frees a block keeps it.
        if !class_of(self.layout.size()).is_some_and(|class| keep(class).unwrap_or(false)) {
            // SAFETY: allocated in `fresh` with this layout, and on no list.
            unsafe { dealloc(self.allocated.as_ptr(), self.layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize) -> usize {
        FREE.with(|free| free.borrow().0[class_of(bytes).unwrap()].len())
    }

    /// On a thread of its own, whose list starts empty.
    fn alone<R: Send>(test: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| scope.spawn(test).join().unwrap())
    }

    fn fill(block: &Block, value: u8) {
        // SAFETY: the block is ours.
        unsafe { block.start.as_ptr().write_bytes(value, block.size()) }
    }

    fn bytes(block: &Block) -> &[u8] {
        // SAFETY: the block is ours, and initialised.
        unsafe { std::slice::from_raw_parts(block.start.as_ptr(), block.size()) }
    }

    #[test]
    fn sizes_fall_into_the_class_that_holds_them() {
        assert_eq!([0, 1, 64, 65, 128, 4096].map(class_of), [0, 0, 0, 1, 1, 6].map(Some));
        assert_eq!((class_of(1 << 20), class_of((1 << 20) + 1)), (Some(CLASSES - 1), None));
    }

    #[test]
    fn a_freed_block_comes_back_and_is_zero_where_zeros_are_asked_for() {
        alone(|| {
            let first = Block::zeroed(1000).unwrap();
            fill(&first, 7);
            let start = first.start;
            drop(first);
            let again = Block::stale(900).unwrap();
            assert_eq!(again.start, start, "same class, same memory");
            fill(&again, 7);
            drop(again);
            let zeroed = Block::zeroed(800).unwrap();
            assert_eq!(zeroed.start, start);
            assert!(bytes(&zeroed)[..800].iter().all(|&b| b == 0));
        });
    }

    #[test]
    fn what_is_kept_is_bounded() {
        alone(|| {
            drop((0..200).map(|_| Block::zeroed(64).unwrap()).collect::<Vec<_>>());
            drop((0..200).map(|_| Block::zeroed(32 << 10).unwrap()).collect::<Vec<_>>());
            drop((0..200).map(|_| Block::zeroed(1 << 20).unwrap()).collect::<Vec<_>>());
            assert_eq!(
                (kept(64), kept(32 << 10), kept(1 << 20)),
                (MAX_KEPT, MAX_KEPT_BYTES >> 15, MAX_LARGE)
            );
            drop(Block::zeroed((1 << 20) + 1).unwrap());
        });
    }

    #[test]
    fn a_block_may_be_freed_by_another_thread_and_outlive_its_own() {
        let blocks: Vec<Block> = alone(|| (0..100u8).map(|_| Block::zeroed(256).unwrap()).collect());
        alone(move || {
            blocks.iter().for_each(|block| fill(block, 1));
            drop(blocks);
            assert_eq!(kept(256), MAX_KEPT);
        });
    }

    #[test]
    fn a_block_that_lives_in_a_thread_local_is_freed_after_the_list() {
        thread_local!(static LAST: RefCell<Option<Block>> = const { RefCell::new(None) });
        alone(|| {
            // Made before the list: destroyed after it.
            LAST.with(|last| *last.borrow_mut() = None);
            LAST.with(|last| *last.borrow_mut() = Block::zeroed(64));
        });
    }
}

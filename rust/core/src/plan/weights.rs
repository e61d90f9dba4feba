//! Weights as products read them: packed in panels between the steps, in one direction or both.
//!
//! Where the plan also updates a weight, the packed copy is the weight for as long as the plan runs, and the
//! user's array follows when the run ends. Where something else updates it, the packed copy follows the array.
//! Plans that run in turn, as those for whole batches and for a short one, keep a weight in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use ferrograd_kernels::gemm::MatRef;
use ferrograd_kernels::gemm::panels::Panels;

use crate::buffer::{Arena, Array};
use crate::dtype::Element;
use crate::error::Result;
use crate::for_float;
use crate::shape::Dims;

/// A packed matrix in an arena: as a whole, and in segments that threads write apart from each other.
#[derive(Clone)]
pub(super) struct Packed {
    pub(super) layout: Panels,
    pub(super) whole: Array,
    arena: Arena,
}

impl Packed {
    fn new(layout: Panels, like: &Array) -> Result<Packed> {
        let arena = Arena::new(layout.len() * like.dtype().size())?;
        let whole = arena.array(0, like.dtype(), Dims::from_slice(&[layout.len()]));
        Ok(Packed { layout, whole, arena })
    }

    /// The elements of a range, with a storage of their own.
    pub(super) fn segment(&self, range: std::ops::Range<usize>) -> Array {
        let dtype = self.whole.dtype();
        self.arena.array(range.start * dtype.size(), dtype, Dims::from_slice(&[range.len()]))
    }
}

/// Bytes of a weight up to which a transposed copy stays in cache from its update to its use.
const COPY_BYTES: usize = 1 << 20;
/// Rows of a product up to which its panels are turned where they are used: once for each block of rows.
const TURN_ROWS: usize = 256;

/// What an original's count of writes never is.
const NEVER: u64 = u64::MAX;

/// How the packed copies and the user's arrays, a weight and at most three states, stand to each other.
struct Standing {
    /// Writes to each of the user's arrays that the packed copies have seen.
    seen: [AtomicU64; 4],
    /// Whether the packed copies are newer than the user's arrays.
    is_ahead: AtomicBool,
}

/// A matrix that is the right operand of products. A clone is the same packed copies, for a plan that never runs
/// while another one with them does.
#[derive(Clone)]
pub(super) struct Weight {
    /// The user's array as a `k x n` matrix.
    pub(super) original: Array,
    pub(super) packed: Packed,
    /// The transposed matrix, for products with it; without it they turn the panels themselves.
    pub(super) transposed: Option<Packed>,
    /// The optimizer's state for each element, where the plan updates the weight: the user's and ours.
    pub(super) states: Vec<(Array, Packed)>,
    /// Whether the plan updates it, packed.
    pub(super) is_updated: bool,
    standing: Arc<Standing>,
}

/// The weights that the plans of an engine keep packed, for another plan of the same engine.
#[derive(Clone, Default)]
pub struct Kept(pub(super) Vec<Weight>);

/// Whether two arrays are one and the same view.
fn is_same(a: &Array, b: &Array) -> bool {
    let place = |array: &Array| (array.storage_key(), array.offset(), *array.shape(), *array.strides());
    place(a) == place(b)
}

impl Weight {
    pub(super) fn new(original: Array) -> Result<Weight> {
        let (k, n) = (original.shape()[0], original.shape()[1]);
        let layout = for_float!("weight", original.dtype(), T => Ok(Panels::new::<T>(k, n)))?;
        let packed = Packed::new(layout, &original)?;
        Ok(Weight {
            original,
            packed,
            transposed: None,
            states: Vec::new(),
            is_updated: false,
            standing: Arc::new(Standing {
                seen: [const { AtomicU64::new(NEVER) }; 4],
                is_ahead: AtomicBool::new(false),
            }),
        })
    }

    /// Prepares for a product of so many rows with the transpose: by a copy, where that is cheaper than turning.
    pub(super) fn transpose(&mut self, rows: usize) -> Result<()> {
        let bytes = self.packed.layout.len() * self.original.dtype().size();
        if self.transposed.is_none() && (bytes <= COPY_BYTES || rows > TURN_ROWS) {
            let (k, n) = (self.packed.layout.k(), self.packed.layout.n());
            let layout = for_float!("weight", self.original.dtype(), T => Ok(Panels::new::<T>(n, k)))?;
            self.transposed = Some(Packed::new(layout, &self.original)?);
        }
        Ok(())
    }

    /// Makes the plan the weight's owner; `states` are `k x n` views of the optimizer's arrays.
    pub(super) fn update(&mut self, states: Vec<Array>) -> Result<()> {
        let pack = |state: Array| Ok((state.clone(), Packed::new(self.packed.layout, &state)?));
        self.states = states.into_iter().map(pack).collect::<Result<_>>()?;
        self.is_updated = true;
        Ok(())
    }

    /// Takes the place of another plan's weight that serves as well, if there is one: then nothing is packed when
    /// the plans take turns. To be called before anything refers to the packed copies.
    pub(super) fn share(&mut self, kept: &Kept) {
        let is_same_state = |ours: &(Array, Packed), its: &(Array, Packed)| is_same(&ours.0, &its.0);
        let serves = |other: &&Weight| {
            is_same(&other.original, &self.original)
                && other.packed.layout == self.packed.layout
                && (other.transposed.is_some() || self.transposed.is_none())
                && other.is_updated == self.is_updated
                && other.states.len() == self.states.len()
                && self.states.iter().zip(&other.states).all(|(ours, its)| is_same_state(ours, its))
        };
        if let Some(other) = kept.0.iter().find(serves) {
            *self = other.clone();
        }
    }

    /// Whether both are the same packed copies.
    pub(super) fn is(&self, other: &Weight) -> bool {
        Arc::ptr_eq(&self.standing, &other.standing)
    }

    /// The user's arrays, each with the number of writes that the packed copies have seen.
    fn originals(&self) -> impl Iterator<Item = (&Array, &AtomicU64)> {
        let states = self.states.iter().map(|(state, _)| state);
        std::iter::once(&self.original).chain(states).zip(&self.standing.seen)
    }

    /// Packs what was written since the last time. To be called before a step. What is written while the
    /// packed weight is ahead is lost: the plan owns the weight then.
    pub(super) fn load(&self) -> Result<()> {
        let is_seen =
            |(array, seen): (&Array, &AtomicU64)| u64::from(array.storage().writes()) == seen.load(Relaxed);
        if self.standing.is_ahead.load(Relaxed) || self.originals().all(is_seen) {
            return Ok(());
        }
        self.see();
        for_float!("weight", self.original.dtype(), T => {
            pack::<T>(&self.original, &self.packed, false);
            if let Some(transposed) = &self.transposed {
                pack::<T>(&self.original, transposed, true);
            }
            for (state, packed) in &self.states {
                pack::<T>(state, packed, false);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn see(&self) {
        self.originals().for_each(|(array, seen)| seen.store(array.storage().writes().into(), Relaxed));
    }

    /// Notes that the packed weight has been updated.
    pub(super) fn set_ahead(&self) {
        if self.is_updated {
            self.standing.is_ahead.store(true, Relaxed);
        }
    }

    /// Writes the packed weight and its state to the user's arrays. To be called when a run ends.
    pub(super) fn store(&self) -> Result<()> {
        if !self.standing.is_ahead.load(Relaxed) {
            return Ok(());
        }
        for_float!("weight", self.original.dtype(), T => {
            unpack::<T>(&self.packed, &self.original);
            for (state, packed) in &self.states {
                unpack::<T>(packed, state);
            }
            Ok(())
        })?;
        self.see();
        self.standing.is_ahead.store(false, Relaxed);
        Ok(())
    }
}

fn pack<T: Element + ferrograd_kernels::lanes::Real>(source: &Array, packed: &Packed, transposed: bool) {
    let values = source.read::<T>();
    let matrix = MatRef::new(&values, source.strides()[0], source.strides()[1]);
    let matrix = if transposed { matrix.transposed() } else { matrix };
    packed.layout.pack(matrix, &mut packed.whole.write::<T>());
}

fn unpack<T: Element + ferrograd_kernels::lanes::Real>(packed: &Packed, target: &Array) {
    let strides = target.strides();
    packed.layout.unpack(&packed.whole.read::<T>(), &mut target.write::<T>(), strides[0], strides[1]);
}

//! A packed weight's update with the gradient of few samples, and the gradient of the samples, in one pass over its
//! panels. Reading the weight is what a step of so few samples costs.

use std::ops::Range;

use super::{PackBlock, Panels, Target, Tile, cut};
use crate::dense::differentiate;
use crate::elementwise::Binary;
use crate::gather::prefetch_far;
use crate::gemm::blocking::{Line, SCRATCH, reserve};
use crate::gemm::pack::Source;
use crate::gemm::tile::{self, Ahead, End, Operands};
use crate::gemm::{MatRef, span};
use crate::isa::{Isa, Job, dispatch};
use crate::lanes::{Lanes, Real};
use crate::math::Math;
use crate::pool;
use crate::reduce::{Sum, fold_columns};
use crate::update::{Rule, Update, penalise};

/// Samples up to which [`update_panels`] takes a batch.
pub const FEW_ROWS: usize = 4;

/// A parameter in the hands of an optimizer.
pub struct Tuned<'a, T> {
    /// Its elements.
    pub values: &'a mut [T],
    /// What the rule remembers of them.
    pub states: [Option<&'a mut [T]>; 3],
    /// How they change.
    pub rule: &'a Rule,
}

/// The gradient of A, `D W^T`, of the weight before its update: the sums are those of [`super::gemm`], to the bit.
pub struct DataGradient<'a, T> {
    /// Rows of `k` elements.
    pub values: &'a mut [T],
    /// Elements from a row to the next.
    pub stride: usize,
    /// Applied to the sums: the derivative of an activation by its result, whose rows begin every so many elements;
    /// as [`crate::dense::Then::Derivative`].
    pub derivative: Option<(Binary, &'a [T], usize)>,
}

/// One step of a packed weight, `k x n`, with the gradient `A^T D` of a few samples.
pub struct FewRows<'a, T> {
    /// Samples, 1 to [`FEW_ROWS`].
    pub batch: usize,
    /// `batch x k`
    pub a: MatRef<'a, T>,
    /// `batch x n`
    pub d: MatRef<'a, T>,
    /// Where the elements of the weight and of its states lie.
    pub layout: Panels,
    /// The weight, whose rule is element-wise.
    pub weight: Tuned<'a, T>,
    /// The packed transpose, where there is one: it follows.
    pub transposed: Option<(Panels, &'a mut [T])>,
    /// Factor and scale of what a penalty adds to the gradient, as for [`penalise`].
    pub pull: Option<(T, T)>,
    /// A vector whose gradient is the sum of D's rows.
    pub bias: Option<Tuned<'a, T>>,
    /// The gradient of A, if wanted.
    pub data: Option<DataGradient<'a, T>>,
}

/// Bytes of a block of the weight: with the next one and as much working space it stays in L1, where the rule has no
/// states.
const BLOCK_BYTES: usize = 12 << 10;

/// Elements of a weight below which one thread is enough: a meeting takes as long as a pass over them.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// Bytes of a weight above which the next block is asked for ahead: a smaller one stays in L2.
const ASK_BYTES: usize = 1 << 20;

/// Rows for which it is asked at a time.
const ASK_ROWS: usize = 8;

/// Makes the step, on so many threads.
///
/// # Panics
/// When a slice is too short, or there are more samples.
pub fn update_panels<T: Math>(of: FewRows<'_, T>, threads: usize) {
    let FewRows { batch, a, d, layout, weight, transposed, pull, bias, data } = of;
    let Panels { k, n, nr, .. } = layout;
    assert!(
        (1..=FEW_ROWS).contains(&batch) && a.holds(batch, k) && d.holds(batch, n),
        "operands of {layout:?}"
    );
    assert!(bias.as_ref().is_none_or(|bias| bias.values.len() == n), "a bias of {layout:?}");
    assert!(
        transposed.as_ref().is_none_or(|(of, values)| *of == layout.transposed() && values.len() >= of.len())
    );
    let has_room = |data: &DataGradient<'_, T>| {
        span(batch, data.stride, k, 1).is_some_and(|span| span <= data.values.len()) && data.stride >= k
    };
    assert!(data.as_ref().is_none_or(has_room), "room for a gradient of {layout:?}");
    let has_result = |data: &DataGradient<'_, T>| {
        data.derivative.is_none_or(|(_, y, stride)| span(batch, stride, k, 1).is_some_and(|s| s <= y.len()))
    };
    assert!(data.as_ref().is_none_or(has_result), "a result for each element of a gradient of {layout:?}");
    assert!(n > 0 || data.is_none(), "a data gradient of {layout:?} has no sums");
    if layout.is_empty() {
        return;
    }
    let pass = Pass {
        batch,
        a,
        d,
        layout,
        weight: Arrays::new(weight, layout.len()),
        transposed: transposed.map(|(layout, values)| (layout, target(values))),
        pull,
        bias: bias.map(|bias| Arrays::new(bias, n)),
        derivative: data.as_ref().and_then(|data| data.derivative),
        data: data.map(|data| Target { stride: data.stride, ..target(data.values) }),
    };
    let part = |panels: Range<usize>, rows: Range<usize>| {
        let mut scratch = SCRATCH.take();
        dispatch(Part { pass: &pass, panels, rows, scratch: &mut scratch });
        SCRATCH.set(scratch);
    };
    let threads = if layout.len() < PARALLEL_ELEMENTS { 1 } else { threads };
    if pass.data.is_none() && layout.count() >= threads {
        // As a product with the weight is split: a thread finds what it has read.
        return spread(threads, &|i| part(cut(layout.count(), threads, i), 0..k));
    }
    // A sum of the data gradient runs over all panels.
    let units = k.div_ceil(nr);
    let parts = threads.min(units);
    spread(parts, &|i| {
        let units = cut(units, parts, i);
        part(0..layout.count(), units.start * nr..k.min(units.end * nr));
    });
}

fn spread(parts: usize, body: &(dyn Fn(usize) + Sync)) {
    if parts == 1 { body(0) } else { pool::parallel(parts, body) }
}

fn target<T>(values: &mut [T]) -> Target<T> {
    Target { start: values.as_mut_ptr(), len: values.len(), stride: 0 }
}

/// A parameter of which each thread has a part.
struct Arrays<'a, T> {
    values: Target<T>,
    states: [Option<Target<T>>; 3],
    rule: &'a Rule,
}

impl<'a, T> Arrays<'a, T> {
    fn new(Tuned { values, states, rule }: Tuned<'a, T>, len: usize) -> Arrays<'a, T> {
        assert!(rule.is_element_wise() && values.len() >= len, "a parameter of {len} elements");
        assert!(states.iter().flatten().all(|state| state.len() >= len), "states of {len} elements");
        Arrays { values: target(values), states: states.map(|state| state.map(target)), rule }
    }

    /// Changes some elements.
    ///
    /// # Safety
    /// As [`Target::part`], for the values and the states.
    #[inline(always)]
    unsafe fn apply(&self, range: Range<usize>, gradient: &[T])
    where
        T: Math,
    {
        // SAFETY: promised by the caller; the states are as long as the values.
        unsafe {
            let states = self.states.each_ref().map(|s| s.as_ref().map(|s| s.part(range.clone())));
            self.rule.apply(self.values.part(range), gradient, states);
        }
    }
}

impl<T> Target<T> {
    /// # Safety
    /// The elements must be there, and nothing else refer to them.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "a part of what several threads write")]
    unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// What the threads share.
struct Pass<'a, T> {
    batch: usize,
    a: MatRef<'a, T>,
    d: MatRef<'a, T>,
    layout: Panels,
    weight: Arrays<'a, T>,
    transposed: Option<(Panels, Target<T>)>,
    pull: Option<(T, T)>,
    bias: Option<Arrays<'a, T>>,
    data: Option<Target<T>>,
    derivative: Option<(Binary, &'a [T], usize)>,
}

/// Some rows and panels. With a data gradient all panels.
struct Part<'p, 'a, T> {
    pass: &'p Pass<'a, T>,
    panels: Range<usize>,
    rows: Range<usize>,
    scratch: &'p mut Vec<Line>,
}

/// Working space of a thread.
struct Space<T> {
    /// The first column of the part, and the elements from a row of the packed D to the next.
    first_column: usize,
    d_row: usize,
    /// The columns of D that belong to the part's panels, those beyond the last zero.
    d: *mut T,
    /// The data gradient of a block's rows: a run for each sample.
    sums: *mut T,
    /// A block's transpose, then its gradient.
    block: *mut T,
}

impl<T: Math> Job for Part<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Part { pass, panels, rows, scratch } = self;
        let (layout, batch) = (pass.layout, pass.batch);
        if panels.is_empty() || rows.is_empty() {
            return;
        }
        let row_bytes = layout.stride(panels.start) * size_of::<T>();
        // Whole panels of the transpose.
        let most_rows = (BLOCK_BYTES / row_bytes / layout.nr * layout.nr).max(layout.nr).min(rows.len());
        // Panels lie one after the other where all of their rows belong to a block.
        let most_panels =
            if most_rows == layout.k { (BLOCK_BYTES / (most_rows * row_bytes)).max(1) } else { 1 };
        let first_column = layout.columns(panels.start).start;
        let end = layout.columns(panels.end - 1).start + layout.stride(panels.end - 1);
        let d_row = end - first_column;
        let run = most_rows.next_multiple_of(T::LANES);
        let block_len = run * layout.nr * most_panels;
        let start = reserve::<T>(scratch, batch * (d_row + run) + block_len);
        // SAFETY: the parts lie side by side in the buffer.
        let space = unsafe {
            let sums = start.add(batch * d_row);
            Space { first_column, d_row, d: start, sums, block: sums.add(batch * run) }
        };
        for i in 0..batch {
            // SAFETY: a row of the packed D.
            let row = unsafe { std::slice::from_raw_parts_mut(space.d.add(i * d_row), d_row) };
            let (row, padding) = row.split_at_mut(d_row.min(layout.n - first_column));
            let start = i * pass.d.row_stride + first_column * pass.d.col_stride;
            match pass.d.col_stride {
                1 => row.copy_from_slice(&pass.d.data[start..start + row.len()]),
                step => (0..).zip(row).for_each(|(j, to): (usize, _)| *to = pass.d.data[start + j * step]),
            }
            padding.fill(T::ZERO);
        }
        if let Some(bias) = pass.bias.as_ref().filter(|_| rows.start == 0) {
            let room = block_len / T::LANES * T::LANES;
            for first in (0..d_row).step_by(room) {
                // SAFETY: the space of a block, and the packed D, which nothing writes any more.
                let (sums, d) = unsafe {
                    let sums = std::slice::from_raw_parts_mut(space.block, room.min(d_row - first));
                    (sums, std::slice::from_raw_parts(space.d, batch * d_row))
                };
                for (lane, sums) in sums.chunks_exact_mut(T::LANES).enumerate() {
                    let [sum] = fold_columns::<T, Sum, 1>(Sum, batch, d_row, &d[first + lane * T::LANES..]);
                    sum.store(sums);
                }
                let start = first_column + first;
                let columns = start..layout.n.min(start + sums.len());
                // SAFETY: these panels' columns are this part's, for it has the first rows.
                unsafe { bias.apply(columns.clone(), &sums[..columns.len()]) };
            }
        }
        let blocks = |all: &Range<usize>, most: usize| {
            let all = all.clone();
            all.clone().step_by(most).map(move |first| first..all.end.min(first + most))
        };
        if pass.data.is_some() {
            for rows in blocks(&rows, most_rows) {
                for some in blocks(&panels, most_panels) {
                    // SAFETY: the part's.
                    unsafe { pass.block::<I>(some, rows.clone(), &space) };
                }
                // SAFETY: the sums of these rows are complete.
                unsafe { pass.finish(&rows, &space) };
            }
        } else {
            // As they lie in memory.
            for some in blocks(&panels, most_panels) {
                for rows in blocks(&rows, most_rows) {
                    // SAFETY: the part's.
                    unsafe { pass.block::<I>(some.clone(), rows, &space) };
                }
            }
        }
    }
}

impl<T: Math> Pass<'_, T> {
    /// Does all for a block: rows of a panel, or panels of which `rows` are all.
    ///
    /// # Safety
    /// The block must belong to this thread; called where the code for `I` is compiled.
    #[inline(always)]
    unsafe fn block<I: Isa>(&self, panels: Range<usize>, rows: Range<usize>, space: &Space<T>) {
        let layout = self.layout;
        let segment = |panel: usize| layout.segment(panel, rows.clone());
        let range = segment(panels.start).start..segment(panels.end - 1).end;
        // What will be needed next: with a data gradient that is the next panel, otherwise what lies behind.
        let mut near = [self.weight.values.start.addr(); 4];
        let states = self.weight.states.iter().flatten().map(|state| state.start.addr());
        let states = near[1..].iter_mut().zip(states).map(|(slot, address)| *slot = address).count();
        let asks = layout.len() * size_of::<T>() * (1 + states) > ASK_BYTES;
        let near = &near[..if asks { 1 + states } else { 0 }];
        if self.data.is_some() {
            for panel in panels.clone() {
                let next = match panel + 1 {
                    next if next < layout.count() => segment(next),
                    _ => layout.segment(0, rows.end..layout.k.min(rows.end + rows.len())),
                };
                // SAFETY: promised by the caller.
                unsafe { self.add_panel::<I>(panel, &rows, near, next, space) };
            }
        }
        // SAFETY: the space of a block, whose transpose is not needed any more.
        let gradient = unsafe { std::slice::from_raw_parts_mut(space.block, range.len()) };
        for panel in panels.clone() {
            let (stride, start) = (layout.stride(panel), segment(panel).start - range.start);
            let part = &mut gradient[start..start + rows.len() * stride];
            let ask = if self.data.is_some() { &[] } else { near };
            let ahead = Ahead { arrays: ask, start: (range.end + start) * size_of::<T>(), bytes: 0 };
            let at = |i: usize| i * self.a.row_stride + rows.start * self.a.col_stride;
            // SAFETY: the rows are in A for each sample, and the columns are in the packed D.
            unsafe {
                let a = self.a.data.as_ptr();
                let a = std::array::from_fn(|i| if i < self.batch { a.add(at(i)) } else { a });
                let (a_col, d) = (self.a.col_stride, space.columns(&layout, panel));
                let outer = Outer { a, a_col, d, d_row: space.d_row, stride, ahead, gradient: part };
                match self.batch {
                    1 => I::call(Samples::<T, 1>(outer)),
                    2 => I::call(Samples::<T, 2>(outer)),
                    3 => I::call(Samples::<T, 3>(outer)),
                    _ => I::call(Samples::<T, FEW_ROWS>(outer)),
                }
            }
        }
        // SAFETY: the block is this thread's.
        unsafe {
            if let Some((factor, scale)) = self.pull {
                penalise(self.weight.values.part(range.clone()), gradient, factor, scale);
            }
            self.weight.apply(range, gradient);
        }
        let Some((of, transposed)) = &self.transposed else { return };
        for panel in panels {
            for first in rows.clone().step_by(layout.nr) {
                let rows = first..rows.end.min(first + layout.nr);
                // SAFETY: as above, for the same elements in the transpose.
                unsafe {
                    let block = self.weight.values.part(layout.segment(panel, rows.clone()));
                    let turned = transposed.part(layout.transposed_segment(of, panel, rows.clone()));
                    layout.pack_transposed(panel, rows.len(), block, turned);
                }
            }
        }
    }

    /// Adds a panel's part to the data gradient of the rows; asks for the elements `next` of `near` arrays.
    ///
    /// # Safety
    /// As [`Pass::block`].
    #[inline(always)]
    unsafe fn add_panel<I: Isa>(
        &self,
        panel: usize,
        rows: &Range<usize>,
        near: &[usize],
        next: Range<usize>,
        space: &Space<T>,
    ) {
        let layout = self.layout;
        let (columns, stride) = (layout.columns(panel).len(), layout.stride(panel));
        let run = rows.len().next_multiple_of(T::LANES);
        // SAFETY: the block is this thread's; its space has room for the transpose.
        let (block, turned) = unsafe {
            let block = self.weight.values.part(layout.segment(panel, rows.clone()));
            (block, std::slice::from_raw_parts_mut(space.block, columns * run))
        };
        let source = Source { start: block.as_ptr(), column: stride, step: 1 };
        PackBlock { k: columns, width: rows.len(), source, panel: turned }.run::<I>();
        let (most, lanes) = (tile::most_lanes::<I>(self.batch), run / T::LANES);
        let bytes = (next.len() * size_of::<T>()).div_ceil(lanes.div_ceil(most));
        let (mut lane, mut start) = (0, next.start * size_of::<T>());
        while lane < lanes {
            let left = lanes - lane;
            let some = if left >= most { most } else { 1 << left.ilog2() };
            // SAFETY: the transpose and the sums have the lanes, and the packed D has the columns.
            unsafe {
                let operands = Operands {
                    k: columns,
                    a: space.columns(&layout, panel),
                    a_row: space.d_row,
                    a_k: 1,
                    b: turned.as_ptr().add(lane * T::LANES),
                    b_k: run,
                    c: space.sums.add(lane * T::LANES),
                    c_row: run,
                    resume: panel > 0,
                    ahead: Ahead { arrays: near, start, bytes },
                    end: End::NOTHING,
                    tiles: 1,
                    a_tile: 0,
                    c_tile: 0,
                };
                tile::run::<I, T>(self.batch, some, operands);
            }
            lane += some;
            start += bytes;
        }
    }

    /// Writes the data gradient of the rows.
    ///
    /// # Safety
    /// Its sums must be complete and the rows this thread's.
    #[inline(always)]
    unsafe fn finish(&self, rows: &Range<usize>, space: &Space<T>) {
        let Some(target) = &self.data else { return };
        let run = rows.len().next_multiple_of(T::LANES);
        if let Some((op, y, stride)) = self.derivative {
            // SAFETY: the space has a run of sums for each sample.
            let sums = unsafe { Tile::new((0, rows.start), (self.batch, run / T::LANES), (space.sums, run)) };
            differentiate(sums, op, y, stride);
        }
        for i in 0..self.batch {
            // SAFETY: as above; the rest is promised by the caller.
            unsafe {
                let sums = std::slice::from_raw_parts(space.sums.add(i * run), rows.len());
                let start = i * target.stride;
                target.part(start + rows.start..start + rows.end).copy_from_slice(sums);
            }
        }
    }
}

impl<T: Real> Space<T> {
    /// The columns of D that belong to a panel.
    ///
    /// # Safety
    /// The panel must be among those of the part.
    #[inline(always)]
    unsafe fn columns(&self, layout: &Panels, panel: usize) -> *const T {
        // SAFETY: promised by the caller.
        unsafe { self.d.add(layout.columns(panel).start - self.first_column).cast_const() }
    }
}

/// The operands of a panel's gradient.
struct Outer<'a, T> {
    /// Where the first row's element of each sample lies, and the elements from a row to the next.
    a: [*const T; FEW_ROWS],
    a_col: usize,
    /// A sample's columns, and the elements from a sample to the next.
    d: *const T,
    d_row: usize,
    stride: usize,
    /// As much of these arrays is asked for.
    ahead: Ahead<'a>,
    gradient: &'a mut [T],
}

/// The gradient of `M` samples, summed in their order. In a function of its own it has the registers for itself.
struct Samples<'a, T, const M: usize>(Outer<'a, T>);

impl<T: Real, const M: usize> Job for Samples<'_, T, M> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Outer { a, a_col, d, d_row, stride, ahead, gradient } = self.0;
        let rows = gradient.len() / stride;
        for lane in (0..stride).step_by(T::LANES) {
            let d: [T::Lanes; M] = std::array::from_fn(|i| {
                // SAFETY: who makes one vouches for the columns, and for a row of A below.
                let columns = unsafe { std::slice::from_raw_parts(d.add(i * d_row + lane), T::LANES) };
                T::Lanes::load(columns)
            });
            for first in (0..rows).step_by(ASK_ROWS) {
                let some = first..rows.min(first + ASK_ROWS);
                for array in ahead.arrays {
                    let start = array.wrapping_add(ahead.start + lane * size_of::<T>());
                    for r in some.clone() {
                        prefetch_far(start.wrapping_add(r * stride * size_of::<T>()) as *const u8);
                    }
                }
                for r in some {
                    let mut sum = T::Lanes::splat(T::ZERO);
                    for i in 0..M {
                        // SAFETY: as above.
                        sum = T::Lanes::splat(unsafe { *a[i].add(r * a_col) }).mul_add(d[i], sum);
                    }
                    // SAFETY: `stride` is whole lane arrays, and the gradient has `rows` of them.
                    sum.store(unsafe {
                        std::slice::from_raw_parts_mut(gradient.as_mut_ptr().add(r * stride + lane), T::LANES)
                    });
                }
            }
        }
    }
}

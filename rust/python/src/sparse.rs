//! Tables of samples, dense or in compressed sparse rows: these are filled in batch by batch, never as a whole.

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::Element;
use ferrograd_core::error::{Error, Result};
use ferrograd_core::for_float;
use ferrograd_core::train::Rows;
use ferrograd_kernels::gather::Target;
use pyo3::prelude::*;

use crate::array::Table;
use crate::error::{self, Kind, raise};

/// A numpy array, or `(values, columns, starts, width)` of a matrix in compressed sparse rows.
pub enum Data {
    Dense(Table),
    Sparse(Box<Sparse>),
}

impl Data {
    /// Borrows the memory.
    ///
    /// # Errors
    /// `DTypeError` and `ShapeError` of [`Table::new`], `ShapeError` for parts that do not fit.
    pub fn new(object: &Bound<'_, PyAny>) -> error::Result<Data> {
        let Ok((values, columns, starts, width)) = object.extract() else {
            return Ok(Data::Dense(Table::new(object)?));
        };
        let part = |object: Bound<'_, PyAny>| Table::new(&object);
        let sparse = Sparse { values: part(values)?, columns: part(columns)?, starts: part(starts)?, width };
        let Sparse { values, columns, starts, .. } = &sparse;
        let is_flat = [values, columns, starts].iter().all(|table| table.shape().len() == 1);
        if !is_flat || values.rows() != columns.rows() || starts.rows() == 0 {
            return Err(raise(Kind::Shape, "data: expected values, columns and starts of sparse rows").into());
        }
        Ok(Data::Sparse(Box::new(sparse)))
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Data::Dense(table) => table.rows(),
            Data::Sparse(sparse) => sparse.starts.rows() - 1,
        }
    }
}

impl Rows for Data {
    fn gather(&self, rows: &[u32], out: &Array) -> Result<()> {
        match self {
            Data::Dense(table) => table.gather(rows, out),
            Data::Sparse(sparse) => {
                for_float!("gather", out.dtype(), T => sparse.gather(rows, &mut out.write::<T>(), out.row_stride()))
            }
        }
    }
}

/// Compressed sparse rows.
pub struct Sparse {
    values: Table,
    columns: Table,
    starts: Table,
    width: usize,
}

/// Entries that are read at a time.
const RUN: usize = 64;

impl Sparse {
    /// Entries that name an element twice add up, as in SciPy.
    fn gather<T: Element + Target>(&self, rows: &[u32], out: &mut [T], stride: usize) -> Result<()> {
        let misfit = |got: String| Error::Shape { op: "gather", expected: "sparse rows".into(), got };
        let (mut columns, mut values) = ([0i64; RUN], [T::from_f64(0.0); RUN]);
        for (row, out) in rows.iter().zip(out.chunks_mut(stride.max(1))) {
            let row = *row as usize;
            if row + 1 >= self.starts.rows() {
                return Err(misfit(format!("row {row} of {}", self.starts.rows() - 1)));
            }
            let out = &mut out[..self.width];
            out.fill(T::from_f64(0.0));
            let mut ends = [0i64; 2];
            self.starts.read_column(row, &mut ends);
            let [start, end] = ends.map(|end| usize::try_from(end).unwrap_or(usize::MAX));
            if start > end || end > self.values.rows() {
                return Err(misfit(format!("entries from {start} to {end} of {}", self.values.rows())));
            }
            for first in (start..end).step_by(RUN) {
                let count = RUN.min(end - first);
                self.columns.read_column(first, &mut columns[..count]);
                self.values.read_column(first, &mut values[..count]);
                for (&column, &value) in columns[..count].iter().zip(&values) {
                    let slot = usize::try_from(column).ok().and_then(|column| out.get_mut(column));
                    let Some(slot) = slot else { return Err(misfit(format!("column {column}"))) };
                    *slot = T::from_f64(slot.to_f64() + value.to_f64());
                }
            }
        }
        Ok(())
    }
}

//! Predictions for estimators, whose parameters are numpy arrays that the user may change at any time.

use ferrograd_core::buffer::Array;
use ferrograd_core::for_float;
use ferrograd_core::shape::Dims;
use ferrograd_core::train::Rows;
use pyo3::prelude::*;

use crate::array::{self, Table};
use crate::dtype;
use crate::error::{Kind, Result, enter, raise};
use crate::sparse::Data;
use crate::tensor::PyTensor;
use crate::trainer::{PyEngine, watched};

/// Elements that are compared at a time.
const RUN: usize = 256;

/// Gives contiguous tensors the values of arrays of their shapes. One that has them is not written to, so that a
/// plan that has packed it need not do so again.
#[pyfunction]
pub fn follow(tensors: Vec<Bound<'_, PyTensor>>, arrays: Vec<Bound<'_, PyAny>>) -> Result<()> {
    enter(|| {
        let arrays: Vec<Table> = arrays.iter().map(Table::new).collect::<Result<_>>()?;
        let tensors: Vec<Array> =
            tensors.iter().map(|tensor| Ok(tensor.get().live()?.array().clone())).collect::<Result<_>>()?;
        let fits =
            |tensor: &Array, table: &Table| tensor.shape()[..] == *table.shape() && tensor.is_contiguous();
        if tensors.len() != arrays.len() || !tensors.iter().zip(&arrays).all(|(t, a)| fits(t, a)) {
            return Err(raise(Kind::Shape, "follow: expected an array of the shape of each tensor").into());
        }
        Ok(tensors.iter().zip(&arrays).try_for_each(|(tensor, table)| follow_one(tensor, table))?)
    })
}

fn follow_one(tensor: &Array, table: &Table) -> ferrograd_core::error::Result<()> {
    let (rows, columns) = table.runs();
    for_float!("follow", tensor.dtype(), T => {
        let mut values: [T; RUN] = [0.0; RUN];
        let mut is_same = |row: usize, known: &[T]| {
            known.chunks(RUN).enumerate().all(|(i, known)| {
                let values = &mut values[..known.len()];
                table.read_run(row, i * RUN, values);
                values == known
            })
        };
        let same = {
            let known = tensor.read::<T>();
            (0..rows).all(|row| is_same(row, &known[row * columns..(row + 1) * columns]))
        };
        if !same {
            let mut target = tensor.write::<T>();
            (0..rows).for_each(|row| table.read_run(row, 0, &mut target[row * columns..(row + 1) * columns]));
            tensor.storage().bump_version();
        }
        Ok(())
    })
}

/// The results of an engine's steps for all rows, `batch` rows at a time. The last step may have more rows than
/// are left: it repeats the last row. `shape` and `dtype` are those of a row's result. With `width` it returns
/// None where the rows are no plain array of so many finite columns.
#[pyfunction]
#[pyo3(signature = (engine, rows, sizes, shape, dtype, width = None))]
pub fn predict<'py>(
    py: Python<'py>,
    engine: &PyEngine,
    rows: &Bound<'py, PyAny>,
    sizes: (usize, usize),
    shape: Vec<usize>,
    dtype: &Bound<'py, PyAny>,
    width: Option<usize>,
) -> Result<Option<Bound<'py, PyAny>>> {
    enter(|| {
        let data = Data::new(rows)?;
        if let (Some(width), Data::Dense(table)) = (width, &data)
            && (table.shape().len() != 2 || table.columns() != width || !table.is_finite())
        {
            return Ok(None);
        }
        let (batch, last) = sizes;
        let count = data.rows();
        let short = if batch == 0 { 0 } else { count % batch };
        if batch == 0 || last < short || u32::try_from(count + last).is_err() {
            let text = format!("predict: expected steps for {count} rows, got sizes {batch} and {last}");
            return Err(raise(Kind::Config, text).into());
        }
        let more = if short == 0 { 0 } else { last - short };
        let mut order: Vec<u32> = (0..count as u32).collect();
        order.extend(std::iter::repeat_n(count.saturating_sub(1) as u32, more));
        let dims = |rows: usize| Dims::new("predict", &[&[rows], &shape[..]].concat());
        let scores = Array::stale(dtype::parse(dtype)?, dims(order.len())?)?;
        let tables: [&dyn Rows; 1] = [&data];
        engine.with_engine(|engine| {
            watched(py, |poll| engine.epoch(&order, batch, &tables, Some(&scores), poll))
        })?;
        let found = scores.view(dims(count)?, *scores.strides(), 0);
        array::to_numpy(py, &found).map(Some)
    })
}

/// The mean loss of an engine's steps over all rows, by their weights where a third table has them. The steps must
/// have been compiled for `batch` rows and for those that are left.
#[pyfunction]
pub fn mean_loss(
    py: Python<'_>,
    engine: &PyEngine,
    tables: Vec<Bound<'_, PyAny>>,
    batch: usize,
) -> Result<f64> {
    enter(|| {
        let tables: Vec<Data> = tables.iter().map(Data::new).collect::<Result<_>>()?;
        let rows = tables.iter().map(Data::rows).min().unwrap_or(0);
        let tables: Vec<&dyn Rows> = tables.iter().map(|table| table as &dyn Rows).collect();
        let order: Vec<u32> = (0..rows as u32).collect();
        engine.with_engine(|engine| {
            let epoch = watched(py, |poll| engine.epoch(&order, batch, &tables, None, poll))?;
            Ok(epoch.diverged.map_or(epoch.loss / epoch.weight, |(_, loss)| loss))
        })
    })
}

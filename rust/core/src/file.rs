//! Model files: the safetensors container with text metadata, checked before it is believed, written
//! so that a crash leaves the old file or the new one.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::buffer::Array;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::shape::{Dims, MAX_RANK};

/// Names with arrays, and text metadata.
pub type Contents = (BTreeMap<String, Array>, BTreeMap<String, String>);

/// Largest header that is read: far above what our models need, far below what could hurt.
const MAX_HEADER: u64 = 1 << 20;
const MAX_TENSORS: usize = 4096;

fn file_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::I64 => Dtype::I64,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

fn bytes(array: &Array) -> Vec<u8> {
    fn of<T: Element>(array: &Array, to_bytes: impl Fn(T, &mut Vec<u8>)) -> Vec<u8> {
        let mut values = vec![T::default(); array.shape().elements()];
        ferrograd_kernels::elementwise::copy(array.shape(), &array.read::<T>(), array.strides(), &mut values);
        let mut out = Vec::with_capacity(size_of_val(&values[..]));
        values.into_iter().for_each(|v| to_bytes(v, &mut out));
        out
    }
    match array.dtype() {
        DType::F32 => of::<f32>(array, |v, out| out.extend(v.to_le_bytes())),
        DType::F64 => of::<f64>(array, |v, out| out.extend(v.to_le_bytes())),
        DType::I64 => of::<i64>(array, |v, out| out.extend(v.to_le_bytes())),
        DType::U8 | DType::Bool => of::<u8>(array, |v, out| out.push(v)),
    }
}

/// Writes tensors and metadata to `path`, through a temporary file beside it that is synced and renamed.
///
/// # Errors
/// `Checkpoint` when the system refuses, `Config` when `load` would not read so much; an old file is then
/// as it was.
pub fn save(
    path: &Path,
    tensors: &BTreeMap<String, Array>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    if tensors.len() > MAX_TENSORS {
        return Err(Error::Config {
            argument: "save",
            expected: format!("at most {MAX_TENSORS} tensors in a file"),
            got: tensors.len().to_string(),
        });
    }
    let data: Vec<(String, Array, Vec<u8>)> =
        tensors.iter().map(|(name, array)| (name.clone(), array.clone(), bytes(array))).collect();
    let mut views = Vec::with_capacity(data.len());
    for (name, array, bytes) in &data {
        let view = TensorView::new(file_dtype(array.dtype()), array.shape().to_vec(), bytes)
            .map_err(|error| corrupt(path, &error))?;
        views.push((name.clone(), view));
    }
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let serialized = safetensors::serialize(views, Some(metadata)).map_err(|error| corrupt(path, &error))?;
    // What `load` would refuse must not take the place of a good file.
    let header = serialized.first_chunk::<8>().map_or(0, |start| u64::from_le_bytes(*start));
    if header > MAX_HEADER {
        return Err(Error::Config {
            argument: "save",
            expected: format!("at most {MAX_HEADER} bytes of names and metadata"),
            got: header.to_string(),
        });
    }
    write_atomically(path, &serialized).map_err(|source| Error::Checkpoint { path: path.to_owned(), source })
}

fn write_atomically(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    // A rename would replace a link, not the file that it names.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let (temporary, mut file) = create_beside(&path)?;
    let written =
        file.write_all(contents).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The name is durable once the folder is.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// A new file with an unused name; an existing one, link or not, is never opened.
fn create_beside(path: &Path) -> std::io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    for attempt in 0..100 {
        let candidate = path.with_file_name(format!(".{name}.{}.{attempt}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&candidate) {
            Ok(file) => return Ok((candidate, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn corrupt(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::CorruptFile { path: path.to_owned(), reason: reason.to_string() }
}

/// Reads a file that [`save`] or another safetensors writer made.
///
/// # Errors
/// `Checkpoint` when the system refuses, `CorruptFile` when the contents are not what they should be.
pub fn load(path: &Path) -> Result<Contents> {
    let system = |source| Error::Checkpoint { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(system)?;
    let length = file.metadata().map_err(system)?;
    if !length.is_file() {
        return Err(corrupt(path, &"not a regular file"));
    }
    let length = length.len();
    let mut start = [0; 8];
    if length < 10 {
        return Err(corrupt(path, &"too short for a safetensors file"));
    }
    file.read_exact(&mut start).map_err(system)?;
    let header = u64::from_le_bytes(start);
    if header > MAX_HEADER || header > length - 8 {
        return Err(corrupt(path, &format!("header of {header} bytes in a file of {length}")));
    }
    let mut contents = start.to_vec();
    file.read_to_end(&mut contents).map_err(system)?;
    let parsed = SafeTensors::deserialize(&contents).map_err(|error| corrupt(path, &error))?;
    let (_, metadata) = SafeTensors::read_metadata(&contents).map_err(|error| corrupt(path, &error))?;
    if parsed.len() > MAX_TENSORS {
        return Err(corrupt(path, &format!("{} tensors, at most {MAX_TENSORS} are read", parsed.len())));
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in parsed.iter() {
        tensors.insert(name.to_owned(), array(path, name, &view)?);
    }
    let metadata = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((tensors, metadata))
}

fn array(path: &Path, name: &str, view: &TensorView) -> Result<Array> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        other => {
            return Err(corrupt(path, &format!("tensor {name:?} has dtype {other:?}, which is not read")));
        }
    };
    if view.shape().len() > MAX_RANK {
        return Err(corrupt(path, &format!("tensor {name:?} has {} dimensions", view.shape().len())));
    }
    let shape = Dims::new("load", view.shape())?;
    let array = Array::zeros(dtype, shape)?;
    fn fill<T: Element, const N: usize>(array: &Array, data: &[u8], from_bytes: impl Fn([u8; N]) -> T) {
        for (value, bytes) in array.write::<T>().iter_mut().zip(data.chunks_exact(N)) {
            *value = from_bytes(bytes.try_into().expect("a chunk of N"));
        }
    }
    match dtype {
        DType::F32 => fill(&array, view.data(), f32::from_le_bytes),
        DType::F64 => fill(&array, view.data(), f64::from_le_bytes),
        DType::I64 => fill(&array, view.data(), i64::from_le_bytes),
        DType::U8 => fill(&array, view.data(), |[b]: [u8; 1]| b),
        DType::Bool => fill(&array, view.data(), |[b]: [u8; 1]| u8::from(b != 0)),
    }
    Ok(array)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ferrograd-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn example() -> Contents {
        let weight =
            Array::from_slice(DType::F64, Dims::from_slice(&[2, 3]), &[1.0, -2.0, 0.5, f64::NAN, 3.0, 4.0]);
        let labels = Array::from_slice(DType::I64, Dims::from_slice(&[2]), &[7i64, -9]);
        let tensors = BTreeMap::from([("w".to_owned(), weight.unwrap()), ("y".to_owned(), labels.unwrap())]);
        (tensors, BTreeMap::from([("note".to_owned(), "text".to_owned())]))
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else_is_left() {
        let folder = folder("save");
        let path = folder.join("model.safetensors");
        let (tensors, metadata) = example();
        save(&path, &tensors, &metadata).unwrap();
        save(&path, &tensors, &metadata).unwrap();
        let (back, text) = load(&path).unwrap();
        assert_eq!(text, metadata);
        assert_eq!(bytes(&back["w"]), bytes(&tensors["w"]));
        assert_eq!(bytes(&back["y"]), bytes(&tensors["y"]));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_truncation_is_refused() {
        let folder = folder("truncated");
        let path = folder.join("model.safetensors");
        let (tensors, metadata) = example();
        save(&path, &tensors, &metadata).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(load(&path), Err(Error::CorruptFile { .. })), "{length} bytes");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}

//! Sums of products by labelled dimensions, as matrix products.

use super::Index;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Dims;
use crate::tensor::Tensor;

/// A dimension's name. The dimensions that an ellipsis stands for are numbered from its last one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// A tensor whose dimensions have labels, each once.
struct Term {
    tensor: Tensor,
    labels: Vec<Label>,
}

fn wrong(expected: impl Into<String>, got: impl Into<String>) -> Error {
    Error::Config { argument: "einsum", expected: expected.into(), got: got.into() }
}

/// The labels of one side of an equation; `extra` dimensions stand for the ellipsis.
fn labels(text: &str, extra: Option<usize>) -> Result<Vec<Label>> {
    let mut found = Vec::new();
    let parts: Vec<&str> = text.split("...").collect();
    if parts.len() > 2 {
        return Err(wrong("at most one ellipsis in a term", format!("{text:?}")));
    }
    for (i, part) in parts.iter().enumerate() {
        if i == 1 {
            found.extend((0..extra.unwrap_or(0)).rev().map(Label::Ellipsis));
        }
        for letter in part.chars().filter(|c| *c != ' ') {
            if !letter.is_ascii_alphabetic() {
                return Err(wrong("letters, commas, '...' and '->'", format!("{letter:?} in {text:?}")));
            }
            found.push(Label::Letter(letter));
        }
    }
    Ok(found)
}

impl Term {
    /// The operand of a term; a label that stands twice takes the diagonal.
    fn new(text: &str, tensor: &Tensor, number: usize) -> Result<Term> {
        let letters = text.chars().filter(char::is_ascii_alphabetic).count();
        let rank = tensor.shape().rank();
        let extra = text.contains("...").then(|| rank.saturating_sub(letters));
        let labels = labels(text, extra)?;
        if labels.len() != rank {
            let (expected, got) = (format!("{letters} dimensions for {text:?}"), tensor.shape());
            return Err(Error::Shape {
                op: "einsum",
                expected,
                got: format!("operand {number} of shape {got}"),
            });
        }
        let mut term = Term { tensor: tensor.clone(), labels };
        while let Some((first, second)) = term.repeated() {
            term.take_diagonal(first, second)?;
        }
        Ok(term)
    }

    fn repeated(&self) -> Option<(usize, usize)> {
        (0..self.labels.len()).find_map(|i| {
            (i + 1..self.labels.len()).find(|&j| self.labels[i] == self.labels[j]).map(|j| (i, j))
        })
    }

    fn take_diagonal(&mut self, first: usize, second: usize) -> Result<()> {
        let shape = *self.tensor.shape();
        let size = shape[first];
        if size != shape[second] {
            return Err(Error::Broadcast {
                op: "einsum",
                left: Dims::from_slice(&[size]),
                right: Dims::from_slice(&[shape[second]]),
            });
        }
        // Side by side, so that the indexed dimension stays where they are.
        let order: Dims = (0..shape.rank())
            .filter(|&d| d != second)
            .flat_map(|d| std::iter::once(d).chain((d == first).then_some(second)))
            .collect();
        let places: Vec<i64> = (0..size as i64).collect();
        let places = Tensor::constant(Array::from_slice(DType::I64, Dims::from_slice(&[size]), &places)?);
        let index: Vec<Index> = (0..=first + 1)
            .map(|d| match d {
                d if d >= first => Index::Tensor(places.clone()),
                d => Index::Slice { start: 0, length: shape[d], step: 1 },
            })
            .collect();
        self.tensor = self.tensor.permute(&order)?.index(&index)?;
        self.labels.remove(second);
        Ok(())
    }

    fn size(&self, label: Label) -> Option<usize> {
        self.labels.iter().position(|&l| l == label).map(|d| self.tensor.shape()[d])
    }

    /// Summed over the labels that `keep` refuses.
    fn reduced(mut self, keep: impl Fn(Label) -> bool) -> Result<Term> {
        let dims: Vec<isize> =
            (0..self.labels.len()).filter(|&d| !keep(self.labels[d])).map(|d| d as isize).collect();
        if !dims.is_empty() {
            self.tensor = self.tensor.sum(&dims, false)?;
            self.labels.retain(|&label| keep(label));
        }
        Ok(self)
    }

    /// With exactly these labels, in this order, those it lacks as dimensions of 1.
    fn arranged(&self, labels: &[Label]) -> Result<Tensor> {
        let own: Vec<Label> = labels.iter().copied().filter(|l| self.labels.contains(l)).collect();
        let order: Dims =
            own.iter().map(|l| self.labels.iter().position(|m| m == l).expect("one of its own")).collect();
        let shape: Vec<usize> = labels.iter().map(|&l| self.size(l).unwrap_or(1)).collect();
        self.tensor.permute(&order)?.reshape(&Dims::new("einsum", &shape)?)
    }

    /// The product with another term, summed over the labels of both that `keep` refuses: a batch of matrix
    /// products, (shared and kept, left only, shared and summed) by (..., shared and summed, right only).
    fn times(self, other: Term, keep: impl Fn(Label) -> bool) -> Result<Term> {
        // What only one of them has and nobody needs is summed first.
        let (mine, theirs) = (self.labels.clone(), other.labels.clone());
        let left = self.reduced(|l| keep(l) || theirs.contains(&l))?;
        let right = other.reduced(|l| keep(l) || mine.contains(&l))?;
        let (mut batch, mut rows, mut summed, mut columns) = (vec![], vec![], vec![], vec![]);
        for &label in &left.labels {
            match (right.labels.contains(&label), keep(label)) {
                (true, true) => batch.push(label),
                (true, false) => summed.push(label),
                (false, _) => rows.push(label),
            }
        }
        columns.extend(right.labels.iter().copied().filter(|l| !left.labels.contains(l)));
        // A dimension of 1 is stretched to the other's size.
        let size = |label: Label| match (left.size(label), right.size(label)) {
            (Some(1) | None, Some(size)) => size,
            (size, _) => size.unwrap_or(1),
        };
        let width = |labels: &[Label]| labels.iter().map(|&l| size(l)).product::<usize>();
        let matrix = |term: &Term, first: &[Label], second: &[Label]| -> Result<Tensor> {
            let all = [&batch, first, second].concat();
            let full: Vec<usize> = all.iter().map(|&l| size(l)).collect();
            let lead = (!batch.is_empty()).then(|| width(&batch));
            let shape: Dims = lead.into_iter().chain([width(first), width(second)]).collect();
            term.arranged(&all)?.broadcast_to(&Dims::new("einsum", &full)?)?.reshape(&shape)
        };
        let (a, b) = (matrix(&left, &rows, &summed)?, matrix(&right, &summed, &columns)?);
        // Without rows and columns a matrix product has no work for its tiles; integers have none at all.
        let product = if !a.dtype().is_float() || rows.is_empty() && columns.is_empty() {
            a.unsqueeze(-2)?.mul(&b.transpose(-1, -2)?.unsqueeze(-3)?)?.sum(&[-1], false)?
        } else {
            a.matmul(&b)?
        };
        let labels: Vec<Label> = batch.iter().chain(&rows).chain(&columns).copied().collect();
        let shape: Vec<usize> = labels.iter().map(|&l| size(l)).collect();
        Ok(Term { tensor: product.reshape(&Dims::new("einsum", &shape)?)?, labels })
    }
}

impl Tensor {
    /// Sums of products: `"ij,jk->ik"` is a matrix product. Labels of the result stay, the others are summed.
    ///
    /// # Errors
    /// `Config` for an equation that does not hold, `Shape` and `Broadcast` for operands that do not fit it.
    pub fn einsum(equation: &str, operands: &[Tensor]) -> Result<Tensor> {
        let (inputs, output) = match equation.split_once("->") {
            Some((inputs, output)) => (inputs, Some(output)),
            None => (equation, None),
        };
        let texts: Vec<&str> = inputs.split(',').collect();
        if texts.len() != operands.len() || operands.is_empty() {
            let expected = format!("{} operands for {equation:?}", texts.len());
            return Err(wrong(expected, operands.len().to_string()));
        }
        let mut terms = Vec::new();
        let dtype =
            operands.iter().fold(operands[0].dtype(), |d, t| DType::promote(d, false, t.dtype(), false));
        let dtype = if dtype.is_float() { dtype } else { DType::I64 };
        for (number, (text, operand)) in texts.iter().zip(operands).enumerate() {
            terms.push(Term::new(text, &operand.cast(dtype)?, number)?);
        }
        check_sizes(&terms)?;
        let all: Vec<Label> = terms.iter().flat_map(|term| term.labels.iter().copied()).collect();
        let extra =
            all.iter().filter_map(|l| if let Label::Ellipsis(n) = l { Some(n + 1) } else { None }).max();
        let wanted = match output {
            Some(text) => labels(text, extra)?,
            None => implied(&all, inputs, extra),
        };
        for (i, label) in wanted.iter().enumerate() {
            if wanted[..i].contains(label) || !all.contains(label) {
                let expected = "each label of the result once, and in an operand";
                return Err(wrong(expected, format!("{equation:?}")));
            }
        }
        let mut rest = terms.into_iter();
        let mut result = rest.next().expect("as many terms as operands");
        while let Some(term) = rest.next() {
            let later: Vec<Label> = rest.as_slice().iter().flat_map(|term| term.labels.clone()).collect();
            result = result.times(term, |label| wanted.contains(&label) || later.contains(&label))?;
        }
        result.reduced(|label| wanted.contains(&label))?.arranged(&wanted)
    }
}

/// A label has one size, but for dimensions of 1, which are stretched.
fn check_sizes(terms: &[Term]) -> Result<()> {
    let mut sizes: Vec<(Label, usize)> = Vec::new();
    for (label, size) in
        terms.iter().flat_map(|term| term.labels.iter().copied().zip(term.tensor.shape().iter().copied()))
    {
        match sizes.iter_mut().find(|(l, _)| *l == label) {
            Some((_, known)) if *known == 1 => *known = size,
            Some((_, known)) if *known == size || size == 1 => {}
            Some((_, known)) => {
                let (left, right) = (Dims::from_slice(&[*known]), Dims::from_slice(&[size]));
                return Err(Error::Broadcast { op: "einsum", left, right });
            }
            None => sizes.push((label, size)),
        }
    }
    Ok(())
}

/// Without "->": the ellipsis, then the letters that stand once, in alphabetical order.
fn implied(all: &[Label], inputs: &str, extra: Option<usize>) -> Vec<Label> {
    let mut once: Vec<Label> = all
        .iter()
        .copied()
        .filter(|l| matches!(l, Label::Letter(c) if inputs.matches(*c).count() == 1))
        .collect();
    once.sort_unstable();
    (0..extra.unwrap_or(0)).rev().map(Label::Ellipsis).chain(once).collect()
}

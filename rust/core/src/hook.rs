//! What few nodes have: hooks, which callers attach to a tensor to see, or to replace, its gradient, and the place
//! where it was made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::anomaly::Place;
use crate::error::{Error, Result};
use crate::tensor::{Node, Tensor};

/// Gets the whole gradient of a tensor; what it returns takes its place.
pub type Hook = Arc<dyn Fn(&Tensor) -> Result<Option<Tensor>> + Send + Sync>;

/// The hooks of a node, and its place. Next to no node has any: a pointer is all that the others pay for.
#[derive(Default)]
pub(crate) struct Hooks(OnceLock<Box<Mutex<List>>>);

#[derive(Default)]
struct List {
    entries: Vec<(u64, Hook)>,
    changed: u64,
    place: Option<Place>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Hooks {
    fn list(&self) -> Option<MutexGuard<'_, List>> {
        self.0.get().map(|list| list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Node {
    /// Adds a hook behind the others; returns its number.
    pub fn add_hook(&self, hook: Hook) -> u64 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let list = self.hooks().0.get_or_init(Box::default);
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        list.entries.push((number, hook));
        list.changed = number;
        number
    }

    /// Takes a hook away; nothing happens if it is gone.
    pub fn remove_hook(&self, number: u64) {
        let Some(mut list) = self.hooks().list() else { return };
        let Some(at) = list.entries.iter().position(|(other, _)| *other == number) else { return };
        let removed = list.entries.remove(at);
        list.changed = NEXT.fetch_add(1, Ordering::Relaxed);
        // What a hook owns may take this lock when it is dropped.
        drop(list);
        drop(removed);
    }

    /// Where it was made, if somebody looked for anomalies then.
    pub fn place(&self) -> Option<Place> {
        self.hooks().list()?.place.clone()
    }

    /// Sets where it was made.
    pub(crate) fn set_place(&self, place: Place) {
        let list = self.hooks().0.get_or_init(Box::default);
        list.lock().unwrap_or_else(PoisonError::into_inner).place = Some(place);
    }

    /// A number that changes with each hook that comes or goes; 0 before the first.
    pub fn hooks_version(&self) -> u64 {
        self.hooks().list().map_or(0, |list| list.changed)
    }

    /// The gradient after all hooks, in the order of their making.
    ///
    /// # Errors
    /// Those of the hooks; `Shape` or `DType` where one returns a gradient that does not fit.
    pub(crate) fn pass_hooks(&self, grad: Tensor) -> Result<Tensor> {
        let Some(list) = self.hooks().list() else { return Ok(grad) };
        // A hook may remove itself: none runs under the lock.
        let hooks: Vec<Hook> = list.entries.iter().map(|(_, hook)| hook.clone()).collect();
        drop(list);
        hooks.iter().try_fold(grad, |grad, hook| {
            let Some(found) = hook(&grad)? else { return Ok(grad) };
            if found.shape() != self.shape() {
                return Err(Error::Shape {
                    op: "register_hook",
                    expected: format!("a gradient of shape {}", self.shape()),
                    got: found.shape().to_string(),
                });
            }
            if found.dtype() != self.dtype() {
                let expected = self.dtype().name();
                return Err(Error::DType { op: "register_hook", expected, got: found.dtype() });
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backward::grad;
    use crate::dtype::DType;

    #[test]
    fn hooks_see_the_whole_gradient_in_order_and_may_be_removed() {
        let x = Tensor::scalar(DType::F64, 3.0).unwrap();
        x.set_requires_grad(true).unwrap();
        let middle = x.add_scalar(0.0).unwrap();
        assert_eq!(middle.node().hooks_version(), 0);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let first = middle.node().add_hook(Arc::new(move |grad| {
            log.lock().unwrap().push(grad.item()?);
            Ok(None)
        }));
        middle.node().add_hook(Arc::new(|grad| grad.add(grad).map(Some)));
        let y = middle.mul(&middle).unwrap();
        let gradient = |y: &Tensor| {
            let found = grad(std::slice::from_ref(y), std::slice::from_ref(&x), &[], true, false);
            found.unwrap()[0].clone()
        };
        assert_eq!(gradient(&y).unwrap().item().unwrap(), 12.0);
        assert_eq!(*seen.lock().unwrap(), [6.0]);
        let before = middle.node().hooks_version();
        middle.node().remove_hook(first);
        assert_ne!(middle.node().hooks_version(), before);
        gradient(&y);
        assert_eq!(seen.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_gradient_that_does_not_fit_is_refused() {
        let x = Tensor::scalar(DType::F64, 3.0).unwrap();
        x.set_requires_grad(true).unwrap();
        let y = x.add_scalar(1.0).unwrap();
        x.node().add_hook(Arc::new(|_| Tensor::scalar(DType::F32, 1.0).map(Some)));
        assert!(matches!(y.backward(None, false, false), Err(Error::DType { op: "register_hook", .. })));
    }
}

//! A queue whose first element lies in place.

use std::collections::VecDeque;

/// Elements in order, the first of them in place: a queue of one, which most are, touches no other memory.
#[derive(Debug)]
pub(super) struct Fifo<T> {
    /// INVARIANT: there is one unless the queue is empty.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Fifo { first: None, rest: VecDeque::new() }
    }
}

impl<T> Fifo<T> {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut T> {
        if self.rest.is_empty() { self.first.as_mut() } else { self.rest.back_mut() }
    }

    #[inline]
    pub(super) fn push_back(&mut self, element: T) {
        if self.first.is_none() {
            self.first = Some(element);
        } else {
            self.push_behind(element);
        }
    }

    #[cold]
    fn push_behind(&mut self, element: T) {
        self.rest.push_back(element);
    }

    pub(super) fn push_front(&mut self, element: T) {
        if let Some(second) = self.first.replace(element) {
            self.rest.push_front(second);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<T> {
        if self.rest.is_empty() { self.first.take() } else { self.pop_of_several() }
    }

    #[cold]
    fn pop_of_several(&mut self) -> Option<T> {
        let next = self.rest.pop_front();
        std::mem::replace(&mut self.first, next)
    }

    /// The only element, where there is one alone.
    pub(super) fn only(&self) -> Option<&T> {
        if self.rest.is_empty() { self.first.as_ref() } else { None }
    }

    /// Moves everything of `other` to the end.
    #[inline]
    pub(super) fn append(&mut self, other: &mut Fifo<T>) {
        if self.first.is_none() && other.rest.is_empty() {
            std::mem::swap(&mut self.first, &mut other.first);
        } else {
            self.append_several(other);
        }
    }

    #[cold]
    fn append_several(&mut self, other: &mut Fifo<T>) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else if let Some(first) = other.first.take() {
            self.rest.push_back(first);
            self.rest.append(&mut other.rest);
        }
    }

    /// Takes the first element and leaves the others where they are: [`Fifo::clear_rest`] must follow.
    #[inline]
    pub(super) fn take_first(&mut self) -> Option<T> {
        self.first.take()
    }

    /// Drops all elements but the first.
    #[inline]
    pub(super) fn clear_rest(&mut self) {
        if !self.rest.is_empty() {
            self.clear_several();
        }
    }

    #[cold]
    fn clear_several(&mut self) {
        self.rest.clear();
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.first.iter().chain(self.rest.iter())
    }

    /// Takes the last `count` elements.
    pub(super) fn split_tail(&mut self, count: usize) -> Vec<T> {
        if count > self.rest.len() {
            std::mem::take(self).into_iter().collect()
        } else {
            self.rest.drain(self.rest.len() - count..).collect()
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.rest)
    }

    pub(super) fn extend(&mut self, elements: impl IntoIterator<Item = T>) {
        elements.into_iter().for_each(|element| self.push_back(element));
    }
}

//! Empty request bodies, which the cache sends with requests of its own.

/// Makes empty request bodies for requests that the cache sends itself.
///
/// These are repeated requests and background refreshes of GET and HEAD.
pub trait EmptyBody<B>: Clone + Send + 'static {
    /// Returns a body without content.
    fn make(&self) -> B;
}

/// Makes empty bodies by `Default`.
///
/// This is what a [`CacheLayer`](crate::CacheLayer) uses, unless [`empty_body`](crate::CacheLayer::empty_body) is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultBody;

impl<B: Default> EmptyBody<B> for DefaultBody {
    fn make(&self) -> B {
        B::default()
    }
}

/// Makes empty bodies by a function.
///
/// It is set by [`CacheLayer::empty_body`](crate::CacheLayer::empty_body).
#[derive(Clone, Copy, Debug)]
pub struct FnBody<F>(pub(crate) F);

impl<B, F: Fn() -> B + Clone + Send + 'static> EmptyBody<B> for FnBody<F> {
    fn make(&self) -> B {
        (self.0)()
    }
}

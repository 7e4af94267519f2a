//! stub
use crate::error::{Error, Result};
/// A pattern.
#[derive(Clone, Debug)]
pub struct UrlPattern(String);
impl UrlPattern {
    /// A glob.
    pub fn glob(text: &str) -> Result<Self> {
        Ok(Self(text.to_owned()))
    }
    pub(crate) fn matches(&self, url: &str) -> bool {
        url.contains(&self.0)
    }
}
impl std::str::FromStr for UrlPattern {
    type Err = Error;
    fn from_str(t: &str) -> Result<Self> {
        Self::glob(t)
    }
}

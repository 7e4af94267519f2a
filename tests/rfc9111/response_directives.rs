//! response_directives

//! request_directives

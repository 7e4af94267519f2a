#![doc = include_str!("conformance.md")]

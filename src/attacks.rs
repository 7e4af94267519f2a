#![doc = include_str!("attacks.md")]

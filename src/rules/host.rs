//! Patterns of hosts: whole labels, compared from the last one, so that no name ends in another's domain by accident.

use std::net::Ipv6Addr;

use crate::error::Result;

use super::glob::{Glob, malformed};

#[derive(Clone, Debug)]
pub(super) enum HostPattern {
    Any,
    /// An IPv6 address with its brackets.
    Address(Box<str>),
    Name {
        lead: Lead,
        /// From the last label to the first.
        labels: Box<[Glob]>,
    },
}

/// What may stand before the labels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lead {
    Nothing,
    Subdomain,
    SubdomainOrNothing,
}

impl HostPattern {
    pub(super) fn new(host: &str) -> Result<Self> {
        let host = host.to_ascii_lowercase();
        if let Some(inside) = host.strip_prefix('[') {
            let address = inside.strip_suffix(']').map(str::parse::<Ipv6Addr>);
            return match address {
                Some(Ok(_)) => Ok(Self::Address(host.into())),
                _ => Err(malformed("URL pattern: no IPv6 address in the brackets, or no closing one")),
            };
        }
        if host.contains(['[', ']', ':']) {
            return Err(malformed("URL pattern: an IPv6 address is written in brackets, as in [::1]:8080"));
        }
        if host.contains('@') {
            return Err(malformed("URL pattern: no user or password is part of it"));
        }
        if host.contains(['%', '\\', '"', '<', '>', '^', '`', '{', '|', '}']) {
            return Err(malformed("URL pattern: a character that no host name has, and no wildcard"));
        }
        if host == "*" || host == "**" {
            return Ok(Self::Any);
        }
        let (lead, rest) = match host.split_once('.') {
            Some(("*", rest)) => (Lead::Subdomain, rest),
            Some(("**", rest)) => (Lead::SubdomainOrNothing, rest),
            _ => (Lead::Nothing, &*host),
        };
        if rest.split('.').any(str::is_empty) {
            return Err(malformed("URL pattern: the host is missing or has an empty label"));
        }
        Ok(Self::Name { lead, labels: rest.rsplit('.').map(Glob::new).collect::<Result<_>>()? })
    }

    /// `host` is in lower case.
    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Address(address) => **address == *host,
            // A name with empty labels is another than the one without, and no star stands for nothing.
            Self::Name { .. } if host.starts_with('[') || host.split('.').any(str::is_empty) => false,
            Self::Name { lead, labels } => {
                let mut found = host.rsplit('.');
                labels.iter().all(|label| found.next().is_some_and(|found| label.matches(found.as_bytes())))
                    && match lead {
                        Lead::Nothing => found.next().is_none(),
                        Lead::Subdomain => found.next().is_some(),
                        Lead::SubdomainOrNothing => true,
                    }
            }
        }
    }
}

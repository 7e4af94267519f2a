//! Who owns a slot of a cluster, by what its nodes say.
//!
//! # Invariants
//!
//! - A slot has an owner only if that node itself says that it is a master, that its part of the cluster works, that it owns the
//!   slot, and that the slot is not moving.
//! - No other node that is asked says that the slot belongs to a third one. A master that was replaced, and does not know it yet,
//!   is contradicted by the others.

use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The number of slots of every cluster.
pub(super) const SLOTS: usize = 1 << 14;

/// What a node says about the cluster, in the answers to `CLUSTER INFO` and `CLUSTER NODES`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The identifier of the node that says it.
    pub(super) id: String,
    /// Whether its part of the cluster works. A node that has lost the majority of the masters knows nothing any more.
    pub(super) is_ok: bool,
    pub(super) is_master: bool,
    /// The version of what this node owns.
    pub(super) config_epoch: u64,
    /// The slots that this node is about to give or to take.
    pub(super) moving: Vec<u16>,
    /// The masters that have slots.
    pub(super) masters: Vec<Master>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) id: String,
    pub(super) address: Address,
    pub(super) slots: Vec<RangeInclusive<u16>>,
}

/// Where a node can be reached, as it announces itself. Either part may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: String,
    pub(super) hostname: String,
    pub(super) port: u16,
}

impl View {
    /// Parses the two answers. Returns `None` if they are not what a node of a cluster says.
    pub(super) fn parse(info: &str, nodes: &str) -> Option<Self> {
        let is_ok = info.lines().any(|line| line.trim() == "cluster_state:ok");
        let mut view = Self { is_ok, ..Self::default() };
        for line in nodes.lines() {
            // <id> <address> <flags> <master> <ping> <pong> <config epoch> <link> [<slots> …]
            let mut words = line.split_whitespace();
            let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
            let config_epoch = words.nth(3)?.parse().ok()?;
            let (is_me, is_master) = (has(flags, "myself"), has(flags, "master"));
            let mut slots = Vec::new();
            for word in words.skip(1) {
                // `[<slot>->-<id>]` or `[<slot>-<-<id>]`, which a node only says of itself.
                if let Some(moving) = word.strip_prefix('[') {
                    view.moving.push(moving.split('-').next()?.parse().ok()?);
                } else {
                    let (first, last) = word.split_once('-').unwrap_or((word, word));
                    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
                    if usize::from(last) >= SLOTS {
                        return None;
                    }
                    slots.push(first..=last);
                }
            }
            if is_me {
                view.id = id.to_owned();
                (view.is_master, view.config_epoch) = (is_master, config_epoch);
            }
            if is_master && !slots.is_empty() {
                let master = Master { id: id.to_owned(), address: Address::parse(address)?, slots };
                view.masters.push(master);
            }
        }
        (!view.id.is_empty()).then_some(view)
    }
}

fn has(flags: &str, flag: &str) -> bool {
    flags.split(',').any(|word| word == flag)
}

impl Address {
    pub(super) fn is_empty(&self) -> bool {
        self.ip.is_empty() && self.hostname.is_empty()
    }

    /// Parses `<ip>:<port>@<port of the bus>[,<hostname>[,…]]`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let (ip, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
        let hostname = parts.next().filter(|name| !name.contains('=')).unwrap_or_default();
        Some(Self { ip: ip.to_owned(), hostname: hostname.to_owned(), port: port.parse().ok()? })
    }
}

/// Who owns a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// No node, or the nodes contradict each other.
    Unknown,
    /// All nodes that say something say that it is this one. It need not say so itself.
    Named(u16),
    /// The node says so itself, and keeps the slot.
    Confirmed(u16),
}

/// Returns who owns each slot, by the views of the nodes that answer.
///
/// `numbers` are the numbers of the masters, by identifier. A node without a number owns nothing.
pub(super) fn owners<'a>(
    views: impl Iterator<Item = &'a View>,
    numbers: &HashMap<String, u16>,
) -> Vec<Owner> {
    const NOBODY: u16 = 0;
    const DISPUTED: u16 = u16::MAX;
    let mut named = vec![NOBODY; SLOTS];
    let mut confirmed = vec![NOBODY; SLOTS];
    for view in views.filter(|view| view.is_ok) {
        for master in &view.masters {
            let number = numbers.get(&master.id).copied().unwrap_or(DISPUTED);
            let confirms = master.id == view.id && view.is_master;
            for slot in master.slots.iter().cloned().flatten().map(usize::from) {
                if named[slot] == NOBODY {
                    named[slot] = number;
                } else if named[slot] != number {
                    named[slot] = DISPUTED;
                }
                if confirms {
                    confirmed[slot] = number;
                }
            }
        }
        for slot in view.moving.iter().map(|slot| usize::from(*slot) % SLOTS) {
            // The node that takes it says so as well. Either is enough.
            named[slot] = DISPUTED;
        }
    }
    let owner = |(named, confirmed)| match named {
        NOBODY | DISPUTED => Owner::Unknown,
        number if number == confirmed => Owner::Confirmed(number),
        number => Owner::Named(number),
    };
    named.into_iter().zip(confirmed).map(owner).collect()
}

/// Returns the slot of a hash tag, by CRC-16 as the
/// [cluster specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model)
/// defines it.
pub(super) fn slot_of(tag: &[u8]) -> usize {
    let crc = tag.iter().fold(0u16, |crc, byte| (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)]);
    usize::from(crc) % SLOTS
}

/// The remainders of each byte.
static CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "cluster_enabled:1\r\ncluster_state:ok\r\n";

    fn numbers() -> HashMap<String, u16> {
        [("aa", 1), ("bb", 2), ("cc", 3)].map(|(id, number)| (id.to_owned(), number)).into()
    }

    /// Returns what a node says, whose lines are `id flags slots`.
    fn view(me: &str, lines: &[&str]) -> View {
        let line = |line: &&str| {
            let mut words = line.splitn(3, ' ');
            let (id, flags, slots) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
            let me = if id == me { "myself," } else { "" };
            format!("{id} 10.0.0.1:7000@17000 {me}{flags} - 0 0 1 connected {slots}\n")
        };
        View::parse(INFO, &lines.iter().map(line).collect::<String>()).unwrap()
    }

    fn owner(views: &[View], slot: usize) -> Owner {
        owners(views.iter(), &numbers())[slot]
    }

    #[test]
    fn answer_of_a_server_is_parsed() {
        let nodes = "07c3 127.0.0.1:30004@31004,hostname4 slave e7d1 0 1426238317239 4 connected\n\
                     67ed 127.0.0.1:30002@31002,,shard-id=x master,fail - 0 1426238316232 2 connected 5461-10922\n\
                     e7d1 :30001@31001 myself,master - 0 0 7 connected 0-5459 5460 [93-<-67ed] [7->-67ed]\n";
        let view = View::parse(INFO, nodes).unwrap();
        assert_eq!((&*view.id, view.is_ok, view.is_master, view.config_epoch), ("e7d1", true, true, 7));
        assert_eq!(view.moving, [93, 7]);
        let [failed, mine] = &view.masters[..] else { panic!("{view:?}") };
        assert_eq!((failed.address.ip.as_str(), failed.address.port), ("127.0.0.1", 30002));
        assert_eq!((failed.address.hostname.as_str(), mine.address.ip.as_str()), ("", ""));
        assert_eq!(mine.slots, [0..=5459, 5460..=5460]);
        let named = View::parse(INFO, "a 10.0.0.1:7@8,host myself,master - 0 0 1 connected 3\n").unwrap();
        assert_eq!(named.masters[0].address.hostname, "host");
        let ipv6 = View::parse(INFO, "a ::1:7@8 myself,master - 0 0 1 connected 3\n").unwrap();
        assert_eq!((&*ipv6.masters[0].address.ip, ipv6.masters[0].address.port), ("::1", 7));
    }

    #[test]
    fn other_answers_are_refused() {
        for nodes in [
            "",
            "x",
            "a b c",
            "a :1@2 master - 0 0 1 connected 3",
            "a :1@2 myself,master - 0 0 1 connected 16384",
        ] {
            assert_eq!(View::parse(INFO, nodes), None, "{nodes}");
        }
    }

    #[test]
    fn owner_confirms_its_slot_itself() {
        let (a, b) = (["aa master 0-9", "bb master 10-19"], ["aa master 0-9", "bb master 10-19"]);
        let views = [view("aa", &a), view("bb", &b)];
        assert_eq!(owner(&views, 5), Owner::Confirmed(1));
        assert_eq!(owner(&views, 15), Owner::Confirmed(2));
        assert_eq!(owner(&views, 25), Owner::Unknown);
        // Without its connection, the others only name it.
        assert_eq!(owner(&views[1..], 5), Owner::Named(1));
    }

    #[test]
    fn replaced_master_is_contradicted_by_others() {
        // `aa` does not know yet that `cc` was promoted.
        let stale = view("aa", &["aa master 0-9", "bb master 10-19"]);
        let other = view("bb", &["cc master 0-9", "bb master 10-19"]);
        let promoted = view("cc", &["cc master 0-9", "bb master 10-19"]);
        assert_eq!(owner(&[stale.clone(), other.clone()], 5), Owner::Unknown);
        assert_eq!(owner(&[stale.clone(), promoted.clone()], 5), Owner::Unknown);
        assert_eq!(owner(&[stale, other.clone()], 15), Owner::Confirmed(2));
        let demoted = view("aa", &["aa slave", "cc master 0-9", "bb master 10-19"]);
        assert_eq!(owner(&[demoted, other, promoted], 5), Owner::Confirmed(3));
    }

    #[test]
    fn moving_slot_has_no_owner() {
        let from = view("aa", &["aa master 0-9 [5->-bb]", "bb master 10-19"]);
        let to = view("bb", &["aa master 0-9", "bb master 10-19 [5-<-aa]"]);
        let still = view("aa", &["aa master 0-9", "bb master 10-19"]);
        assert_eq!(owner(std::slice::from_ref(&from), 5), Owner::Unknown);
        assert_eq!(owner(&[still.clone(), to.clone()], 5), Owner::Unknown);
        assert_eq!(owner(&[from, to], 6), Owner::Confirmed(1));
        // The new owner knows that it has the slot, the old one not yet.
        let moved = view("bb", &["aa master 0-4 6-9", "bb master 5 10-19"]);
        assert_eq!(owner(&[still, moved.clone()], 5), Owner::Unknown);
        let agreed = view("aa", &["aa master 0-4 6-9", "bb master 5 10-19"]);
        assert_eq!(owner(&[agreed, moved], 5), Owner::Confirmed(2));
    }

    #[test]
    fn node_without_the_majority_is_not_asked() {
        let (lines, mut alone) = (["aa master 0-9", "bb master 10-19"], view("aa", &["aa master 0-19"]));
        assert_eq!(owner(std::slice::from_ref(&alone), 15), Owner::Confirmed(1));
        alone.is_ok = false;
        assert_eq!(owner(std::slice::from_ref(&alone), 15), Owner::Unknown);
        assert_eq!(owner(&[alone, view("bb", &lines)], 15), Owner::Confirmed(2));
        let without =
            View::parse("cluster_state:fail", "a :1@2 myself,master - 0 0 1 connected 3\n").unwrap();
        assert!(!without.is_ok);
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        assert_eq!((slot_of(b"foo"), slot_of(b"")), (12182, 0));
    }
}

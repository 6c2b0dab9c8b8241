//! Which of several independent servers a channel lives on.
//!
//! Rendezvous hashing: every server bids for the channel, and the highest bid has it. A bid is the SHA-1 of the server's
//! place in the list, a colon and the channel's name, so that a publisher in any language computes the same in a line or
//! two. A further server at the end of the list takes its share from all others and moves nothing between them.

use sha1_smol::Sha1;
use tidegate_protocol::ChannelName;

/// The server's place in a list of `servers`, from 0 on.
pub(super) fn place(channel: &ChannelName, servers: usize) -> usize {
    (0..servers).max_by_key(|place| bid(*place, channel)).unwrap_or(0)
}

fn bid(place: usize, channel: &ChannelName) -> [u8; 20] {
    let mut hash = Sha1::new();
    hash.update(place.to_string().as_bytes());
    hash.update(b":");
    hash.update(channel.as_str().as_bytes());
    hash.digest().bytes()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name).unwrap()
    }

    /// The rows of the table in docs/reference/redis-contract.md, as Python computed them.
    #[test]
    fn the_places_are_pinned() {
        let page = include_str!("../../../../docs/reference/redis-contract.md");
        let (_, table) = page.split_once("| channel | of 2 |").unwrap();
        let mut compared = 0;
        for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let name = channel(cells[0].trim_matches('`'));
            for (servers, cell) in [2, 3, 5, 8].into_iter().zip(&cells[1..]) {
                assert_eq!(place(&name, servers).to_string(), **cell, "{name} of {servers}");
                compared += 1;
            }
        }
        assert_eq!(compared, 24);
    }

    #[test]
    fn channels_are_spread_evenly_and_a_further_server_moves_only_its_share() {
        let names: Vec<_> = (0..30_000).map(|n| channel(&format!("chat:{n}"))).collect();
        let mut share = [0; 3];
        let mut moved = 0;
        for name in &names {
            let (of_three, of_four) = (place(name, 3), place(name, 4));
            share[of_three] += 1;
            moved += usize::from(of_four != of_three);
            assert!(of_four == of_three || of_four == 3, "{name} moved between old servers");
        }
        assert!(share.iter().all(|share| (9_500..10_500).contains(share)), "{share:?}");
        assert!((7_000..8_000).contains(&moved), "{moved}");
    }
}

//! Slots of a cluster: which one a name is in, and which server has it.
//!
//! Pure. Not here: asking for the table (`cluster`).

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// Where a master is: what its clients connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The slot of a key or channel: of what stands in its first braces, where something does.
pub(super) fn slot(name: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', name).and_then(|open| {
        let rest = &name[open + 1..];
        let close = memchr::memchr(b'}', rest)?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(name)) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification of Redis has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |mut crc, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
        crc
    })
}

/// What a server says of a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    place: Place,
    /// The configuration epoch: of two masters that claim a slot, the higher one has it.
    epoch: u64,
    /// First and last of each range.
    slots: Vec<(u16, u16)>,
}

/// Reads the answer to CLUSTER NODES: what the `asked` server knows of masters with slots. A server that does not know its
/// own address is where it was asked. `by_name`: hosts are called by their names, where they have one, as certificates do.
pub(super) fn claims(answer: &str, asked: &Place, by_name: bool) -> Option<Vec<Claim>> {
    let mut claims = Vec::new();
    for line in answer.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_id, address, flags, _master, _ping, _pong, epoch, _link, slots @ ..] = words.as_slice() else {
            return None;
        };
        // A migrating slot stands in brackets besides, and is still its master's.
        let slots: Vec<&str> = slots.iter().copied().filter(|slots| !slots.starts_with('[')).collect();
        if !flags.split(',').any(|flag| flag == "master") || slots.is_empty() {
            continue;
        }
        let range = |text: &&str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let range: (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
            (range.0 <= range.1 && range.1 < SLOTS).then_some(range)
        };
        claims.push(Claim {
            place: place(address, asked, by_name)?,
            epoch: epoch.parse().ok()?,
            slots: slots.iter().map(range).collect::<Option<_>>()?,
        });
    }
    Some(claims)
}

/// Reads `ip:port@bus,hostname`, of which only the port is sure to be there.
fn place(address: &str, asked: &Place, by_name: bool) -> Option<Place> {
    let mut parts = address.split(',');
    let (ip, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
    let name = parts.next().filter(|name| by_name && !name.is_empty() && !name.contains('='));
    let host = name.or(Some(ip).filter(|ip| !ip.is_empty())).unwrap_or(&asked.host);
    Some(Place { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
}

/// Which master has which slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The masters that have slots, sorted.
    masters: Vec<Place>,
    /// For each slot one of them, or none.
    owners: Vec<Option<u16>>,
}

impl Table {
    /// Every slot is this one's: what is thought before anything is known.
    pub(super) fn all(place: Place) -> Self {
        Self { masters: vec![place], owners: vec![Some(0); usize::from(SLOTS)] }
    }

    /// Out of what several servers say.
    pub(super) fn of(mut claims: Vec<Claim>) -> Self {
        // The highest epoch comes last, and has the last word.
        claims.sort_by_key(|claim| claim.epoch);
        let mut owners: Vec<Option<&Place>> = vec![None; usize::from(SLOTS)];
        for claim in &claims {
            for (first, last) in &claim.slots {
                if let Some(range) = owners.get_mut(usize::from(*first)..=usize::from(*last)) {
                    range.fill(Some(&claim.place));
                }
            }
        }
        let mut masters: Vec<Place> = owners.iter().flatten().map(|place| (*place).clone()).collect();
        masters.sort();
        masters.dedup();
        let number = |place: &Place| u16::try_from(masters.binary_search(place).ok()?).ok();
        let owners = owners.into_iter().map(|owner| number(owner?)).collect();
        Self { masters, owners }
    }

    /// The masters that have slots.
    pub(super) fn masters(&self) -> &[Place] {
        &self.masters
    }

    /// Who has the slot of this name.
    pub(super) fn owner(&self, name: &[u8]) -> Option<&Place> {
        let owner = *self.owners.get(usize::from(slot(name)))?;
        self.masters.get(usize::from(owner?))
    }

    /// Whether every slot has a master.
    pub(super) fn is_whole(&self) -> bool {
        self.owners.iter().all(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of CRC-16/XMODEM; the others as CLUSTER KEYSLOT gives them.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"tg:{news}"), 5161);
        assert_eq!(slot(b"tg:{news}:log"), 5161);
        assert_eq!(slot("tg:{chat:größe}".as_bytes()), 6729);
        assert_eq!(slot(b"tg:control"), crc16(b"tg:control") % SLOTS);
        // Without anything in the first braces, the whole name counts.
        assert_eq!(slot(b"a{}b{c}"), crc16(b"a{}b{c}") % SLOTS);
        assert_eq!(slot(b"a{b"), crc16(b"a{b") % SLOTS);
    }

    fn asked() -> Place {
        Place { host: "seed".into(), port: 7000 }
    }

    const VIEW: &str = "\
        aa 10.0.0.1:7001@17001,one.example myself,master - 0 0 5 connected 0-5000 9001 [77->-bb]\n\
        bb :7002@17002 master,fail? - 0 1 2 connected 5001-9000\n\
        cc 10.0.0.3:7003@17003 slave aa 0 1 5 connected\n\
        dd 10.0.0.4:7004@17004,,tls-port=1 master - 0 1 0 connected\n";

    #[test]
    fn a_table_says_who_has_a_name() {
        let table = Table::of(claims(VIEW, &asked(), false).unwrap());
        assert_eq!(table.masters().len(), 2, "those that have slots");
        assert_eq!(table.owner(b"tg:{news}").unwrap().to_string(), "seed:7002");
        assert!(!table.is_whole());
        let of_slot =
            |wanted: u16| (0..).map(|n| format!("{n}")).find(|name| slot(name.as_bytes()) == wanted);
        assert_eq!(table.owner(of_slot(9001).unwrap().as_bytes()).unwrap().to_string(), "10.0.0.1:7001");
        assert_eq!(table.owner(of_slot(9002).unwrap().as_bytes()), None);
        assert!(Table::all(asked()).is_whole());
        let by_name = Table::of(claims(VIEW, &asked(), true).unwrap());
        assert_eq!(by_name.owner(of_slot(1).unwrap().as_bytes()).unwrap().to_string(), "one.example:7001");
    }

    #[test]
    fn who_claims_a_slot_by_a_higher_epoch_has_it_whoever_says_so() {
        let yesterday = claims("aa a:1@2 master - 0 0 3 connected 0-16383\n", &asked(), false).unwrap();
        let today = claims("bb b:1@2 master - 0 0 4 connected 5161\n", &asked(), false).unwrap();
        for views in [[yesterday.clone(), today.clone()], [today, yesterday]] {
            let table = Table::of(views.concat());
            assert_eq!(table.owner(b"tg:{news}").unwrap().host, "b");
            assert_eq!(table.owner(b"tg:{chat}").unwrap().host, "a");
        }
    }

    #[test]
    fn what_is_no_table_is_none() {
        for broken in [
            "aa 10.0.0.1:7001@17001 master - 0 0 5 connected 0-16384",
            "aa 10.0.0.1:7001@17001 master - 0 0 5 connected 9-5",
            "aa 10.0.0.1:7001@17001 master - 0 0 x connected 9",
            "aa 10.0.0.1:99999@1 master - 0 0 5 connected 9",
            "aa 10.0.0.1:0@1 master - 0 0 5 connected 9",
            "aa 10.0.0.1 master - 0 0 5 connected 9",
            "hello",
        ] {
            assert_eq!(claims(broken, &asked(), false), None, "{broken}");
        }
    }
}

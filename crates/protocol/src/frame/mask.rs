//! The client's mask (RFC 6455, 5.3), applied in place.

/// Masks or unmasks `bytes`, whose first byte meets the first byte of `key`.
pub(super) fn apply(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Whole words in one simple loop: the compiler turns it into the widest vectors of the target.
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key as the byte after `done` bytes meets it.
pub(super) fn advance(mut key: [u8; 4], done: usize) -> [u8; 4] {
    key.rotate_left(done % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::{advance, apply};

    #[test]
    fn masking_in_pieces_is_masking_at_once() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..=99).collect();
        let slow: Vec<u8> = plain.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
        for split in 0..=plain.len() {
            let mut pieces = plain.clone();
            let (head, tail) = pieces.split_at_mut(split);
            apply(head, key);
            apply(tail, advance(key, split));
            assert_eq!(pieces, slow, "split at {split}");
        }
    }
}

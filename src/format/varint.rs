//! Unsigned LEB128 integers of up to 32 bits (as in Protocol Buffers).

/// Bytes `value` takes.
pub(crate) fn len(value: u32) -> usize {
    (38 - value.leading_zeros() as usize).max(7) / 7
}

/// The encoding of `value`, and its length.
pub(crate) fn encode(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut len = 0;
    loop {
        bytes[len] = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            return (bytes, len + 1);
        }
        bytes[len] |= 0x80;
        len += 1;
    }
}

/// The integer at the start of `bytes`, and what follows it. `None` when it
/// is cut, longer than needed, or above 32 bits.
pub(crate) fn decode(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u32;
    for (i, &byte) in bytes.iter().take(5).enumerate() {
        let part = u32::from(byte & 0x7f);
        value |= part.checked_shl(7 * i as u32).filter(|v| v >> (7 * i) == part)?;
        if byte & 0x80 == 0 {
            let overlong = i > 0 && byte == 0;
            return (!overlong).then(|| (value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_at_every_length() {
        for shift in 0..32 {
            for value in [(1u32 << shift) - 1, 1 << shift, u32::MAX >> shift] {
                let (bytes, n) = encode(value);
                assert_eq!(n, len(value), "{value}");
                assert_eq!(decode(&bytes[..n]), Some((value, &[][..])));
                assert_eq!(decode(&bytes[..n - 1]), None);
            }
        }
    }

    #[test]
    fn refuses_what_it_would_not_write() {
        assert_eq!(decode(&[0x80, 0x00]), None, "longer than needed");
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None, "33 bits");
        assert_eq!(decode(&[0x80; 6]), None, "without end");
    }
}

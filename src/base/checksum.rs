//! CRC32C, seeded with what the bytes belong to.
//!
//! A checksum over the bytes alone accepts a sound block in the wrong place.
//! Every checksum of the engine therefore starts from a seed that names the
//! file or stream, and the checked bytes or the caller add offset and epoch.
//! It detects accidents; it is no protection against tampering.

#![allow(unreachable_pub, reason = "public only for the benches")]

/// A checksum's starting state: who the checked bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed for what is named by these bytes.
    pub fn of(identity: &[u8]) -> Self {
        Self(crc32c::crc32c(identity))
    }

    /// This seed, narrowed further: to an offset, say.
    pub fn with_u64(self, number: u64) -> Self {
        Self(crc32c::crc32c_append(self.0, &number.to_le_bytes()))
    }

    /// This seed, with bytes whose checksum is wanted together with that of what
    /// follows.
    pub(crate) fn with_bytes(self, bytes: &[u8]) -> Self {
        Self(self.checksum(bytes))
    }

    /// The checksum of `bytes` under this seed.
    pub(crate) fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }

    /// The checksum of `a` followed by `b`.
    pub(crate) fn checksum2(self, a: &[u8], b: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, a), b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        // RFC 3720, section B.4: 32 bytes of zeroes.
        assert_eq!(Seed::of(b"").checksum(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn the_seed_matters() {
        let a = Seed::of(b"table a").with_u64(4096);
        assert_ne!(a.checksum(b"x"), Seed::of(b"table b").with_u64(4096).checksum(b"x"));
        assert_ne!(a.checksum(b"x"), Seed::of(b"table a").with_u64(8192).checksum(b"x"));
        assert_eq!(a.checksum2(b"ab", b"c"), a.checksum(b"abc"));
        assert_eq!(a.with_bytes(b"ab").with_bytes(b"c").checksum(b""), a.checksum(b"abc"));
    }
}

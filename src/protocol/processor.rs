//! The processor that we run on. Three choices depend on it: whether to use non-temporal stores, how to read long messages, and how far
//! ahead to acquire cache lines. Each choice follows measurements on the processors named here. Any other processor gets a default that
//! is correct, though perhaps not the fastest.

/// A family of processors with measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processor {
    /// AMD's Zen 3, Zen 4 and Zen 5.
    Zen,
    /// Intel's server processors with Golden Cove cores: Sapphire Rapids and Emerald Rapids.
    GoldenCove,
    Other,
}

impl Processor {
    /// The processor that we run on.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn this() -> Self {
        use core::arch::x86_64::__cpuid;
        use std::sync::OnceLock;
        // Cached: under a hypervisor, CPUID may take long.
        static THIS: OnceLock<Processor> = OnceLock::new();
        *THIS.get_or_init(|| {
            #[allow(unused_unsafe, reason = "unsafe in older versions of Rust")]
            // SAFETY: every x86-64 processor has CPUID, with its leaves 0 and 1.
            let (vendor, signature) = unsafe { (__cpuid(0), __cpuid(1).eax) };
            Self::of([vendor.ebx, vendor.edx, vendor.ecx], signature)
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn this() -> Self {
        Processor::Other
    }

    /// Whether non-temporal stores are faster for long messages while the consumer runs on a distant processor. `false` on
    /// processors without measurements.
    pub(crate) fn has_use_for_streaming_stores(self) -> bool {
        self == Processor::Zen
    }

    /// Bytes of the longest message whose lines are all acquired ahead. That takes one store per line, which stays in the store buffer
    /// until the line arrives, with the stores of the next payload queued after it. The store buffer has 64 entries on Zen 3 and 112 on
    /// Golden Cove. On Golden Cove too, messages of 8 KiB overflow it, and a stream of them loses a tenth.
    pub(crate) fn longest_acquired(self) -> u64 {
        if self == Processor::GoldenCove { 4096 } else { 2048 }
    }

    /// Decodes what CPUID returns: the vendor's name, and the signature with family and model.
    #[cfg(target_arch = "x86_64")]
    fn of(vendor: [u32; 3], signature: u32) -> Self {
        let bits = |from: u32, count: u32| signature >> from & ((1 << count) - 1);
        let (family, model) = (bits(8, 4) + bits(20, 8), bits(4, 4) + (bits(16, 4) << 4));
        let name = vendor.map(u32::to_le_bytes);
        match (name.as_flattened(), family, model) {
            (b"AuthenticAMD", 0x19 | 0x1A, _) => Processor::Zen,
            (b"GenuineIntel", 6, 0x8F | 0xCF) => Processor::GoldenCove,
            _ => Processor::Other,
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn family_and_model_combine_their_base_and_extended_fields() {
        let words =
            |name: &[u8; 12]| [0, 4, 8].map(|at| u32::from_le_bytes(*name[at..].first_chunk().unwrap()));
        let (amd, intel) = (words(b"AuthenticAMD"), words(b"GenuineIntel"));
        // Milan, Genoa, Turin; then Rome, which is older.
        assert_eq!(
            [0x00A0_0F11, 0x00A1_0F11, 0x00B0_0F21].map(|it| Processor::of(amd, it)),
            [Processor::Zen; 3]
        );
        assert_eq!(Processor::of(amd, 0x0083_0F10), Processor::Other);
        // Sapphire Rapids, Emerald Rapids; then Rocket Lake, Ice Lake.
        assert_eq!([0x0008_06F8, 0x000C_06F2].map(|it| Processor::of(intel, it)), [Processor::GoldenCove; 2]);
        assert_eq!([0x000A_0671, 0x0006_06A6].map(|it| Processor::of(intel, it)), [Processor::Other; 2]);
        // Known signatures from another vendor.
        assert_eq!(Processor::of(amd, 0x000C_06F2), Processor::Other);
        assert_eq!(Processor::of(words(b"HygonGenuine"), 0x00A0_0F11), Processor::Other);
    }
}

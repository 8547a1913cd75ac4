//! The identity of the machine, by its processor and kernel.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::affinity;
use crate::machine::read_cpu;

/// Flags of a processor's methods to copy and to wait.
const FLAGS: [&str; 20] = [
    "sse2",
    "avx",
    "avx2",
    "avx512f",
    "avx512vl",
    "erms",
    "fsrm",
    "fzrm",
    "fsrs",
    "movdiri",
    "movdir64b",
    "clwb",
    "cldemote",
    "prefetchw",
    "3dnowprefetch",
    "waitpkg",
    "monitorx",
    "constant_tsc",
    "asimd",
    "sve",
];

/// The processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// `AuthenticAMD`, `GenuineIntel`; the implementer's number on ARM.
    pub vendor: String,
    /// Its family; the architecture on ARM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<u32>,
    /// Its model; the part on ARM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<u32>,
    /// Its stepping; the revision on ARM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stepping: Option<u32>,
    /// Its marketing name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version of its microcode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
    /// Its flags that matter for copies and waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

impl Cpu {
    /// The first processor of this machine.
    pub(super) fn here() -> Cpu {
        Cpu::parse(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    /// Parses the text of `/proc/cpuinfo`.
    fn parse(text: &str) -> Cpu {
        let field = |key: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
        };
        let number = |keys: [&str; 2]| {
            let value = keys.into_iter().find_map(field)?;
            match value.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok(),
                None => value.parse().ok(),
            }
        };
        let found: Vec<&str> =
            field("flags").or(field("Features")).unwrap_or_default().split_whitespace().collect();
        Cpu {
            vendor: field("vendor_id").or(field("CPU implementer")).unwrap_or("unknown").to_owned(),
            family: number(["cpu family", "CPU architecture"]),
            model: number(["model", "CPU part"]),
            stepping: number(["stepping", "CPU revision"]),
            name: field("model name").map(str::to_owned),
            microcode: field("microcode").map(str::to_owned),
            flags: FLAGS.into_iter().filter(|flag| found.contains(flag)).map(str::to_owned).collect(),
        }
    }

    /// A word for file names: `amd-25-1`.
    pub fn slug(&self) -> String {
        let vendor = match self.vendor.as_str() {
            "AuthenticAMD" => "amd",
            "GenuineIntel" => "intel",
            "0x41" => "arm",
            other => other,
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        let mut slug: String = vendor.chars().map(plain).collect();
        for number in [self.family, self.model] {
            slug += &number.map_or("-x".to_owned(), |number| format!("-{number}"));
        }
        slug
    }

    /// The name of its design, if known here.
    pub fn architecture(&self) -> Option<&'static str> {
        Some(match (self.vendor.as_str(), self.family?, self.model?) {
            ("AuthenticAMD", 23, 0x00..=0x2f) => "Zen",
            ("AuthenticAMD", 23, 0x30..) => "Zen 2",
            ("AuthenticAMD", 25, 0x10..=0x1f | 0x60..=0xaf) => "Zen 4",
            ("AuthenticAMD", 25, _) => "Zen 3",
            ("AuthenticAMD", 26, 0x00..=0x4f | 0x60..=0x7f) => "Zen 5",
            ("GenuineIntel", 6, 79 | 86) => "Broadwell",
            ("GenuineIntel", 6, 85) => "Skylake or Cascade Lake",
            ("GenuineIntel", 6, 106 | 108) => "Ice Lake",
            ("GenuineIntel", 6, 143) => "Sapphire Rapids",
            ("GenuineIntel", 6, 151 | 154) => "Alder Lake",
            ("GenuineIntel", 6, 167) => "Rocket Lake",
            ("GenuineIntel", 6, 173 | 174) => "Granite Rapids",
            ("GenuineIntel", 6, 183 | 186) => "Raptor Lake",
            ("GenuineIntel", 6, 207) => "Emerald Rapids",
            ("0x41", _, 0xd0c) => "Neoverse N1",
            ("0x41", _, 0xd40) => "Neoverse V1",
            ("0x41", _, 0xd49) => "Neoverse N2",
            ("0x41", _, 0xd4f) => "Neoverse V2",
            _ => return None,
        })
    }

    /// The name in tables: `Zen 3`, or as in file names if the design is unknown.
    pub fn short(&self) -> String {
        self.architecture().map_or_else(|| self.slug(), str::to_owned)
    }

    /// A readable name: `AMD EPYC (family 25, model 1)`.
    pub fn describe(&self) -> String {
        let name = self.name.as_deref().unwrap_or(&self.vendor);
        let number = |number: Option<u32>| number.map_or("not known".to_owned(), |number| number.to_string());
        format!("{name} (family {}, model {})", number(self.family), number(self.model))
    }

    /// Whether it is of the same kind, so that figures of the two are comparable.
    pub fn is_like(&self, other: &Cpu) -> bool {
        (&self.vendor, self.family, self.model) == (&other.vendor, other.family, other.model)
    }
}

/// The topology of the processors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The number that this process may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_cpus: Option<usize>,
    /// The two that were used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<[usize; 2]>,
    /// For each level, the cache of the first of the two: its bytes, and the processors that share it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, String>,
    /// The processors that share a core, a die and a package with the first of the two.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared: BTreeMap<String, String>,
}

impl Topology {
    /// The topology of these two processors.
    pub(super) fn of(cpus: Option<(usize, usize)>) -> Topology {
        let Some((first, second)) = cpus else { return Topology::default() };
        let read = |file: String| read_cpu(first, &file);
        let caches = (0..5).filter_map(|index| {
            let cache = |file: &str| read(format!("cache/index{index}/{file}"));
            let (level, kind) = (cache("level")?, cache("type")?);
            let shared = cache("shared_cpu_list").unwrap_or_else(|| "unknown".to_owned());
            let size = cache("size").unwrap_or_else(|| "size unknown".to_owned());
            Some((format!("L{level} {}", kind.to_lowercase()), format!("{size}, CPUs {shared}")))
        });
        let levels = [("core", "core_cpus_list"), ("die", "die_cpus_list"), ("package", "package_cpus_list")];
        let shared = levels
            .into_iter()
            .filter_map(|(level, file)| Some((level.to_owned(), read(format!("topology/{file}"))?)));
        Topology {
            allowed_cpus: affinity::allowed_cpus().ok().map(|cpus| cpus.len()),
            cpus: Some([first, second]),
            caches: caches.collect(),
            shared: shared.collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Topology::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_parsed() {
        let text = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\
                    stepping\t: 1\nmicrocode\t: 0xa0011d1\nflags\t\t: fpu sse2 erms avx fsrm avx2\n\nprocessor\t: 1\n\
                    vendor_id\t: GenuineIntel\n";
        let cpu = Cpu::parse(text);
        assert_eq!((cpu.vendor.as_str(), cpu.family, cpu.model), ("AuthenticAMD", Some(25), Some(1)));
        assert_eq!((cpu.stepping, cpu.microcode.as_deref()), (Some(1), Some("0xa0011d1")));
        assert_eq!(cpu.flags, ["sse2", "avx", "avx2", "erms", "fsrm"]);
        assert_eq!((cpu.slug(), cpu.describe()), ("amd-25-1".into(), "AMD EPYC (family 25, model 1)".into()));
    }

    #[test]
    fn arm_cpuinfo_is_parsed() {
        let text = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU architecture: 8\n\
                    CPU part\t: 0xd40\nCPU revision\t: 1\n";
        let cpu = Cpu::parse(text);
        assert_eq!(
            (cpu.slug(), &cpu.flags[..]),
            ("arm-8-3392".to_owned(), &["asimd".into(), "sve".into()][..])
        );
    }

    #[test]
    fn missing_values_stay_empty() {
        let cpu = Cpu::parse("");
        assert_eq!((cpu.slug(), cpu.name), ("unknown-x-x".to_owned(), None));
    }

    #[test]
    fn known_designs_have_names() {
        let cpu = |vendor: &str, family, model| {
            Cpu { vendor: vendor.into(), family: Some(family), model: Some(model), ..Cpu::default() }.short()
        };
        let amd = |family, model| cpu("AuthenticAMD", family, model);
        assert_eq!(
            [amd(25, 1), amd(25, 17), amd(26, 2), amd(27, 0)],
            ["Zen 3", "Zen 4", "Zen 5", "amd-27-0"]
        );
        assert_eq!(cpu("GenuineIntel", 6, 167), "Rocket Lake");
    }

    #[test]
    fn steppings_are_of_the_same_kind() {
        let cpu = |model| Cpu { vendor: "v".into(), family: Some(6), model: Some(model), ..Cpu::default() };
        assert!(cpu(1).is_like(&Cpu { stepping: Some(3), name: Some("x".into()), ..cpu(1) }));
        assert!(!cpu(1).is_like(&cpu(2)));
    }
}

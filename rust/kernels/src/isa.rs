//! Instruction sets: detected once, overridden by `FERROGRAD_ISA`, and the only
//! `#[target_feature]` functions of the workspace.
//!
//! A kernel is a [`Job`]: plain Rust over lane arrays whose `run` is `#[inline(always)]`, so the
//! compiler builds it once inside each wrapper below. Every path does the same operations in the
//! same order with fused multiply-add, so the results are bit-identical on all of them.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction-set level that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// The target's baseline (x86-64: SSE2 and libm's `fma`; aarch64: NEON).
    Portable = 1,
    /// x86-64 with AVX2 and FMA.
    Avx2 = 2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512 = 3,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The name that `FERROGRAD_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Lane arrays in a row of the level's matrix-product tile.
    pub(crate) fn tile_lanes(self) -> usize {
        match self {
            Level::Portable => Portable::TILE_LANES,
            Level::Avx2 => Avx2::TILE_LANES,
            Level::Avx512 => Avx512::TILE_LANES,
        }
    }

    /// Whether this CPU can run the level.
    pub fn is_supported(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                Level::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The levels that this CPU can run, lowest first.
    pub fn supported() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| level.is_supported())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `FERROGRAD_ISA` names a level that does not exist or that this CPU lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedIsa {
    requested: String,
}

impl fmt::Display for UnsupportedIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Level::supported().map(Level::name).collect();
        write!(f, "FERROGRAD_ISA: this CPU supports {}, got {:?}", names.join(", "), self.requested)
    }
}

impl std::error::Error for UnsupportedIsa {}

/// 0 until the first kernel asks; then a `Level`.
static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// The level that `FERROGRAD_ISA` names, or the best that the CPU has.
fn chosen() -> Result<Level, UnsupportedIsa> {
    match std::env::var("FERROGRAD_ISA") {
        Ok(name) if !name.is_empty() => {
            let level = Level::ALL.into_iter().find(|level| level.name() == name);
            level.filter(|level| level.is_supported()).ok_or(UnsupportedIsa { requested: name })
        }
        _ => Ok(Level::supported().last().unwrap_or(Level::Portable)),
    }
}

/// Makes the level active that `FERROGRAD_ISA` names, or the best that the CPU has.
///
/// # Errors
/// [`UnsupportedIsa`] when the variable names a level that does not exist or the CPU lacks.
pub fn init() -> Result<Level, UnsupportedIsa> {
    force(chosen()?)
}

/// Makes `level` the active one for the whole process. Results do not depend on it.
///
/// # Errors
/// [`UnsupportedIsa`] when the CPU lacks it.
pub fn force(level: Level) -> Result<Level, UnsupportedIsa> {
    if !level.is_supported() {
        return Err(UnsupportedIsa { requested: level.name().to_owned() });
    }
    ACTIVE.store(level as u8, Ordering::Relaxed);
    Ok(level)
}

/// The active level. An invalid `FERROGRAD_ISA` reads as portable here; [`init`] reports it.
#[inline]
pub fn active() -> Level {
    match ACTIVE.load(Ordering::Relaxed) {
        1 => Level::Portable,
        2 => Level::Avx2,
        3 => Level::Avx512,
        _ => {
            let level = chosen().unwrap_or(Level::Portable);
            // Where another thread has forced one meanwhile, it stays: a weight may be packed for it.
            match ACTIVE.compare_exchange(0, level as u8, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => level,
                Err(_) => active(),
            }
        }
    }
}

/// The tile shape that suits an instruction set's registers.
pub trait Isa {
    /// The level that this type stands for.
    const LEVEL: Level;
    /// Rows of a matrix-product tile (the broadcast operand).
    const TILE_ROWS: usize;
    /// Lane arrays (64 bytes each) in a row of the tile (the vector operand).
    const TILE_LANES: usize;
    /// Runs `job` in a function of its own, which keeps large kernels quick to compile.
    ///
    /// # Safety
    /// The CPU must have the instruction set.
    unsafe fn call<J: Job>(job: J) -> J::Output;
}

/// Baseline code; on aarch64 6 rows of 64 bytes leave 8 of the 32 registers for operands.
pub struct Portable;
/// 12 of 16 registers hold a 6 x 64-byte tile.
pub struct Avx2;
/// 24 of 32 registers hold a 12 x 128-byte tile.
pub struct Avx512;

impl Isa for Portable {
    const LEVEL: Level = Level::Portable;
    const TILE_ROWS: usize = 6;
    const TILE_LANES: usize = 1;
    unsafe fn call<J: Job>(job: J) -> J::Output {
        job.run::<Portable>()
    }
}
impl Isa for Avx2 {
    const LEVEL: Level = Level::Avx2;
    const TILE_ROWS: usize = 6;
    const TILE_LANES: usize = 1;
    unsafe fn call<J: Job>(job: J) -> J::Output {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: promised by the caller.
        unsafe {
            run_avx2(job)
        }
        #[cfg(not(target_arch = "x86_64"))]
        job.run::<Avx2>()
    }
}
impl Isa for Avx512 {
    const LEVEL: Level = Level::Avx512;
    const TILE_ROWS: usize = 12;
    const TILE_LANES: usize = 2;
    unsafe fn call<J: Job>(job: J) -> J::Output {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: promised by the caller.
        unsafe {
            run_avx512(job)
        }
        #[cfg(not(target_arch = "x86_64"))]
        job.run::<Avx512>()
    }
}

/// A kernel call. `run` and all that it calls in its loops must be `#[inline(always)]`.
pub trait Job {
    /// What the kernel returns.
    type Output;
    /// The kernel, written once.
    fn run<I: Isa>(self) -> Self::Output;
}

/// Runs `job` compiled for the active instruction set.
#[inline]
pub fn dispatch<J: Job>(job: J) -> J::Output {
    match active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level becomes active only after `is_supported` was checked.
        Level::Avx512 => unsafe { run_avx512(job) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { run_avx2(job) },
        _ => job.run::<Portable>(),
    }
}

/// # Safety
/// The CPU must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<J: Job>(job: J) -> J::Output {
    job.run::<Avx2>()
}

/// # Safety
/// The CPU must have AVX-512 F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn run_avx512<J: Job>(job: J) -> J::Output {
    job.run::<Avx512>()
}

/// Runs a test body on every level that this CPU has. The lock keeps concurrent tests from changing it meanwhile.
#[cfg(test)]
pub(crate) fn on_every_level(mut body: impl FnMut(Level)) {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for level in Level::supported() {
        force(level).unwrap();
        body(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Which;
    impl Job for Which {
        type Output = Level;
        #[inline(always)]
        fn run<I: Isa>(self) -> Level {
            I::LEVEL
        }
    }

    #[test]
    fn every_supported_level_really_runs() {
        for level in Level::supported() {
            force(level).unwrap();
            assert_eq!(dispatch(Which), level);
        }
    }

    #[test]
    fn unsupported_level_names_what_the_cpu_has() {
        let message = UnsupportedIsa { requested: "mmx".into() }.to_string();
        assert!(message.contains("portable") && message.contains("\"mmx\""), "{message}");
    }
}
